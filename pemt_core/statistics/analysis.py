"""The whole analysis of a comparison: cells, floors, the family of tests and ranks, with and without the floor."""

from dataclasses import dataclass

from pemt_core.statistics.comparison import MethodComparison
from pemt_core.statistics.floor import Floor
from pemt_core.statistics.intervals import Interval
from pemt_core.statistics.ranks import Ranking


@dataclass(frozen=True)
class Rules:
    """The choices of an analysis, fixed before its results are known."""

    method: str  # the one that claims are about
    references: tuple[str, ...]  # the family: one test for each
    confidence: float  # such as 0.95; tests use 1 - confidence
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
    se_test: float  # points: how far the mean over these seeds moves with another test set of this size
    bootstrap: Interval  # two-way: new seeds and new test rows
    test_rows: int
    clusters: int  # independent units among the test rows


@dataclass(frozen=True)
class Contrasts:
    """The family of tests and the ranking over a set of targets."""

    targets: tuple[str, ...]
    comparisons: tuple[MethodComparison, ...]  # in the order of the references
    ranking: Ranking | None  # None if fewer than three methods or two targets are complete


@dataclass(frozen=True)
class Analysis:
    """All that a report shows of one k."""

    rules: Rules
    cells: tuple[CellSummary, ...]
    floors: tuple[Floor, ...]  # one per target
    contrasts: Contrasts  # over all targets
    above_floor: Contrasts | None  # without the targets at the floor; None if none is there or none would remain
