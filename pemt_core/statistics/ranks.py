"""Average ranks of methods over targets, and the groups that no pairwise test separates.

A method's rank depends on who else is in the pool, and Nemenyi's critical difference separates almost nothing with a
dozen methods, so the bars join methods whose pairwise signed-rank tests, Holm-corrected over all pairs, find no
difference (Benavoli, Corani & Mangili, 2016; Demšar, 2006, for the plot).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float

from pemt_core.statistics.holm import holm
from pemt_core.statistics.signed_rank import signed_rank_p, without_rounding


@dataclass(frozen=True, eq=False)
class Ranking:
    """Methods by average rank over the targets that all of them have; rank 1 is best, ties share their mean rank."""

    methods: tuple[str, ...]  # best first
    average_ranks: tuple[float, ...]  # in the order of `methods`
    n_targets: int
    friedman: float  # chi-squared with k - 1 degrees of freedom
    iman_davenport: float  # F with k - 1 and (k - 1)(N - 1); infinite if all targets rank the methods alike
    p: float  # of Iman-Davenport's F
    p_holm: Float[np.ndarray, "methods methods"]  # of the pairwise tests, in the order of `methods`; 1 on the diagonal
    cliques: tuple[tuple[str, ...], ...]  # bars of the plot, best first; a bar may pass a method that is no member


def rank_methods(methods: Sequence[str], scores: Float[np.ndarray, "targets methods"], confidence: float) -> Ranking:
    """Rank methods by their scores (points, higher is better).

    Raises ValueError for fewer than two targets or three methods, for which Friedman's test does not exist.
    """
    from scipy.stats import f, rankdata

    n, k = scores.shape
    if n < 2 or k < 3:
        raise ValueError(f"a ranking needs at least 2 targets and 3 methods, not {n} and {k}")
    ranks = rankdata(-without_rounding(scores), axis=1)
    chi_squared = _friedman(ranks)
    below = n * (k - 1) - chi_squared
    statistic = (n - 1) * chi_squared / below if below > 1e-9 else math.inf
    averages = ranks.mean(0)
    order = sorted(range(k), key=lambda column: (averages[column], column))
    p_holm = _pairwise(scores[:, order])
    names = tuple(methods[column] for column in order)
    return Ranking(
        methods=names,
        average_ranks=tuple(float(averages[column]) for column in order),
        n_targets=n,
        friedman=chi_squared,
        iman_davenport=statistic,
        p=float(f.sf(statistic, k - 1, (k - 1) * (n - 1))),
        p_holm=p_holm,
        cliques=tuple(tuple(names[i] for i in clique) for clique in cliques(p_holm >= 1 - confidence)),
    )


def _friedman(ranks: Float[np.ndarray, "targets methods"]) -> float:
    """Friedman's chi-squared, corrected for ties (Conover, 1999, 5.8); 0 if no target tells methods apart."""
    n, k = ranks.shape
    spread = float((ranks**2).sum() - n * k * (k + 1) ** 2 / 4)
    between = float(((ranks.sum(0) - n * (k + 1) / 2) ** 2).sum())
    return (k - 1) * between / spread if spread > 0 else 0.0


def _pairwise(scores: Float[np.ndarray, "targets methods"]) -> Float[np.ndarray, "methods methods"]:
    """Signed-rank p of every pair of columns, Holm-corrected over all pairs."""
    pairs = list(combinations(range(scores.shape[1]), 2))
    table = np.ones((scores.shape[1], scores.shape[1]))
    found = [signed_rank_p(without_rounding(scores[:, i] - scores[:, j])) for i, j in pairs]
    for (i, j), p in zip(pairs, holm(found), strict=True):
        table[i, j] = table[j, i] = p
    return table


def cliques(alike: Bool[np.ndarray, "methods methods"]) -> list[tuple[int, ...]]:
    """The largest groups of two or more methods that are pairwise alike, in rising order (Bron & Kerbosch, 1973)."""
    neighbours = [{int(j) for j in np.flatnonzero(row)} - {i} for i, row in enumerate(alike)]
    found = _extend((), set(range(len(alike))), set(), neighbours)
    return sorted(tuple(sorted(clique)) for clique in found if len(clique) > 1)


def _extend(
    clique: tuple[int, ...], candidates: set[int], done: set[int], neighbours: Sequence[set[int]]
) -> Iterator[tuple[int, ...]]:
    """Every maximal clique that holds `clique`, any of `candidates` and none of `done`."""
    if not candidates and not done:
        yield clique
        return
    pivot = max(candidates | done, key=lambda i: len(neighbours[i] & candidates))
    for i in sorted(candidates - neighbours[pivot]):
        yield from _extend((*clique, i), candidates & neighbours[i], done & neighbours[i], neighbours)
        candidates, done = candidates - {i}, done | {i}


def nemenyi_difference(methods: int, targets: int, confidence: float) -> float:
    """Nemenyi's critical difference of average ranks, q √(k (k + 1) / (6 N)), for reference (Demšar, 2006)."""
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(confidence, methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * targets))
