"""Measure one layer's mixture of experts: folded as in pemt_core, with `wo` stacked on the experts, in a plain loop.

    python benchmarks/experts.py

The sizes are those of t5-base with six sources: d_model 768, d_ff 3072, rank 64, a batch of 8 with 128 tokens, float32.
Prints JSON with, for each variant, with and without the task sparsity loss, the seconds of forward and backward, the
bytes that autograd keeps between them (activations, not weights), and the ratios to the loop.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial

import torch
from saved import saved_bytes
from torch import Tensor, nn
from torch.nn import functional as F

from pemt_core.model.experts import FoldedExperts

D_MODEL, D_FF, RANK = 768, 3072, 64
Variant = Callable[[Tensor, Tensor, bool], tuple[Tensor, Tensor | None]]


class Layer:
    """The frozen tensors of one layer, and three ways to compute it. Each returns h and, if asked for, the cosines."""

    def __init__(self, num_experts: int, device: str) -> None:
        generator = torch.Generator().manual_seed(0)
        self.wo = nn.Linear(D_FF, D_MODEL, bias=False, device=device).requires_grad_(False)
        downs = [torch.randn(RANK, D_FF, generator=generator) * D_FF**-0.5 for _ in range(num_experts)]
        ups = [torch.randn(D_MODEL, RANK, generator=generator) * RANK**-0.5 for _ in range(num_experts)]
        self.downs, self.ups = [down.to(device) for down in downs], [up.to(device) for up in ups]
        self.experts = FoldedExperts(self.wo, self.downs, self.ups, scales=[1.0] * num_experts)
        self.stack, self.up = torch.cat([self.wo.weight, *self.downs]), self.experts.up

    def folded(self, x: Tensor, weights: Tensor, sparsity: bool) -> tuple[Tensor, Tensor | None]:
        h, channels = self.experts(x, weights)
        return h, self.experts.cosines(h, channels) if sparsity else None

    def stacked(self, x: Tensor, weights: Tensor, sparsity: bool) -> tuple[Tensor, Tensor | None]:
        """One product for `wo` and all V, at the price of a copy of `wo`."""
        both = F.linear(x, self.stack)
        channels = both[..., D_MODEL:].unflatten(-1, (len(self.downs), -1))
        h = both[..., :D_MODEL] + F.linear((channels * weights[:, None, :, None]).flatten(-2), self.up)
        return h, self.experts.cosines(h, channels) if sparsity else None

    def loop(self, x: Tensor, weights: Tensor, sparsity: bool) -> tuple[Tensor, Tensor | None]:
        outputs = [F.linear(F.linear(x, down), up) for down, up in zip(self.downs, self.ups, strict=True)]
        h = self.wo(x)
        for k, output in enumerate(outputs):
            h = h + weights[:, k, None, None] * output
        if not sparsity:
            return h, None
        return h, torch.stack([F.cosine_similarity(h, output, dim=-1) for output in outputs], dim=-1)


def measure(
    layer: Layer, variants: dict[str, Variant], x: Tensor, weights: Tensor, *, sparsity: bool, repeats: int
) -> dict[str, dict[str, float]]:
    """The shortest time of each variant and the bytes it saves; they take turns, so other load affects all alike."""
    tensors = [layer.wo.weight, *layer.downs, *layer.ups, layer.stack, *layer.experts.buffers()]

    def forward(variant: Variant) -> Tensor:
        h, cosines = variant(x, weights, sparsity)
        return h.square().mean() if cosines is None else h.square().mean() + cosines.mean()

    found = {
        name: {"seconds": float("inf"), "saved_mib": saved_bytes(partial(forward, variant), tensors) / 2**20}
        for name, variant in variants.items()
    }
    for _ in range(repeats):
        for name, variant in variants.items():
            synchronize(x)
            start = time.perf_counter()
            forward(variant).backward()
            synchronize(x)
            found[name]["seconds"] = min(found[name]["seconds"], time.perf_counter() - start)
    return found


def synchronize(x: Tensor) -> None:
    if x.is_cuda:
        torch.cuda.synchronize()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experts", type=int, default=6)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    device = arguments.device
    layer = Layer(arguments.experts, device)
    x = torch.randn(arguments.batch, arguments.tokens, D_FF, device=device, requires_grad=True)
    weights = torch.softmax(torch.randn(arguments.batch, arguments.experts, device=device), dim=-1).requires_grad_()
    variants: dict[str, Variant] = {"folded": layer.folded, "stacked": layer.stacked, "loop": layer.loop}
    report: dict[str, object] = {"threads": torch.get_num_threads(), "copy_of_wo_mib": layer.wo.weight.nbytes / 2**20}
    for sparsity in (False, True):
        found = measure(layer, variants, x, weights, sparsity=sparsity, repeats=arguments.repeats)
        ratios = {
            name: {key: round(value / found["loop"][key], 3) for key, value in numbers.items()}
            for name, numbers in found.items()
        }
        report["with sparsity loss" if sparsity else "mixture alone"] = {"measured": found, "to the loop": ratios}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
