"""Diagnostics of gates from the expert weights of every row: are they one-hot, do they read the row, do seeds agree?

Weights of one row and layer are not negative and add up to 1. Methods whose weights do not (ScaLearn, LoRAHub) have no
entropy; `add_up` tells them apart.
"""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Float, Int

_TOLERANCE = 1e-3  # weights may come from bfloat16


@dataclass(frozen=True)
class GateLayer:
    """One layer's gate over the rows of one task, in one run."""

    entropy: float  # mean over rows, from 0 (one expert) to 1 (all equal): divided by log E
    one_hot_rows: float  # share of rows whose largest weight exceeds the threshold
    one_hot: bool  # whether the largest mean weight exceeds it
    variance: float  # within the task: over its rows, summed over experts; from 0 (the row does not matter) to 1
    expert: int  # index of the largest mean weight
    mean_weights: tuple[float, ...]


def add_up(weights: Float[np.ndarray, "*rows experts"]) -> bool:
    """Whether all weights are shares: not negative, with sum 1."""
    return bool((weights >= -_TOLERANCE).all() and (abs(weights.sum(-1) - 1) <= _TOLERANCE).all())


def gate_layers(weights: Float[np.ndarray, "rows layers experts"], threshold: float) -> tuple[GateLayer, ...]:
    """Describe every layer's gate; above `threshold` (such as 0.95) a weight counts as one-hot.

    Raises ValueError if the weights of a row do not add up to 1.
    """
    if not add_up(weights):
        raise ValueError("expert weights must be shares that add up to 1; these have no entropy")
    means, variances = weights.mean(0), weights.var(0).sum(-1)
    entropies, largest = entropy(weights).mean(0), weights.max(-1)
    return tuple(
        GateLayer(
            entropy=float(entropies[layer]),
            one_hot_rows=float((largest[:, layer] > threshold).mean()),
            one_hot=bool(means[layer].max() > threshold),
            variance=float(variances[layer]),
            expert=int(means[layer].argmax()),
            mean_weights=tuple(means[layer].tolist()),
        )
        for layer in range(weights.shape[1])
    )


def entropy(weights: Float[np.ndarray, "*rows experts"]) -> Float[np.ndarray, "*rows"]:
    """Shannon's entropy of each row's weights divided by log E, from 0 to 1; 0 for a single expert."""
    experts = weights.shape[-1]
    logs = np.log(weights, out=np.zeros_like(weights), where=weights > 0)
    return np.maximum(-(weights * logs).sum(-1), 0) / (math.log(experts) if experts > 1 else 1.0)


def variance_between(means: Float[np.ndarray, "tasks layers experts"]) -> Float[np.ndarray, " layers"]:
    """The variance over tasks of their mean weights, summed over experts: compare it with that within a task."""
    return means.var(0).sum(-1)


def seed_agreement(experts: Int[np.ndarray, "seeds layers"]) -> Float[np.ndarray, " layers"]:
    """The share of pairs of seeds that choose the same expert, per layer; random choices agree in 1/E of pairs.

    Raises ValueError for fewer than two seeds.
    """
    if len(experts) < 2:
        raise ValueError("agreement between seeds needs at least two of them")
    return np.mean([first == second for first, second in combinations(experts, 2)], axis=0)
