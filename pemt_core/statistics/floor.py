"""Targets that say nothing about methods: every one of them scores like a constant answer or a guess."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Floor:
    """How far the methods of a target are above an answer that never reads the text."""

    target: str
    metric: str
    constant_answer: str  # the best one; "" where only `chance` counts
    constant_score: float  # points, of the constant answer or of chance, whichever is higher
    band: float  # points above `constant_score` that still count as equal: one standard error
    best_method: str
    best_score: float  # points, a mean over seeds
    at_floor: bool
    reason: str
