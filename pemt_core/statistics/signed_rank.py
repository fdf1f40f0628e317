"""Wilcoxon's signed-rank test, exact also with ties and zeros, and the Hodges-Lehmann estimate with its interval.

Zeros are handled by Pratt's method (1959): they take part in the ranking and then drop out. Dropping them before, the
default of scipy, favours a difference. The distribution is that of random signs for the ranks that were found, so it
is exact conditional on ties; without ties or zeros it is the classical one (Hollander, Wolfe & Chicken, 2014, 3.1-3.3).
"""

import numpy as np
from jaxtyping import Float

from pemt_core.statistics.intervals import UNBOUNDED, Interval

DIGITS = 9  # of points, after the decimal point: scores of a million rows differ by more


def without_rounding(points: Float[np.ndarray, " *shape"]) -> Float[np.ndarray, " *shape"]:
    """Make points equal that differ by rounding alone, such as 500/7 - 400/7 and 200/7 - 100/7.

    Otherwise the last bit of a mean would decide whether it is a tie, and with it ranks and p.
    """
    rounded: np.ndarray = np.round(points, DIGITS)
    return rounded


def signed_rank_p(differences: Float[np.ndarray, " targets"]) -> float:
    """The exact two-sided p of the hypothesis that the differences are symmetric about zero; 1 if all are zero."""
    from scipy.stats import rankdata

    nonzero = differences != 0
    if not nonzero.any():
        return 1.0
    doubled = np.rint(2 * rankdata(np.abs(differences)))[nonzero].astype(int)  # whole numbers even for tied ranks
    observed = int(doubled[differences[nonzero] > 0].sum())
    chances = _sum_distribution(doubled)
    tail = min(chances[: observed + 1].sum(), chances[observed:].sum())
    return float(min(1.0, 2 * tail))


def smallest_p(targets: int) -> float:
    """The smallest two-sided p that the test can give: all differences have one sign, 2 / 2^N."""
    return 2.0 ** (1 - targets)


def hodges_lehmann(differences: Float[np.ndarray, " targets"], confidence: float) -> tuple[float, Interval]:
    """The median of the Walsh averages (d_i + d_j) / 2, i <= j, and the interval from inverting the signed-rank test.

    Its coverage is at least `confidence` for a continuous distribution. Unbounded if no interval between Walsh
    averages reaches it: fewer than six targets for 95 %.
    """
    n = len(differences)
    first, second = np.triu_indices(n)
    walsh = np.sort((differences[first] + differences[second]) / 2)
    tail = np.cumsum(_sum_distribution(np.arange(1, n + 1)))
    outside = int(np.searchsorted(tail, (1 - confidence) / 2, side="right"))  # averages beyond each end
    if outside == 0:
        return float(np.median(walsh)), UNBOUNDED
    return float(np.median(walsh)), Interval(float(walsh[outside - 1]), float(walsh[-outside]))


def _sum_distribution(ranks: np.ndarray) -> Float[np.ndarray, " sums"]:
    """The probability of every sum from 0 to the total if each rank counts with probability 1/2."""
    chances = np.zeros(int(ranks.sum()) + 1)
    chances[0] = 1.0
    for rank in ranks:
        shifted = np.zeros_like(chances)
        shifted[rank:] = chances[: len(chances) - rank]
        chances = (chances + shifted) / 2
    return chances
