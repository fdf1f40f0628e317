"""Intervals and standard errors, in points: over seeds (Student), over test rows (binomial), over bootstrap draws."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Interval:
    """A confidence interval; an end is infinite where the data cannot bound it (one seed, five targets)."""

    low: float
    high: float

    @property
    def bounded(self) -> bool:
        """Whether both ends are finite."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def contains(self, value: float) -> bool:
        return self.low <= value <= self.high


UNBOUNDED = Interval(-math.inf, math.inf)


def student_interval(values: Sequence[float], confidence: float) -> Interval:
    """Student's t interval for the mean of `values`: m ± t s / √n, with n - 1 degrees of freedom.

    Unbounded for a single value, which says nothing about the spread.
    """
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return UNBOUNDED
    half = float(t.ppf((1 + confidence) / 2, n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n)
    mean = float(np.mean(values))
    return Interval(mean - half, mean + half)


def binomial_standard_error(score: float, rows: int) -> float:
    """The standard error, in points, of a share of `score` points over `rows` test rows: √(a (1 - a) / N).

    Raises ValueError if `score` is no share (0 to 100 points) or there are no rows.
    """
    if not 0 <= score <= 100 or rows < 1:
        raise ValueError(f"a binomial error needs 0 to 100 points and at least 1 row, not {score:g} and {rows}")
    share = score / 100
    return 100 * math.sqrt(share * (1 - share) / rows)


def percentile_interval(draws: Float[np.ndarray, " draws"], confidence: float) -> Interval:
    """The percentile interval of bootstrap draws (Efron & Tibshirani, 1993, chapter 13)."""
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(float(low), float(high))
