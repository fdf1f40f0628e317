"""The mean over targets by k, if an experiment has several."""

import math
from collections.abc import Collection, Sequence
from itertools import pairwise

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from pemt_core.comparison_report.study import Study
from pemt_core.errors import counted
from pemt_core.report.palette import COLOURS, LINES, MARKERS, PAGE, drop_frame, figure_without, lay_out, page_colours
from pemt_core.report.table import ALL, mean_frame, rows_of, seed_frame


@page_colours
def draw_by_k(studies: Sequence[Study]) -> Figure:
    """Draw a line per method over the few-shot k, with Student's intervals over seeds.

    All means are over the targets that have every k: with others, a line would join means of different things.
    """
    few = [study for study in studies if study.k != "full"]
    targets = [name for name in few[0].targets if all(name in study.targets for study in few)] if few else []
    if len(few) < 2 or not targets:
        return figure_without("target with several few-shot k")
    figure = Figure(figsize=(7.4, 4.6), layout="constrained")
    axes = figure.subplots()
    columns = few[0].compared.columns
    ks, means = [int(study.k) for study in few], [means_over(study, targets) for study in few]
    shift = min(1.06, min(b / a for a, b in pairwise(ks)) ** (0.5 / len(columns)))
    for place, (column, naming) in enumerate(columns.items()):
        shown = [(k, *of_k[column]) for k, of_k in zip(ks, means, strict=True) if column in of_k]
        if not shown:
            continue
        at = [k * shift ** (place - len(columns) / 2) for k, _, _ in shown]  # so that intervals do not cover each other
        cycle = place // len(COLOURS) % len(LINES)
        half = [0.0 if math.isnan(width) else width for _, _, width in shown]
        axes.errorbar(
            at, [mean for _, mean, _ in shown], yerr=half, label=naming.title,
            color=COLOURS[place % len(COLOURS)], marker=MARKERS[place % len(MARKERS)],
            linestyle=LINES[cycle], markerfacecolor=PAGE if cycle else COLOURS[place % len(COLOURS)], markersize=5,
            linewidth=1.5, elinewidth=0.8,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(ks, list(map(str, ks)))
    axes.set_xlabel("k: training rows per class (log scale)")
    is_same = all(len(study.targets) == len(targets) for study in few)
    over = counted(len(targets), "target") if is_same else f"the {len(targets)} with every k"
    axes.set_ylabel(f"main metric on test (points), mean over {over}")
    drop_frame(axes)
    figure.legend(loc="outside right upper", frameon=False, fontsize=9)
    figure.set_label(f"Mean over targets by k of {len(columns)} methods, k = {', '.join(map(str, ks))}")
    lay_out(figure)
    return figure


def means_over(study: Study, targets: Collection[str]) -> dict[str, tuple[float, float]]:
    """The mean over `targets`, and half its interval, of each column that has a seed with all of them."""
    seeds = seed_frame([result for result in study.results if result.task in targets])
    means = rows_of(mean_frame(seeds, study.confidence))
    return {
        row["method"]: (row["mean"], row["half_width"])
        for row in means
        if row["suite"] == ALL and not math.isnan(row["mean"])
    }
