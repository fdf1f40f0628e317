"""The whole analysis of a comparison: cells, floors, the family of tests and ranks, with and without the floor."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pemt_core.statistics.bootstrap import TargetDraws, draw_scores
from pemt_core.statistics.comparison import MethodComparison, compare
from pemt_core.statistics.floor import Floor, find_floor
from pemt_core.statistics.intervals import UNBOUNDED, Interval, percentile_interval, student_interval
from pemt_core.statistics.ranks import Ranking, rank_methods
from pemt_core.statistics.runs import TargetRuns


@dataclass(frozen=True)
class Rules:
    """The choices of an analysis, fixed before its results are known."""

    method: str  # the one that claims are about
    references: tuple[str, ...]  # the family: one test for each
    confidence: float  # such as 0.95; tests are at the level 1 - confidence
    margin: float  # points; smaller differences do not matter
    draws: int  # of the bootstrap
    seed: int  # of the bootstrap


@dataclass(frozen=True)
class CellSummary:
    """A target and a method at one k, over seeds."""

    target: str
    method: str
    metric: str
    seeds: tuple[int, ...]
    scores: tuple[float, ...]  # points, one per seed
    mean: float
    interval: Interval  # Student over seeds; unbounded with one seed
    se_test: float  # points: how far the mean over these seeds moves with another test set of this size; infinite if
    # the test rows are a single cluster
    bootstrap: Interval  # two-way: new seeds and new test rows; unbounded for a single cluster
    test_rows: int
    clusters: int  # independent units among the test rows


@dataclass(frozen=True)
class Contrasts:
    """The family of tests and the ranking over a set of targets."""

    targets: tuple[str, ...]
    comparisons: tuple[MethodComparison, ...]  # in the order of the references that have results
    ranking: Ranking | None  # of the methods that have every target; None for fewer than 3, or fewer than 2 targets


@dataclass(frozen=True)
class Analysis:
    """All that a report shows of one k."""

    rules: Rules
    cells: tuple[CellSummary, ...]
    floors: tuple[Floor, ...]  # one per target
    contrasts: Contrasts  # over all targets
    above_floor: Contrasts | None  # without the targets at the floor; None if none is there or none would remain


def analyse(runs: Sequence[TargetRuns], rules: Rules) -> Analysis:
    """Analyse the runs of all targets. Raises ValueError if there is none or a target occurs twice."""
    targets = [run.target for run in runs]
    if not targets or len(set(targets)) < len(targets):
        raise ValueError(f"an analysis needs targets that each occur once, not {targets}")
    draws = {run.target: draw_scores(run, rules.draws, rules.seed) for run in runs}
    floors = tuple(find_floor(run, draws[run.target], rules.confidence) for run in runs)
    above = [run for run, floor in zip(runs, floors, strict=True) if not floor.at_floor]
    return Analysis(
        rules=rules,
        cells=tuple(summarise(run, draws[run.target], method, rules.confidence) for run in runs for method in run.runs),
        floors=floors,
        contrasts=_contrasts(runs, draws, rules),
        above_floor=_contrasts(above, draws, rules) if 0 < len(above) < len(runs) else None,
    )


def summarise(runs: TargetRuns, draws: TargetDraws, method: str, confidence: float) -> CellSummary:
    """Summarise a method on a target over all its seeds."""
    seeds = sorted(runs.runs[method])
    scores = runs.scores(method, seeds).tolist()
    return CellSummary(
        target=runs.target,
        method=method,
        metric=runs.metric,
        seeds=tuple(seeds),
        scores=tuple(scores),
        mean=float(np.mean(scores)),
        interval=student_interval(scores, confidence),
        se_test=float(draws.new_rows(method, seeds).std(ddof=1)) if runs.num_clusters > 1 else math.inf,
        bootstrap=percentile_interval(draws.two_way(method, seeds), confidence) if runs.num_clusters > 1 else UNBOUNDED,
        test_rows=len(runs.any_run.groups),
        clusters=runs.num_clusters,
    )


def _contrasts(runs: Sequence[TargetRuns], draws: Mapping[str, TargetDraws], rules: Rules) -> Contrasts:
    """Test the family and rank the methods over the targets of `runs`."""
    methods = [name for name in runs[0].runs if all(name in run.runs for run in runs)]
    ranking = None
    if len(methods) >= 3 and len(runs) >= 2:
        scores = np.array([[run.mean(name, sorted(run.runs[name])) for name in methods] for run in runs])
        ranking = rank_methods(methods, scores, rules.confidence)
    return Contrasts(
        targets=tuple(run.target for run in runs),
        comparisons=compare(
            runs, draws, rules.method, rules.references, confidence=rules.confidence, margin=rules.margin
        ),
        ranking=ranking,
    )
