"""What open_clip makes of a model of ours: features, gradients, a trajectory, initial distributions."""

import json
import os
import sys

import torch
from open_clip import ClipLoss, get_model_config
from open_clip.factory import load_checkpoint
from open_clip.model import CLIP
from safetensors.torch import load_file, save_file


def model_of(name, config):
    """Makes the model that a config of open_clip's own names, or that the given JSON describes."""
    config = dict(get_model_config(name) or json.loads(config))
    config.pop("custom_text", None)
    return CLIP(**config)


def compare(folder, name, config):
    """Writes features in evaluation, and loss, gradients and statistics of a training pass."""
    inputs = load_file(f"{folder}/inputs.safetensors")
    images, tokens = inputs["images"], inputs["tokens"]
    model = model_of(name, config)
    weights = f"{folder}/open_clip_model.safetensors"
    model.load_state_dict(load_file(weights), strict=True)
    # As large as the gradients that will be written.
    os.remove(weights)
    if (kept := inputs.get("patches")) is not None:
        # In place of those that open_clip would draw.
        rows = torch.arange(len(kept))[:, None]
        model.visual.patch_dropout.forward = lambda x: (
            torch.cat([x[:, :1], x[:, 1:][rows, kept]], dim=1) if model.training else x
        )
    with torch.no_grad():
        model.eval()
        found = {"image": model.encode_image(images, normalize=True), "text": model.encode_text(tokens, normalize=True)}
    model.train()
    loss = ClipLoss()(*model(images, tokens))
    loss.backward()
    found["loss"] = loss.detach()
    found |= {f"gradient {name}": parameter.grad for name, parameter in model.named_parameters()}
    found |= {f"buffer {name}": buffer for name, buffer in model.named_buffers() if name != "attn_mask"}
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, f"{folder}/reference.safetensors")


def trajectory(folder, name, config):
    """Trains as OpenCLIP does, with constant rates, and writes the parameters. In fp64: Adam's first steps are the signs of
    gradients, which rounding decides where a gradient is almost zero."""
    inputs = load_file(f"{folder}/inputs.safetensors")
    model = model_of(name, config).double()
    model.load_state_dict(load_file(f"{folder}/open_clip_model.safetensors"), strict=True)
    model.train()
    excluded = lambda name, p: p.ndim < 2 or any(part in name for part in ("bn", "ln", "bias", "logit_scale"))
    groups = [
        {"params": [p for n, p in model.named_parameters() if excluded(n, p)], "weight_decay": 0.0},
        {"params": [p for n, p in model.named_parameters() if not excluded(n, p)], "weight_decay": 0.2},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.98), eps=1e-6)
    for images, tokens in zip(inputs["images"], inputs["tokens"]):
        optimizer.zero_grad()
        ClipLoss()(*model(images, tokens)).backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, 4.605170185988092)
    save_file({name: p.detach().contiguous() for name, p in model.named_parameters()}, f"{folder}/reference.safetensors")


def resized(folder, name, config):
    """Writes the state of a model of another size that begins with our weights."""
    model = model_of(name, config)
    load_checkpoint(model, f"{folder}/open_clip_model.safetensors")
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, f"{folder}/reference.safetensors")


def archived(folder, name, config):
    """Writes weights as OpenAI keeps them: in half precision, under the name of a wrapper, beside sizes that are none."""
    state = load_file(f"{folder}/open_clip_model.safetensors")
    state = {f"module.{name}": tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    sizes = {name: torch.tensor(7) for name in ("input_resolution", "context_length", "vocab_size")}
    save_file(state | sizes, f"{folder}/archive.safetensors")
    save_file({}, f"{folder}/reference.safetensors")


def locked(folder, name, config):
    """Prints the parameters that are trained for each way to lock the towers."""
    found = {}
    is_resnet = isinstance(json.loads(config)["vision_cfg"]["layers"], list)
    for image in [None, 0] if is_resnet else [None, 0, 1, 2, 3, 9]:
        for text in [None, 0, 1, 2, 3, 9]:
            model = model_of(name, config)
            if image is not None:
                model.lock_image_tower(unlocked_groups=image)
            if text is not None:
                model.lock_text_tower(unlocked_layers=text)
            trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
            found[json.dumps([image, text])] = trained
    print(json.dumps(found))


def embedded(folder, data, out):
    """Encodes a dataset as users of open_clip do, compares embeddings, and prints the figures of CLIP_benchmark as NumPy
    computes them from the embeddings that were written."""
    import glob
    import io
    import tarfile

    import numpy as np
    import open_clip
    from PIL import Image

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
    model.eval()
    pixels, captions, classes = [], [], []
    for shard in sorted(glob.glob(f"{data}/*.tar")):
        with tarfile.open(shard) as archive:
            for name in sorted(archive.getnames()):
                content = archive.extractfile(name).read()
                if name.endswith(".jpg"):
                    pixels.append(preprocess(Image.open(io.BytesIO(content))))
                elif name.endswith(".txt"):
                    captions.append(content.decode())
                elif name.endswith(".cls"):
                    classes.append(int(content))
    with torch.no_grad():
        encode = lambda texts: model.encode_text(tokenizer(texts), normalize=True)
        expected = [model.encode_image(torch.stack(pixels), normalize=True), encode(captions)]
        names, templates = (open(f"{data}/{file}").read().split("\n")[:-1] for file in
                            ("classnames.txt", "zeroshot_classification_templates.txt"))
        prompts = [encode([template.replace("{c}", name) for template in templates]).mean(0) for name in names]
        classifier = torch.nn.functional.normalize(torch.stack(prompts), dim=-1).double().numpy()
    images, texts = (np.load(f"{out}/{kind}_embeddings.npy") for kind in ("image", "text"))
    found = {
        f"{kind} error": float(np.abs(rows - theirs.numpy()).max())
        for kind, rows, theirs in (("image", images, expected[0]), ("text", texts, expected[1]))
    }
    images, texts, classes = images.astype(np.float64), texts.astype(np.float64), np.array(classes)

    def places(scores, right):
        """How many candidates are ahead of the right one, for each query."""
        own = np.take_along_axis(scores, right[:, None], 1)
        return (scores > own).sum(1)

    place = places(images @ classifier.T, classes)
    found |= {"acc1": (place < 1).mean(), "acc5": (place < 5).mean()}
    found["mean_per_class_recall"] = np.mean([(place[classes == c] < 1).mean() for c in np.unique(classes)])
    own = np.arange(len(images))
    for task, scores in (("image", texts @ images.T), ("text", images @ texts.T)):
        for k in (1, 5, 10):
            found[f"{task}_retrieval_recall@{k}"] = (places(scores, own) < k).mean()
    print(json.dumps({name: float(value) for name, value in found.items()}))


def initial(folder, name, config):
    """Prints mean, standard deviation, least and largest value of every tensor of a new model."""
    torch.manual_seed(0)
    statistics = {}
    for name, tensor in model_of(name, config).state_dict().items():
        values = tensor.double()
        spread = values.std(correction=0).item()
        statistics[name] = [values.mean().item(), spread, values.min().item(), values.max().item()]
    print(json.dumps(statistics))


def flops(folder, name, config):
    """Prints the operations of a forward pass over one image and one caption, as PyTorch counts them."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model = model_of(name, config).eval()
    size, length = model.visual.image_size, model.context_length
    found = []
    for encode, value in (
        (model.encode_image, torch.zeros(1, 3, *((size, size) if isinstance(size, int) else size))),
        (model.encode_text, torch.zeros(1, length, dtype=torch.long)),
    ):
        # Attention in one operation is not counted on CPUs; nor is that of evaluation without gradients.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            encode(value)
        found.append(counter.get_total_flops())
    print(json.dumps(found))


def configs(names):
    """Prints the configs of open_clip's models that are made of plain towers."""
    found = {}
    for name in names:
        found[name] = get_model_config(name)
    print(json.dumps(found))


torch.set_num_threads(1)
if sys.argv[1] == "configs":
    configs(sys.argv[2:])
else:
    globals()[sys.argv[1]](*sys.argv[2:])
