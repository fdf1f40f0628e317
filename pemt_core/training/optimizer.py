"""The optimizer of a training, that of a group of trainings, and the schedule of the learning rate."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

BETAS, EPSILON = (0.9, 0.999), 1e-8
CLIPPING_FLOOR = 1e-6  # beside the norm of the gradients, as in torch.nn.utils.clip_grad_norm_


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
    return torch.optim.AdamW(groups, lr=learning_rate, betas=BETAS, eps=EPSILON, weight_decay=0.0, fused=True)


class GroupedAdamW:
    """The optimizer of `make_optimizer` for N trainings whose tensors are the rows of one matrix.

    Each training has its own learning rate, number of steps and norm of gradients; torch's optimizer has one learning
    rate and one number of steps per tensor.
    """

    def __init__(self, values: nn.Parameter, is_trained: Bool[Tensor, "N W"]) -> None:
        self.values, self.is_trained = values, is_trained
        self.exp_avg, self.exp_avg_sq = torch.zeros_like(values), torch.zeros_like(values)

    @torch.no_grad()
    def step(
        self, rates: Float[Tensor, " N"], steps: Float[Tensor, " N"], max_norm: float, moves: Bool[Tensor, " N"]
    ) -> None:
        """Take a step of the trainings that `moves` marks, with gradients clipped to `max_norm`, and forget these.

        `steps`: how many each has taken with this one.
        """
        gradient = self.values.grad
        if gradient is None:
            raise RuntimeError("there are no gradients: call backward first")
        gradient = gradient * self.is_trained
        norms = gradient.norm(dim=1, keepdim=True)
        gradient *= (max_norm / (norms + CLIPPING_FLOOR)).clamp_max(1.0)
        exp_avg = self.exp_avg.lerp(gradient, 1 - BETAS[0])
        exp_avg_sq = (self.exp_avg_sq * BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        corrections = [1 - beta ** steps.unsqueeze(1) for beta in BETAS]
        denominator = (exp_avg_sq.sqrt() / corrections[1].sqrt()).add_(EPSILON)
        update = rates.unsqueeze(1) / corrections[0] * exp_avg / denominator
        rows = moves.unsqueeze(1)
        self.values.sub_(torch.where(rows, update, 0.0))
        self.exp_avg.copy_(torch.where(rows, exp_avg, self.exp_avg))
        self.exp_avg_sq.copy_(torch.where(rows, exp_avg_sq, self.exp_avg_sq))
        self.values.grad = None


def linear_schedule(step: int, warmup_steps: int, total_steps: int) -> float:
    """The factor of the learning rate at `step` (from 0): it rises linearly over the warm-up, then falls to 0."""
    if step < warmup_steps:
        return step / warmup_steps
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))
