"""PSCP, the score of PEFT-Bench that weighs performance against cost.

PEFT Soft Score Penalties ("Soft Cost Penalties" in version 3; Belanec, Pecher, Srba & Bielikova, 2025,
arXiv:2511.21285, equation 3): P x Π (1 + M / C)^-β over trained parameters, inference FLOPs beyond those of the bare
backbone, and the peak memory of training. β is 1 for all three. The constants C may be values near full fine-tuning,
as published for an 8B model, or the medians over the methods (section 3.3), which suit a small backbone: against the
published ones its costs vanish.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass

import numpy as np


@dataclass(frozen=True)
class Cost:
    """What a method costs; the units are free, but those of the constants are the same."""

    parameters: float | int  # trained
    inference: float | int  # beyond the bare backbone; TFLOPs in the paper
    memory: float | int  # of training, mean over runs of the peak; GB in the paper


PUBLISHED_CONSTANTS = Cost(parameters=5e8, inference=10.0, memory=94.0)
EQUAL_WEIGHTS = Cost(parameters=1.0, inference=1.0, memory=1.0)


def pscp(performance: float, cost: Cost, constants: Cost = PUBLISHED_CONSTANTS, weights: Cost = EQUAL_WEIGHTS) -> float:
    """PSCP in the unit of `performance` (the mean over tasks and runs; points here).

    Raises ValueError on a negative cost or a constant that is not positive.
    """
    if min(astuple(cost)) < 0 or min(astuple(constants)) <= 0:
        raise ValueError(f"costs must not be negative and constants positive: {cost}, {constants}")
    return performance * float(np.prod(penalties(cost, constants, weights)))


def penalties(
    cost: Cost, constants: Cost = PUBLISHED_CONSTANTS, weights: Cost = EQUAL_WEIGHTS
) -> tuple[float, float, float]:
    """The factors for parameters, inference and memory, each above 0 and at most 1."""
    parts = zip(astuple(cost), astuple(constants), astuple(weights), strict=True)
    parameters, inference, memory = ((1 + m / c) ** -beta for m, c, beta in parts)
    return parameters, inference, memory


def median_constants(costs: Sequence[Cost]) -> Cost:
    """The median of each cost over the methods; the mean where the median is 0, and 1 where every method has 0."""
    columns = np.array([astuple(cost) for cost in costs])
    middle = np.median(columns, axis=0)
    filled = np.where(middle > 0, middle, columns.mean(0))
    return Cost(*(float(value) or 1.0 for value in filled))
