"""The main metric against the number of trained parameters."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator
from matplotlib.transforms import Bbox

from pemt_core.report.palette import SOFT, TEXT, Style, drop_frame, lay_out, page_colours
from pemt_core.report.published import Published
from pemt_core.report.table import Tables

GAP = 7  # points from a mark to its label


FEWEST = 1_000  # trained parameters


@dataclass(frozen=True)
class Mark:
    """A mean over all targets: of a method and k, or, without a style, a published one."""

    parameters: float
    points: float
    half_width: float  # NaN for one seed
    label: str
    style: Style | None


@page_colours
def draw_parameters(tables: Tables, published: Sequence[Published]) -> Figure:
    """Draw the mean over all targets of each method and k with its interval, and published means as crosses.

    Without published means, each target is a faint dot. If no seed has every target there is no mean, as the legend
    says. Intervals may extend beyond the axes, since those of two seeds can be wider than the scale.
    """
    figure = Figure(figsize=(5.0, 3.9), layout="constrained")
    axes = figure.subplots()
    marks = _marks(tables, published)
    dots = tables.cells.iloc[:0] if published else tables.cells
    for (method, k), style in tables.series.items():
        rows = dots[(dots["method"] == method) & (dots["k"] == k)]
        axes.scatter(rows["trained_parameters"], rows["mean"], s=18, color=style.colour, alpha=0.45, linewidths=0)
        if not any(mark.style is style for mark in marks):
            label = f"{style.label}: targets missing, no mean"
            axes.scatter([], [], marker=style.marker, color=style.colour, alpha=0.45, label=label)
    _scale(axes, [*dots["trained_parameters"], *(mark.parameters for mark in marks)],
           [*dots["mean"], *(mark.points for mark in marks)])  # fmt: skip
    for mark in marks:
        _draw(axes, mark)
    axes.set_xlabel("trained parameters per target (log scale)")
    axes.set_ylabel(f"main metric on test (points), {len(tables.targets)} targets")
    drop_frame(axes)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside lower center", frameon=False, fontsize=9)
    lay_out(figure)
    _label(axes, marks)
    figure.set_label(f"Mean of the main metric against trained parameters: {', '.join(mark.label for mark in marks)}")
    return figure


def _marks(tables: Tables, published: Sequence[Published]) -> list[Mark]:
    marks: list[Mark] = []
    sizes = tables.cells.groupby(["method", "k"])["trained_parameters"].mean()
    for row in tables.overall:
        style, size = tables.series[row["method"], row["k"]], float(sizes[row["method"], row["k"]])
        label = f"{style.title} {row['mean']:.1f}"
        marks.append(Mark(_beside(marks, size), row["mean"], row["half_width"], label, style))
    for other in published:
        if (mean := other.mean(tables.targets)) is not None:
            marks.append(Mark(other.parameters, mean, math.nan, f"{other.method} {mean:.1f}", None))
    return marks


def _beside(marks: Sequence[Mark], size: float) -> float:
    """Return `size`, shifted a little if an earlier mark has it, so that intervals do not overlap."""
    while any(math.isclose(mark.parameters, size, rel_tol=0.05) for mark in marks):
        size = size * 1.1 or FEWEST / 10
    return size


def _draw(axes: Axes, mark: Mark) -> None:
    if mark.style is None:
        axes.plot(mark.parameters, mark.points, marker="x", color=SOFT, markersize=6, markeredgewidth=1.6)
        return
    interval = None if pd.isna(mark.half_width) else mark.half_width
    look: dict[str, Any] = {"ecolor": mark.style.colour, "elinewidth": 1.6, "markersize": 7, **mark.style.marks}
    axes.errorbar(mark.parameters, mark.points, yerr=interval, linestyle="none", zorder=4, **look)  # above labels


def _scale(axes: Axes, parameters: Sequence[float], points: Sequence[float]) -> None:
    """Fit the axes to marks and dots, with a logarithmic scale of parameters, labelled like "2 M".

    A method that trains nothing is on the left of the scale, which is linear below FEWEST.
    """
    low, high = min(parameters) / 2.2, max(parameters) * 2.2
    axes.set_ylim(min(points) - 4, max(points) + 4)
    if low > 0:
        axes.set_xscale("log")
        axes.set_xlim(low, high)
    else:
        low = FEWEST
        axes.set_xscale("symlog", linthresh=FEWEST, linscale=0.4)
        axes.set_xlim(-FEWEST / 2, max(high, 2 * FEWEST))
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high / low > 1000 else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(EngFormatter(sep="\N{NARROW NO-BREAK SPACE}"))
    axes.xaxis.set_minor_locator(NullLocator())


def _label(axes: Axes, marks: Sequence[Mark]) -> None:
    """Label each mark on its right, or on its left if there is no room; move labels down until they do not overlap.

    Labels of published marks come last, so that they move.
    """
    placed: list[Bbox] = []
    for mark in marks:
        x, y = axes.transData.transform((mark.parameters, mark.points))  # pixels
        placed.append(Bbox.from_bounds(x - 5, y - 5, 10, 10))
    for mark in sorted(marks, key=lambda mark: (mark.style is None, -mark.points)):
        label = axes.annotate(
            mark.label,
            (mark.parameters, mark.points),
            (GAP, 0),
            textcoords="offset points",
            va="center",
            fontsize=10,
            color=TEXT if mark.style else SOFT,
        )
        if label.get_window_extent().x1 > axes.get_window_extent().x1:
            label.set(position=(-GAP, 0), ha="right")
        while (extent := label.get_window_extent()) and any(extent.overlaps(other) for other in placed):
            label.set_position((label.get_position()[0], label.get_position()[1] - 1))
        placed.append(extent)
