"""Geometry of the page's figures: what a template needs to draw small, sharp SVG that follows the page's colours."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import pandas as pd
from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator

from pemt_core.artifacts.result import CellResult
from pemt_core.report.curves import SHOWN
from pemt_core.report.published import Published
from pemt_core.report.table import ALL, rows_of

Name = tuple[str, str]  # method, k


@dataclass(frozen=True)
class Scale:
    """A straight or logarithmic way from values to pixels."""

    low: float
    high: float
    start: float
    end: float
    logarithmic: bool = False

    def __call__(self, value: float) -> float:
        a, b, v = (math.log(x) for x in (self.low, self.high, value)) if self.logarithmic else (
            self.low, self.high, value
        )  # fmt: skip
        return round(self.start + (v - a) / (b - a) * (self.end - self.start), 1)

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """Position and label of round values within the scale; engineering units ("2 M") on a logarithmic one."""
        if self.logarithmic:
            subs = (1.0,) if self.high / self.low > 1000 else (1.0, 2.0, 5.0)
            values = LogLocator(subs=subs, numticks=50).tick_values(self.low, self.high)
            label: Callable[[float], str] = EngFormatter(sep="\N{NARROW NO-BREAK SPACE}")
        else:
            values = MaxNLocator(most, steps=[1, 2, 2.5, 5, 10]).tick_values(self.low, self.high)
            label = "{:g}".format
        return [(self(v), label(float(v)).replace("-", "−")) for v in values if self.low <= v <= self.high]


@dataclass(frozen=True)
class Curve:
    """A line of one method and k: of one seed (thin), or the mean over seeds."""

    name: Name
    mean: bool
    points: list[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """One target's learning curves."""

    title: str
    metric: str
    x: Scale
    y: Scale
    curves: list[Curve]
    description: str  # for readers who do not see it


LEFT, RIGHT, TOP, BOTTOM = 30, 174, 8, 98  # of a curve's panel, in units of its 180 by 118


def curve_panels(results: Sequence[CellResult], titles: Mapping[Name, str]) -> list[Panel]:
    """A panel per target that recorded its main metric on validation while it was trained."""
    targets = {result.task: result.main_metric for result in results}
    panels = []
    for target, metric in targets.items():
        own = [result for result in results if result.task == target]
        lines = [line for name in titles for line in _lines(own, name)]
        points = [point for _, _, line in lines for point in line]
        if not points:
            continue
        steps, values = [step for step, _ in points], [value for _, value in points]
        x = Scale(0, max(steps), LEFT, RIGHT)
        margin = 0.06 * (max(values) - min(values)) or 1.0
        y = Scale(min(values) - margin, max(values) + margin, BOTTOM, TOP)
        curves = [Curve(name, mean, [(x(step), y(value)) for step, value in line]) for name, mean, line in lines]
        ends = ", ".join(f"{titles[name]} ends at {line[-1][1]:.1f}" for name, mean, line in lines if mean)
        panels.append(Panel(target, metric, x, y, curves, f"{target}, {metric} on validation: {ends}"))
    return panels


def _lines(own: Sequence[CellResult], name: Name) -> Iterator[tuple[Name, bool, list[tuple[float, float]]]]:
    """Each seed's line where there are several, then the mean at steps that all of them reached."""
    seeds = [result for result in own if (result.method, str(result.k)) == name]
    lines = [{point["step"]: point[SHOWN] for point in result.history if SHOWN in point} for result in seeds]
    lines = [line for line in lines if line]
    if len(lines) > 1:
        yield from ((name, False, list(line.items())) for line in lines)
    shared = sorted(set.intersection(*map(set, lines))) if lines else []
    if shared:
        yield name, True, [(step, fmean(line[step] for line in lines)) for step in shared]


@dataclass(frozen=True)
class Mark:
    """A point of the figure of parameters: own (with a name), or published (with a label)."""

    x: float
    y: float
    low: float  # ends of the interval; equal to y where there is none
    high: float
    name: Name | None
    label: str
    label_right: bool  # of the point, where it fits there
    label_y: float


@dataclass(frozen=True)
class Parameters:
    """The figure of points against trained parameters."""

    x: Scale
    y: Scale
    marks: list[Mark]
    dots: list[tuple[float, float, Name]]  # single targets


PLOT_LEFT, PLOT_RIGHT, PLOT_TOP, PLOT_BOTTOM = 34, 390, 10, 250  # of 400 by 292
LABEL_HEIGHT, LABEL_WIDTH = 12, 6.5  # of a line, and of a letter with the gap to its point


def parameter_figure(
    cells: pd.DataFrame,
    means: pd.DataFrame,
    titles: Mapping[Name, str],
    published: Sequence[Published],
    targets: Sequence[str],
) -> Parameters:
    """Means over all targets with their intervals, and beside them what others published or the single targets.

    Intervals are cut where they leave the axes: those of two seeds can be wider than the scale.
    """
    grouped = cells.groupby(["method", "k"])["trained_parameters"].mean().reset_index()
    sizes = {(row["method"], row["k"]): row["trained_parameters"] for row in rows_of(grouped)}
    overall = rows_of(means[(means["suite"] == ALL) & means["mean"].notna()])
    own = [(sizes[row["method"], row["k"]], row) for row in overall]
    others = [(row.parameters, mean, row.method) for row in published if (mean := row.mean(targets)) is not None]
    singles = [] if published else rows_of(cells)
    dots = [(row["trained_parameters"], row["mean"], (row["method"], row["k"])) for row in singles]
    widths = [*sizes.values(), *(size for size, *_ in [*dots, *others])]
    heights = [*(mean for _, mean, _ in [*dots, *others]), *(row["mean"] for _, row in own)]
    x = Scale(min(widths) / 2.2, max(widths) * 2.2, PLOT_LEFT, PLOT_RIGHT, logarithmic=True)
    y = Scale(min(heights) - 4, max(heights) + 4, PLOT_BOTTOM, PLOT_TOP)
    marks = [_own_mark(size, row, x, y, titles) for size, row in own]
    marks += [_mark(x(size), y(mean), None, f"{label} {mean:.1f}") for size, mean, label in others]
    return Parameters(x, y, _spread(marks), [(x(size), y(mean), name) for size, mean, name in dots])


def _own_mark(size: float, row: dict[str, Any], x: Scale, y: Scale, titles: Mapping[Name, str]) -> Mark:
    half = 0.0 if math.isnan(row["half_width"]) else row["half_width"]
    low, high = (y(min(max(row["mean"] + end, y.low), y.high)) for end in (-half, half))
    name = (row["method"], row["k"])
    return replace(_mark(x(size), y(row["mean"]), name, f"{titles[name]} {row['mean']:.1f}"), low=low, high=high)


def _mark(x: float, y: float, name: Name | None, label: str) -> Mark:
    fits = x + LABEL_WIDTH * len(label) < PLOT_RIGHT
    return Mark(x, y, y, y, name, label, fits, y)


def _spread(marks: Sequence[Mark]) -> list[Mark]:
    """Labels moved down from those above them where they would overlap, from the highest on."""
    placed: list[Mark] = []
    for mark in sorted(marks, key=lambda mark: mark.y):
        left, right = _reach(mark)
        beside = [other.label_y for other in placed if _reach(other)[0] < right and left < _reach(other)[1]]
        label_y = mark.y
        for above in sorted(beside):
            if abs(above - label_y) < LABEL_HEIGHT:
                label_y = above + LABEL_HEIGHT
        placed.append(replace(mark, label_y=round(label_y, 1)))
    return placed


def _reach(mark: Mark) -> tuple[float, float]:
    """Where a mark and its label begin and end, across."""
    width = LABEL_WIDTH * (len(mark.label) + 1)
    return (mark.x, mark.x + width) if mark.label_right else (mark.x - width, mark.x)
