"""The mean over targets by k, if an experiment has several."""

import math
from collections.abc import Sequence
from itertools import pairwise

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from pemt_core.comparison_report.study import Study
from pemt_core.report.palette import COLOURS, LINES, MARKERS, PAGE, drop_frame, figure_without, lay_out, page_colours


@page_colours
def draw_by_k(studies: Sequence[Study]) -> Figure:
    """Draw a line per method over the few-shot k, with Student's intervals over seeds."""
    few = [study for study in studies if study.k != "full"]
    if len(few) < 2:
        return figure_without("several few-shot k")
    figure = Figure(figsize=(7.4, 4.6), layout="constrained")
    axes = figure.subplots()
    columns = list(few[0].compared.columns)
    ks = [int(study.k) for study in few]
    shift = min(1.06, min(b / a for a, b in pairwise(ks)) ** (0.5 / len(columns)))
    for place, column in enumerate(columns):
        lines = [(int(study.k), line) for study in few for line in study.lines if line.column == column]
        shown = [(k, line) for k, line in lines if not math.isnan(line.mean)]
        if not shown:
            continue
        at = [k * shift ** (place - len(columns) / 2) for k, _ in shown]  # so that intervals do not cover each other
        cycle = place // len(COLOURS) % len(LINES)
        half = [0.0 if math.isnan(line.half_width) else line.half_width for _, line in shown]
        axes.errorbar(
            at, [line.mean for _, line in shown], yerr=half, label=shown[0][1].title,
            color=COLOURS[place % len(COLOURS)], marker=MARKERS[place % len(MARKERS)],
            linestyle=LINES[cycle], markerfacecolor=PAGE if cycle else COLOURS[place % len(COLOURS)], markersize=5,
            linewidth=1.5, elinewidth=0.8,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ks, list(map(str, ks)))
    axes.set_xlabel("k: training rows per class (log scale)")
    axes.set_ylabel(f"main metric on test (points), mean over {len(few[0].targets)} targets")
    drop_frame(axes)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    figure.set_label(f"Mean over targets by k of {len(columns)} methods, k = {', '.join(map(str, ks))}")
    lay_out(figure)
    return figure
