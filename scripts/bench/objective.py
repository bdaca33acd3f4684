"""One rank's step of the loss, as one would write it in PyTorch, in float32: InfoNCE over gathered features, and FastCLIP-v3.

Prints one line of JSON like `step` of trainer/benches/objective.rs, on the same features.
"""

import argparse
import json
import resource
import statistics
import time

import torch
import torch.nn.functional as F
from safetensors.torch import load_file


def info_nce(image, text, log_scale, all_image, all_text):
    """OpenCLIP's --local-loss --gather-with-grad: local anchors; gathered features carry gradient."""
    scale = log_scale.exp()
    labels = torch.arange(len(image))
    return (F.cross_entropy(scale * image @ all_text.T, labels) + F.cross_entropy(scale * text @ all_image.T, labels)) / 2


def fastclip_v3(image, text, log_scale, all_image, all_text):
    """Both parts of a rank's loss: its anchors against all samples, and all anchors against its samples."""
    local, total = len(image), len(all_image)
    tau = 1 / log_scale.exp()
    positive = (all_image * all_text).sum(1)
    own = torch.zeros(local, total, dtype=torch.bool)
    own[:, :local].fill_diagonal_(True)
    image_rows, text_rows = image @ all_text.T, text @ all_image.T

    def inner(rows):
        mine = (image * text).sum(1, keepdim=True)
        return (((rows - mine) / tau).exp().masked_fill(own, 0)).sum(1) / (total - 1)

    g1, g2 = inner(image_rows), inner(text_rows)
    u1, u2 = g1.detach(), g2.detach()  # first epoch: gamma = 1
    ranks = total // local
    all_u1, all_u2 = u1.repeat(ranks), u2.repeat(ranks)
    eps, rho = 1e-14, 8.0

    def against(rows, u):  # all anchors, local candidates
        h = ((rows - positive) / tau).exp().masked_fill(own, 0)
        return (h / (u + eps)).sum() / (local * (total - 1))

    part1 = (g1 / (u1 + eps) + g2 / (u2 + eps)).mean()
    part2 = against(text_rows, all_u1) + against(image_rows, all_u2)
    log_mean = (u1.log() + u2.log()).mean() / 2
    return tau.detach() * (part1 + part2) / 2 + rho * tau + tau * log_mean


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--objective", choices=["openclip", "fastclip-v3"], required=True)
    parser.add_argument("--features", required=True)
    parser.add_argument("--ranks", type=int, required=True)
    parser.add_argument("--repetitions", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    features = load_file(arguments.features)
    log_scale = torch.tensor(1 / 0.07).log().requires_grad_()
    image, text = (features[name].requires_grad_() for name in ("image", "text"))
    with torch.no_grad():
        others = [tower.repeat(arguments.ranks - 1, 1) for tower in (image, text)]

    def step():
        for leaf in (image, text, log_scale):
            leaf.grad = None
        if arguments.objective == "openclip":
            gathered = [torch.cat([tower, other]).detach().requires_grad_() for tower, other in zip((image, text), others)]
            loss = info_nce(image, text, log_scale, *gathered)
            loss.backward()  # leaves in `gathered` what a reduce-scatter would sum over ranks
            return loss, gathered
        gathered = [torch.cat([tower.detach(), other]) for tower, other in zip((image, text), others)]
        loss = fastclip_v3(image, text, log_scale, *gathered)
        loss.backward()
        return loss, []

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def resident():
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))

    before = resident()
    loss, gathered = step()
    peak_bytes = peak() - before
    loss = loss.item()
    # All ranks have the same batch, so what the others' losses say of this rank's block is what this one says of theirs.
    for tower, everywhere in zip((image, text), gathered):
        tower.grad += everywhere.grad.view(arguments.ranks, *tower.shape).sum(0)
    norms = [tower.grad.norm().item() for tower in (image, text)]
    by_scale = log_scale.grad.item()
    seconds = []
    for _ in range(arguments.repetitions):
        start = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - start)
    print(
        json.dumps(
            {
                "objective": arguments.objective,
                "peak_bytes": peak_bytes,
                "loss": loss,
                "image_norm": norms[0] / arguments.ranks,
                "text_norm": norms[1] / arguments.ranks,
                "log_scale": by_scale,
                "seconds": statistics.median(seconds),
            }
        )
    )


if __name__ == "__main__":
    main()
