"""What the data say about the claim that a method is better than another: supported, not supported, or undecidable.

undecidable    so few targets that even the smallest p of the test, times the size of the family, misses the level
supported      Holm's p is below the level and the interval of the difference lies above 0
not supported  the interval lies below 0 (the other method is better), or between the margins: an advantage that
               matters is excluded, as in a test of equivalence (Schuirmann, 1987)
undecidable    otherwise: the interval reaches beyond a margin without a significant difference
The first that holds counts. The level is 1 - confidence.
"""

from dataclasses import dataclass
from typing import Literal

from pemt_core.statistics.intervals import Interval
from pemt_core.statistics.signed_rank import smallest_p

Decision = Literal["supported", "not supported", "undecidable"]


@dataclass(frozen=True)
class Verdict:
    """A decision and its reason, which reads on after "because"."""

    decision: Decision
    reason: str


def decide(
    p_holm: float, interval: Interval, targets: int, *, family_size: int, confidence: float, margin: float
) -> Verdict:
    """Decide on the claim that a difference is positive.

    `interval` is that of the difference and `margin` the smallest difference that matters, both in points.
    """
    level = 1 - confidence
    attainable = min(1.0, family_size * smallest_p(targets))
    if attainable >= level:
        return Verdict(
            "undecidable",
            f"{targets} target{'s' * (targets != 1)} cannot give a corrected p below {attainable:.2g} "
            f"in a family of {family_size}",
        )
    if interval.low > 0 and p_holm < level:
        return Verdict("supported", "the corrected p and the interval both exclude no difference")
    if interval.high < 0:
        significant = ", significantly" if p_holm < level else ", though not significantly after correction"
        return Verdict("not supported", f"the interval lies below zero: the reverse holds{significant}")
    if -margin <= interval.low and interval.high <= margin:
        return Verdict("not supported", f"the difference is not significant and within ±{margin:g} points")
    return Verdict("undecidable", f"the difference is not significant, yet may exceed ±{margin:g} points")
