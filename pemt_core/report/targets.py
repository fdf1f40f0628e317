"""The page's table of targets: a line per target, with its methods on a scale and published results."""

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from matplotlib.ticker import MaxNLocator

from pemt_core.report.published import Comparable
from pemt_core.report.table import Tables, rows_of

MEANS_OVER_ROWS = ("accuracy", "qa_f1", "qa_em")  # metrics that are means of one value from 0 to 100 per test row
HIGHEST = 100.0  # points


@dataclass(frozen=True)
class Track:
    """The scale that all lines share: it maps points to percent of its width."""

    low: float

    def __call__(self, points: float) -> float:
        """Return the place of `points`; values outside, such as ends of intervals, are at the end of the scale."""
        inside = min(max(points, self.low), HIGHEST)
        return round(100 * (inside - self.low) / (HIGHEST - self.low), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Return place and label of a few round values."""
        values = MaxNLocator(3, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, HIGHEST)
        return [(self(value), f"{value:g}".replace("-", "−")) for value in values if self.low <= value <= HIGHEST]


def track_of(tables: Tables) -> Track:
    """Return a scale that starts at zero, or at the lowest mean if that is negative."""
    return Track(min(0.0, float(tables.cells["mean"].min())))


@dataclass(frozen=True)
class TargetRow:
    """A line: the row of the frame for each trained method and k, and published points."""

    target: str
    metric: str
    test_rows: int
    available: int
    sampling: float | None  # half the widest interval for this number of test rows
    cells: dict[tuple[str, str], dict[str, Any]]
    worst: float
    best: float
    published: list[float | None]


def rows_by_suite(tables: Tables, comparable: Comparable) -> dict[str, list[TargetRow]]:
    """Return the lines by suite, in the order of the frames."""
    suites: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in rows_of(tables.cells):
        suites.setdefault(row["suite"], {}).setdefault(row["target"], []).append(row)
    return {
        suite: [_target_row(name, rows, tables.confidence, comparable) for name, rows in targets.items()]
        for suite, targets in suites.items()
    }


def _target_row(target: str, rows: list[dict[str, Any]], confidence: float, comparable: Comparable) -> TargetRow:
    """Return the line of one target from its cells."""
    metric, test_rows = rows[0]["metric"], min(row["test_rows"] for row in rows)
    points = [row["mean"] for row in rows]
    return TargetRow(
        target=target,
        metric=metric,
        test_rows=test_rows,
        available=max(row["test_rows_available"] for row in rows),
        sampling=_sampling(test_rows, confidence) if metric in MEANS_OVER_ROWS else None,
        cells={(row["method"], row["k"]): row for row in rows},
        worst=min(points),
        best=max(points),
        published=[comparable.mean(row, [target]) for row in comparable.rows],
    )


def _sampling(rows: int, confidence: float) -> float:
    """Return half the widest normal interval of a mean over `rows` test rows, in points: half of them 0, half 100."""
    return NormalDist().inv_cdf((1 + confidence) / 2) * 50.0 / math.sqrt(rows)
