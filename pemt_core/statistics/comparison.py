"""Method against method over targets."""

from dataclasses import dataclass

from pemt_core.statistics.intervals import Interval
from pemt_core.statistics.verdict import Verdict


@dataclass(frozen=True)
class MethodComparison:
    """A method against a reference over the targets that both have.

    All differences are method minus reference, of means over the seeds that both have, in points. The verdict is on
    the claim that the method is better than the reference.
    """

    method: str
    reference: str
    targets: tuple[str, ...]
    differences: tuple[float, ...]  # one per target
    mean: float
    mean_interval: Interval  # two-way bootstrap over seeds and test rows, the targets fixed
    median: float
    hodges_lehmann: float
    interval: Interval  # of the Hodges-Lehmann estimate, by inverting the signed-rank test
    p: float  # Wilcoxon's signed-rank test, two-sided, exact
    p_holm: float  # corrected for the family of references
    family_size: int
    wins: int  # targets where the method is better by more than one standard error of the difference
    ties: int
    losses: int
    superiority: float  # share of targets where the method is better; equal ones count half
    verdict: Verdict

    @property
    def n_targets(self) -> int:
        return len(self.targets)
