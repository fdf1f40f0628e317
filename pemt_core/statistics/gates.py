"""Diagnostics of gates from the expert weights of every row."""

from dataclasses import dataclass


@dataclass(frozen=True)
class GateLayer:
    """One layer's gate over the rows of one task, in one run."""

    entropy: float  # mean over rows, from 0 (one expert) to 1 (all equal): divided by log E
    one_hot_rows: float  # share of rows whose largest weight exceeds the threshold
    one_hot: bool  # whether the largest mean weight exceeds it
    variance: float  # over the rows of the task, summed over experts; at most 1
    expert: int  # index of the largest mean weight
    mean_weights: tuple[float, ...]
