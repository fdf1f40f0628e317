"""Method against method: over targets (a family of signed-rank tests), and on the rows of one test set (McNemar)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from pemt_core.metrics import Scored
from pemt_core.statistics.bootstrap import TargetDraws, mean_over_targets
from pemt_core.statistics.holm import holm
from pemt_core.statistics.intervals import UNBOUNDED, Interval, percentile_interval
from pemt_core.statistics.runs import TargetRuns
from pemt_core.statistics.signed_rank import hodges_lehmann, signed_rank_p, without_rounding
from pemt_core.statistics.verdict import Verdict, decide
from pemt_core.statistics.weighted import row_scores


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
    standard_errors: tuple[float, ...]  # of the differences, by the two-way bootstrap; infinite for a single cluster
    mean: float
    mean_interval: Interval  # two-way bootstrap over seeds and test rows, the targets fixed; unbounded if the test rows
    # of a target are a single cluster
    new_target_interval: Interval  # the same with targets drawn as well: what another target would give
    median: float
    hodges_lehmann: float
    interval: Interval  # of the Hodges-Lehmann estimate, by inverting the signed-rank test
    p: float  # Wilcoxon's signed-rank test, two-sided, exact, with Pratt's zeros
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

    @property
    def leave_one_out(self) -> Interval:
        """The range of the mean difference if any one target is left out; unbounded for a single target."""
        if self.n_targets < 2:
            return UNBOUNDED
        means = [(self.mean * self.n_targets - each) / (self.n_targets - 1) for each in self.differences]
        return Interval(min(means), max(means))


@dataclass(frozen=True)
class _Pair:
    """The paired differences of two methods, before the correction for the family."""

    reference: str
    targets: tuple[str, ...]
    differences: Float[np.ndarray, " targets"]
    draws: list[Float[np.ndarray, " draws"]]
    seed: int  # of the draws
    is_drawn: Bool[np.ndarray, " targets"]  # whether a target has several clusters: a single one bounds no error

    def interval(self, confidence: float, new_targets: np.random.Generator | None = None) -> Interval:
        """The bootstrap interval of the mean over targets."""
        if not self.is_drawn.all():
            return UNBOUNDED
        return percentile_interval(mean_over_targets(self.draws, new_targets), confidence)

    @property
    def p(self) -> float:
        return signed_rank_p(self.differences)


def compare(
    runs: Sequence[TargetRuns],
    draws: Mapping[str, TargetDraws],
    method: str,
    references: Sequence[str],
    *,
    confidence: float,
    margin: float,
) -> tuple[MethodComparison, ...]:
    """Compare `method` with each of `references`, a family of tests fixed beforehand, in their order.

    `draws` has every target of `runs` (`draw_scores`). A reference that shares no target and seed with the method
    yields no comparison but counts in the family, as a test with p = 1.
    """
    if method in references:
        raise ValueError(f"{method} is among its own references")
    pairs = [_pair(runs, draws, method, reference) for reference in references]
    adjusted = holm([pair.p if pair.targets else 1.0 for pair in pairs])
    return tuple(
        _comparison(method, pair, float(p_holm), len(references), confidence, margin)
        for pair, p_holm in zip(pairs, adjusted, strict=True)
        if pair.targets
    )


def _pair(runs: Sequence[TargetRuns], draws: Mapping[str, TargetDraws], method: str, reference: str) -> _Pair:
    shared = {run: run.shared_seeds(method, reference) for run in runs}
    found = [(run, seeds) for run, seeds in shared.items() if seeds]
    return _Pair(
        reference,
        tuple(run.target for run, _ in found),
        without_rounding(np.array([run.mean(method, seeds) - run.mean(reference, seeds) for run, seeds in found])),
        [draws[run.target].difference(method, reference, seeds) for run, seeds in found],
        next((drawn.seed for drawn in draws.values()), 0),
        np.array([run.num_clusters > 1 for run, _ in found], dtype=bool),
    )


def _comparison(
    method: str, pair: _Pair, p_holm: float, family_size: int, confidence: float, margin: float
) -> MethodComparison:
    differences = pair.differences
    errors = np.where(pair.is_drawn, [drawn.std(ddof=1) for drawn in pair.draws], np.inf)
    estimate, interval = hodges_lehmann(differences, confidence)
    wins, losses = int((differences > errors).sum()), int((differences < -errors).sum())
    verdict = decide(p_holm, interval, len(differences), family_size=family_size, confidence=confidence, margin=margin)
    new_targets = np.random.default_rng([pair.seed, len(pair.targets)])
    return MethodComparison(
        method=method,
        reference=pair.reference,
        targets=pair.targets,
        differences=tuple(differences.tolist()),
        standard_errors=tuple(errors.tolist()),
        mean=float(differences.mean()),
        mean_interval=pair.interval(confidence),
        new_target_interval=pair.interval(confidence, new_targets),
        median=float(np.median(differences)),
        hodges_lehmann=estimate,
        interval=interval,
        p=pair.p,
        p_holm=p_holm,
        family_size=family_size,
        wins=wins,
        ties=len(differences) - wins - losses,
        losses=losses,
        superiority=superiority(differences),
        verdict=verdict,
    )


def superiority(differences: Float[np.ndarray, " targets"]) -> float:
    """The probability of superiority for paired data: share of positive differences, zeros counted half."""
    return float(((differences > 0) + (differences == 0) / 2).mean())


@dataclass(frozen=True)
class McNemar:
    """Two runs on the same test rows: how many rows each alone answers right, and the exact two-sided p."""

    only_first: int
    only_second: int
    p: float


def mcnemar(first: Scored, second: Scored) -> McNemar:
    """McNemar's exact test: p = 2 Binom(min(b, c); b + c, 1/2), 1 if the runs are right on the same rows.

    A row is right if its prediction equals one of its references. Raises ValueError if the rows differ.
    """
    from scipy.stats import binomtest

    if (first.references, first.groups) != (second.references, second.groups):
        raise ValueError("the two runs answer different rows")
    right, also_right = (row_scores("accuracy", scored) > 0 for scored in (first, second))
    b, c = int((right & ~also_right).sum()), int((~right & also_right).sum())
    return McNemar(b, c, float(binomtest(b, b + c).pvalue) if b + c else 1.0)
