"""The optimizer of every training, and the schedule of its learning rate."""

from collections.abc import Mapping

import torch
from torch import nn


def make_optimizer(
    trained: Mapping[str, nn.Parameter], learning_rate: float, factors: Mapping[str, float]
) -> torch.optim.AdamW:
    """AdamW as in both stages of the method, with a group of tensors for each of `factors`, by name; the default is 1.

    Each group has its `factor`, by which the schedule multiplies the learning rate. Raises ValueError if `factors`
    names a tensor that is not trained.
    """
    unknown = sorted({*factors} - {*trained})
    if unknown:
        raise ValueError(f"there are learning-rate factors of {unknown}, which are not among the trained tensors")
    groups = [
        {"params": [tensor for name, tensor in trained.items() if factors.get(name, 1.0) == factor], "factor": factor}
        for factor in sorted({factors.get(name, 1.0) for name in trained})
    ]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True)


def linear_schedule(step: int, warmup_steps: int, total_steps: int) -> float:
    """The factor of the learning rate at `step` (from 0): it rises linearly over the warm-up, then falls to 0."""
    if step < warmup_steps:
        return step / warmup_steps
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))
