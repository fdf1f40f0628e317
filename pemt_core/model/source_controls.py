"""Changed experts, for negative controls: does a method that mixes sources need what the sources learned?

All are deterministic, from the experts and a seed, so that a stored target is restored with the experts it was
trained with.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pemt_core.model.assemble import Expert

PROMPT = "prompt"


def exchanged_adapters(experts: Sequence[Expert]) -> list[Expert]:
    """Give every source the adapter of the next one, and the last that of the first; prompts stay.

    PEMT cannot notice: its guided prompt is a sum over all sources, and nothing else connects a source's prompt with
    its adapter. With zero gates at the start, it only learns the gates' columns in another order.
    """
    adapters = [*experts[1:], *experts[:1]]
    return [
        replace(expert, scale=adapter.scale, tensors={**adapter.tensors, PROMPT: expert.tensors[PROMPT]})
        for expert, adapter in zip(experts, adapters, strict=True)
    ]


def random_adapters(experts: Sequence[Expert], seed: int) -> list[Expert]:
    """Replace every adapter's matrices by Gaussian ones of the same norm (Frobenius); prompts stay."""
    return [
        replace(
            expert,
            tensors={
                name: tensor if name == PROMPT else _of_same_norm(tensor, _generator(expert, name, seed))
                for name, tensor in expert.tensors.items()
            },
        )
        for expert in experts
    ]


def shuffled_prompts(experts: Sequence[Expert], seed: int) -> list[Expert]:
    """Shuffle the numbers within every source's prompt; adapters stay."""
    return [
        replace(
            expert,
            tensors={**expert.tensors, PROMPT: _shuffled(expert.tensors[PROMPT], _generator(expert, PROMPT, seed))},
        )
        for expert in experts
    ]


def _generator(expert: Expert, name: str, seed: int) -> torch.Generator:
    """A generator for one tensor, which does not depend on what other sources there are."""
    digest = hashlib.sha256(f"{seed} {expert.task} {name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def _of_same_norm(tensor: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(tensor.shape, generator=generator).to(tensor)
    return drawn * (torch.linalg.norm(tensor) / torch.linalg.norm(drawn))


def _shuffled(tensor: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(tensor.numel(), generator=generator)
    return tensor.flatten()[order.to(tensor.device)].view_as(tensor)
