"""How a task's gates behave over its rows: spread of the weights, share of one-hot rows, dependence on the row."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

ONE_HOT = 0.95  # a row's gate is one-hot if its largest weight is above
SUM_TOLERANCE = 1e-3  # of a distribution; softmax in float32 stays within 1e-6


@dataclass(frozen=True)
class GateStatistics:
    """One layer's gate over the rows of a split.

    `entropy` and `one_hot` are None if the weights of some row are no distribution: not all methods use a softmax.
    """

    entropy: float | None  # mean over rows, divided by ln E: 0 if one expert has all the weight, 1 if all are equal
    one_hot: float | None  # share of rows whose largest weight is above ONE_HOT
    deviation: float  # standard deviation over rows (divisor N), mean over experts: 0 if the gate ignores the row


def gate_statistics(weights: Sequence[Float[NDArray[np.float64], "B E"]]) -> GateStatistics:
    """Describe one layer's expert weights, given batch by batch."""
    rows = np.concatenate([np.asarray(batch, dtype=np.float64) for batch in weights])
    deviation = float(rows.std(axis=0).mean())
    if (rows < 0).any() or (np.abs(rows.sum(axis=1) - 1) > SUM_TOLERANCE).any():
        return GateStatistics(None, None, deviation)
    nats = -np.sum(rows * np.log(np.where(rows > 0, rows, 1.0)), axis=1)
    experts = rows.shape[1]
    entropy = float(nats.mean()) / math.log(experts) if experts > 1 else 0.0
    return GateStatistics(max(0.0, entropy), float((rows.max(axis=1) > ONE_HOT).mean()), deviation)
