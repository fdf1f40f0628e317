"""The critical-difference plot: average ranks, and bars over methods that no pairwise test separates.

Demšar (2006, JMLR 7) draws bars as long as Nemenyi's critical difference; here they come from pairwise Wilcoxon tests
with Holm's correction, whose outcome does not depend on the other methods in the pool (Benavoli et al. 2016, JMLR 17).
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pemt_core.comparison_report.study import Study
from pemt_core.report.palette import LINE, PAGE, SOFT, TEXT, figure_without, lay_out, page_colours
from pemt_core.statistics.ranks import Ranking

ROW, BAR = 0.24, 0.13  # inches between labels, and between bars
WIDTH, SIDE = 7.4, 2.1  # inches of the figure, and of the labels on each side
GAP = 0.18  # inches between the axis, bars and labels
LONGEST = 30  # characters of a title: with its rank, they fill the side in the smallest font


@page_colours
def draw_ranks(study: Study, ranking: Ranking | None) -> Figure:
    """Draw the ranking, rank 1 on the left; labels of the better half are on the left."""
    if ranking is None:
        return figure_without("ranking (it needs three methods and two targets)")
    levels = levels_of(ranking)
    count = len(ranking.methods)
    bars = (max(levels) + 1) * BAR if levels else 0.0
    below = bars + 2 * GAP + ROW * -(-count // 2)
    figure = Figure(figsize=(WIDTH, below + 0.55))
    axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(-below, 0.55)
    axes.set_axis_off()
    _axis(axes, count)
    _labels(axes, study, ranking, -(bars + 2 * GAP))
    for clique, level in zip(ranking.cliques, levels, strict=True):
        places = [_at(ranking, method) for method in clique]
        height = -(GAP + level * BAR)
        axes.plot([min(places) - 0.05, max(places) + 0.05], [height] * 2, color=TEXT, linewidth=3.2,
                  solid_capstyle="butt", zorder=3)  # fmt: skip
        axes.plot(places, [height] * len(places), "o", color=TEXT, markersize=4.4, zorder=4)
    named = ", ".join(
        f"{study.compared.columns[method].title} {rank:.2f}"
        for method, rank in zip(ranking.methods, ranking.average_ranks, strict=True)
    )
    figure.set_label(f"Average ranks over {ranking.n_targets} targets, k = {study.k}: {named}")
    lay_out(figure)
    return figure


def levels_of(ranking: Ranking) -> list[int]:
    """Return a row for the bar of each clique, from 0, so that bars in one row do not touch."""
    ranks = dict(zip(ranking.methods, ranking.average_ranks, strict=True))
    ends: list[float] = []  # of the last bar in each row
    levels = []
    for clique in ranking.cliques:
        places = [ranks[method] for method in clique]
        free = [level for level, end in enumerate(ends) if min(places) > end + 0.3]
        level = free[0] if free else len(ends)
        ends[level : level + 1] = [max(places)]
        levels.append(level)
    return levels


def _at(ranking: Ranking, method: str) -> float:
    return _place(ranking.average_ranks[ranking.methods.index(method)], len(ranking.methods))


def _place(rank: float, count: int) -> float:
    """The place of a rank in inches."""
    return SIDE + (rank - 1) / max(1, count - 1) * (WIDTH - 2 * SIDE)


def _axis(axes: Axes, count: int) -> None:
    step = max(1, -(-count // 12))
    axes.plot([_place(1, count), _place(count, count)], [0, 0], color=SOFT, linewidth=1.0)
    for rank in range(1, count + 1):
        at, shown = _place(rank, count), (rank - 1) % step == 0
        axes.plot([at, at], [0, 0.09 if shown else 0.05], color=SOFT, linewidth=0.8)
        if shown:
            axes.text(at, 0.13, str(rank), ha="center", va="bottom", fontsize=9, color=SOFT)
    axes.text(WIDTH / 2, 0.36, "average rank (1 is best)", ha="center", va="bottom", fontsize=9, color=SOFT)


def _labels(axes: Axes, study: Study, ranking: Ranking, top: float) -> None:
    """Draw a line from each rank down to its label, the best and the last at the top, so that no lines cross.

    The marks of groups are beside the labels, since ranks can be equal.
    """
    count = len(ranking.methods)
    left = -(-count // 2)
    for place, (method, rank) in enumerate(zip(ranking.methods, ranking.average_ranks, strict=True)):
        on_left = place < left
        row = place if on_left else count - 1 - place
        height, at = top - ROW * row - ROW / 2, _place(rank, count)
        end = SIDE - 0.08 if on_left else WIDTH - SIDE + 0.08
        style = next(line.group for line in study.lines if line.column == method)
        axes.plot([at, at, end], [0, height, height], color=LINE, linewidth=0.9, zorder=1)
        face = PAGE if style.hollow else style.colour
        axes.plot([at], [0], marker="o", color=SOFT, markersize=3.5, zorder=4)
        axes.plot(
            [end], [height], marker=style.marker, color=style.colour, markerfacecolor=face, markersize=5, zorder=4
        )
        text, shown = shortened(study.compared.columns[method].title), f"{rank:.2f}".rjust(5, "\N{FIGURE SPACE}")
        label = f"{text}  {shown}" if on_left else f"{shown}  {text}"
        weight = "bold" if method == study.compared.reference else "normal"
        axes.text(end - 0.09 if on_left else end + 0.09, height, label, ha="right" if on_left else "left",
                  va="center", fontsize=_size(label), color=TEXT, fontweight=weight)  # fmt: skip


def shortened(title: str) -> str:
    """Cut a title that would not fit beside the axis in the smallest font."""
    return title if len(title) <= LONGEST else f"{title[: LONGEST - 1].rstrip()}…"


def _size(label: str) -> float:
    """The font size in points at which a label fits beside the axis."""
    fits = (SIDE - 0.2) * 72 / max(1, len(label)) / 0.62  # a character is at most 0.62 of the size wide, on average
    return min(9.0, max(6.0, fits))
