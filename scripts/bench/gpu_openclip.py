"""Steps of OpenCLIP's own model and loss in PyTorch, over made batches on the device: prints one line of JSON like `train bench`.

Where the package open_clip is missing, an equivalent written for this bench takes its place (transformers only), and the
line says so.
"""

import argparse
import json
import math
import time

import torch
import torch.nn.functional as F

# Width, layers, heads, patch, features of the image tower; width, layers, heads of the text tower.
EQUIVALENTS = {
    "ViT-B-32": (768, 12, 12, 32, 512, 512, 12, 8),
    "ViT-B-16": (768, 12, 12, 16, 512, 512, 12, 8),
}
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"width": 16, "heads": 2, "layers": 1, "context_length": 77, "vocab_size": 49408},
}


class Block(torch.nn.Module):
    def __init__(self, width, heads, causal):
        super().__init__()
        self.heads, self.causal = heads, causal
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.qkv, self.out = torch.nn.Linear(width, 3 * width), torch.nn.Linear(width, width)
        self.fc, self.proj = torch.nn.Linear(width, 4 * width), torch.nn.Linear(4 * width, width)

    def forward(self, x):
        n, tokens, width = x.shape
        q, k, v = self.qkv(self.ln_1(x)).view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        x = x + self.out(mixed.transpose(1, 2).reshape(n, tokens, width))
        return x + self.proj(F.gelu(self.fc(self.ln_2(x))))


class Equivalent(torch.nn.Module):
    """CLIP with a vision transformer."""

    def __init__(self, width, layers, heads, patch, dim, text_width, text_layers, text_heads, side=224, context=77):
        super().__init__()
        tokens = (side // patch) ** 2 + 1
        self.patches = torch.nn.Conv2d(3, width, patch, patch, bias=False)
        self.cls = torch.nn.Parameter(torch.randn(width) * width**-0.5)
        self.places = torch.nn.Parameter(torch.randn(tokens, width) * width**-0.5)
        self.pre, self.post = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.image_blocks = torch.nn.Sequential(*(Block(width, heads, False) for _ in range(layers)))
        self.image_proj = torch.nn.Parameter(torch.randn(width, dim) * width**-0.5)
        self.words = torch.nn.Embedding(49408, text_width)
        self.text_places = torch.nn.Parameter(torch.randn(context, text_width) * 0.01)
        self.text_blocks = torch.nn.Sequential(*(Block(text_width, text_heads, True) for _ in range(text_layers)))
        self.final = torch.nn.LayerNorm(text_width)
        self.text_proj = torch.nn.Parameter(torch.randn(text_width, dim) * text_width**-0.5)
        self.logit_scale = torch.nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, images, tokens):
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.to(x.dtype).expand(len(x), 1, -1), x], 1) + self.places
        image = self.post(self.image_blocks(self.pre(x))[:, 0]) @ self.image_proj
        y = self.text_blocks(self.words(tokens) + self.text_places)
        text = self.final(y[torch.arange(len(y)), tokens.argmax(1)]) @ self.text_proj
        return F.normalize(image, dim=-1), F.normalize(text, dim=-1), self.logit_scale.exp()


def model_of(arguments):
    """The model, its loss, its number of tokens and image side, and where it comes from."""
    try:
        import open_clip
        from open_clip.loss import ClipLoss

        if arguments.model == "tiny":
            from open_clip.model import CLIP

            model = CLIP(**TINY)
        else:
            model = open_clip.create_model(arguments.model)
        return model, ClipLoss(), f"open_clip {open_clip.__version__}"
    except ImportError:
        if arguments.model not in EQUIVALENTS:
            raise SystemExit(f"open_clip is not installed, and there is no equivalent of {arguments.model}") from None

        def loss(image, text, scale):
            logits = scale * image @ text.T
            labels = torch.arange(len(logits), device=logits.device)
            return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

        return Equivalent(*EQUIVALENTS[arguments.model]), loss, "an equivalent of OpenCLIP's, written for this bench"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="ViT-B-16")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--warm-up", type=int, default=8)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.backends.cudnn.allow_tf32 = True
    device = torch.device(arguments.device)
    model, loss, source = model_of(arguments)
    model = model.to(device).train()
    side = 32 if arguments.model == "tiny" else 224
    batch = arguments.batch_size
    images = torch.randn(batch, 3, side, side, device=device)
    tokens = torch.randint(1, 49406, (batch, 77), device=device)
    tokens[:, 0], tokens[:, -1] = 49406, 49407
    # OpenCLIP's groups: no decay for biases, norms and the temperature.
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": others, "weight_decay": 0.0}, {"params": decayed, "weight_decay": 0.2}]
    optimizer = torch.optim.AdamW(groups, lr=5e-4, betas=(0.9, 0.98), eps=1e-6)
    forward = torch.compile(model) if arguments.compile else model

    def step():
        optimizer.zero_grad()
        with torch.autocast(device.type, dtype=torch.bfloat16):
            image, text, scale = forward(images, tokens)[:3]
            total = loss(image, text, scale)
        total.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))

    def wait():
        if device.type == "cuda":
            torch.cuda.synchronize()

    for _ in range(arguments.warm_up):
        step()
    wait()
    started = time.perf_counter()
    for _ in range(arguments.steps):
        step()
    wait()
    seconds = time.perf_counter() - started
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    print(
        json.dumps(
            {
                "source": source,
                "torch": torch.__version__,
                "batch": batch,
                "step_milliseconds": seconds * 1e3 / arguments.steps,
                "samples_per_second": batch * arguments.steps / seconds,
                "peak_allocated_bytes": peak,
            }
        )
    )


if __name__ == "__main__":
    main()
