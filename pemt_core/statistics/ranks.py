"""Average ranks of methods over targets, and the groups that no pairwise test separates."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True, eq=False)
class Ranking:
    """Methods by average rank over the targets that all of them have; rank 1 is best, ties share their mean rank."""

    methods: tuple[str, ...]  # best first
    average_ranks: tuple[float, ...]  # in the order of `methods`
    n_targets: int
    friedman: float  # chi-squared
    iman_davenport: float  # F with (k - 1) and (k - 1)(N - 1) degrees of freedom
    p: float  # of Iman-Davenport's F
    p_holm: Float[np.ndarray, "methods methods"]  # pairwise Wilcoxon, Holm over all pairs; 1 on the diagonal
    cliques: tuple[tuple[str, ...], ...]  # bars of the critical-difference plot, each best first
