"""Figure 1: the mean over all targets against the number of trained parameters."""

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, NullLocator

from pemt_core.comparison_report.groups import GROUPS
from pemt_core.comparison_report.labels import Labelled, place_labels
from pemt_core.comparison_report.study import Line, Study
from pemt_core.errors import counted
from pemt_core.report.palette import PAGE, drop_frame, figure_without, lay_out, page_colours

FEWEST = 1_000  # parameters: below, the scale is linear, since methods that train a few numbers have no decade
BESIDE = 1.15  # ratio between marks that are drawn side by side
APART = 2.0  # the most between the first and the last of them: an axis must not show ten times of what is equal
WIDEST = 12.0  # points: what a wider interval does not widen the axis for; the frame cuts its bar


@page_colours
def draw_points(study: Study) -> Figure:
    """Draw each method that has every target, with its interval over seeds; a method that trains nothing is at 0."""
    lines = [line for line in study.lines if not math.isnan(line.mean)]
    if not lines:
        return figure_without("means over all targets")
    figure = Figure(figsize=(7.4, 5.2), layout="constrained")
    axes = figure.subplots()
    marks = [_mark(line, at) for line, at in zip(lines, side_by_side(lines), strict=True)]
    _scale(axes, lines)
    for line, mark in zip(lines, marks, strict=True):
        _draw(axes, line, mark)
    axes.set_xlabel("trained parameters per target (log scale; nearly equal numbers side by side)")
    axes.set_ylabel(f"main metric on test (points), mean over {counted(len(study.targets), 'target')}")
    drop_frame(axes)
    _legend(figure, axes, lines)
    lay_out(figure)
    place_labels(axes, marks)
    named = ", ".join(f"{line.title} {line.mean:.1f}" for line in lines)
    figure.set_label(f"Mean of the main metric against trained parameters, k = {study.k}: {named}")
    return figure


def side_by_side(lines: Sequence[Line]) -> list[float]:
    """Return the place of each mark: its count, or beside it where the next count is less than BESIDE times it."""
    order = sorted(range(len(lines)), key=lambda place: lines[place].cost.most_parameters)
    runs: list[list[int]] = []
    for place in order:
        size = lines[place].cost.most_parameters
        before = lines[runs[-1][-1]].cost.most_parameters if runs else -1
        if runs and size >= FEWEST and before >= FEWEST and size < before * BESIDE:
            runs[-1].append(place)
        else:
            runs.append([place])
    places = [float(line.cost.most_parameters) for line in lines]
    for run in runs:
        middle = math.exp(sum(math.log(max(1, lines[place].cost.most_parameters)) for place in run) / len(run))
        if len(run) > 1:
            ratio = min(BESIDE, APART ** (1 / (len(run) - 1)))
            for step, place in enumerate(run):
                places[place] = middle * ratio ** (step - (len(run) - 1) / 2)
    return places


def _mark(line: Line, at: float) -> Labelled:
    half = 0.0 if math.isnan(line.half_width) else line.half_width
    size = line.cost.most_parameters
    text = f"{line.title} ({size:,})" if size < FEWEST else line.title
    return Labelled(at, line.mean, text, line.mean - half, line.mean + half, bold=line.group is GROUPS[0])


def _draw(axes: Axes, line: Line, mark: Labelled) -> None:
    style = line.group
    look: dict[str, Any] = {
        "marker": style.marker, "color": style.colour, "markerfacecolor": PAGE if style.hollow else style.colour,
        "markersize": 7, "elinewidth": 1.2, "markeredgewidth": 1.3,
    }  # fmt: skip
    half = None if math.isnan(line.half_width) else [[mark.y - mark.low], [mark.high - mark.y]]
    axes.errorbar(mark.x, mark.y, yerr=half, linestyle="none", zorder=4, **look)


def _scale(axes: Axes, lines: Sequence[Line]) -> None:
    """Fit the axes: parameters on a log scale, with a tick per power of ten or three, and 0 on its left if needed."""
    sizes = [line.cost.most_parameters for line in lines]
    low, high = max(FEWEST, min(sizes)), max(*sizes, FEWEST)
    powers = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    if high < 10 * low:  # too few powers of ten to read the scale
        powers = [power * factor for power in powers for factor in (1, 2, 5)]
    if min(sizes) < FEWEST:
        axes.set_xscale("symlog", linthresh=FEWEST, linscale=0.4)
        axes.set_xlim(-FEWEST * 0.5, high * 4)
        powers = [0.0, *powers]
    else:
        axes.set_xscale("log")
        axes.set_xlim(low / 4, high * 4)
    axes.xaxis.set_major_locator(FixedLocator(powers))
    axes.xaxis.set_major_formatter(EngFormatter(sep="\N{NARROW NO-BREAK SPACE}"))
    axes.xaxis.set_minor_locator(NullLocator())
    halves = [0.0 if math.isnan(line.half_width) else min(line.half_width, WIDEST) for line in lines]
    ends = [line.mean + sign * half for line, half in zip(lines, halves, strict=True) for sign in (-1, 1)]
    room = max(1.0, 0.08 * (max(ends) - min(ends)))
    axes.set_ylim(min(ends) - room, max(ends) + room)


def _legend(figure: Figure, axes: Axes, lines: Sequence[Line]) -> None:
    for style in GROUPS:
        if any(line.group is style for line in lines):
            face = PAGE if style.hollow else style.colour
            axes.plot([], [], linestyle="none", marker=style.marker, color=style.colour, markerfacecolor=face,
                      markersize=7, label=style.title)  # fmt: skip
    figure.legend(loc="outside lower center", ncols=len(GROUPS), frameon=False, fontsize=9)
