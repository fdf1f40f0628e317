"""Learning curves: all recorded points as a frame, and the main metric on validation as small multiples."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from pemt_core.artifacts.result import CellResult
from pemt_core.report.palette import Series, Style, drop_frame, figure_without, lay_out, page_colours

VALIDATION = "validation/main"  # the drawn metric of `history`


def curve_frame(results: Sequence[CellResult]) -> pd.DataFrame:
    """Return one row per recorded step: target, method, k, seed, step, then a column for each recorded metric."""
    rows = [
        {"target": result.task, "method": result.method, "k": str(result.k), "seed": result.seed, **point}
        for result in results
        for point in result.history
    ]
    first = ["target", "method", "k", "seed", "step"]
    metrics = sorted({name for row in rows for name in row} - set(first))
    return pd.DataFrame(rows, columns=[*first, *metrics])


@dataclass(frozen=True)
class Curve:
    """One method and k on one target: for each seed, points by step."""

    style: Style
    seeds: list[dict[float, float]]

    @property
    def mean(self) -> dict[float, float]:
        """The mean over seeds, at the steps that all seeds reached."""
        shared = sorted(set.intersection(*map(set, self.seeds)))
        return {step: fmean(seed[step] for seed in self.seeds) for step in shared}


@page_colours
def draw_curves(results: Sequence[CellResult], series: Series, most_columns: int) -> Figure:
    """Draw a panel per target, at most `most_columns` in a row: the main metric on validation against the step.

    Each seed has a thin line, their mean a thick one. The label of a panel says where its curves end.
    """
    metrics = {result.task: result.main_metric for result in results}
    found = {target: _curves_of(results, target, series) for target in metrics}
    targets = [target for target, curves in found.items() if curves]
    if not targets:
        return figure_without("learning curves")
    columns = min(most_columns, len(targets))
    rows = math.ceil(len(targets) / columns)
    figure = Figure(figsize=(2.2 * columns + 0.6, 1.8 * rows + 1.0), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flatten())
    for panel in panels[len(targets) :]:
        panel.remove()
    for panel, target in zip(panels, targets, strict=False):
        _draw_panel(panel, found[target], f"{target} ({metrics[target]})")
        ends = (f"{curve.style.title} ends at {list(curve.mean.values())[-1]:.1f}" for curve in found[target])
        panel.set_label(f"{target}, {metrics[target]} on validation: {', '.join(ends)}")
    figure.supxlabel("training step", fontsize=10)
    figure.supylabel("main metric on validation (points)", fontsize=10)
    _add_legend(figure, panels[0], series, columns)
    lay_out(figure)
    return figure


def _curves_of(results: Sequence[CellResult], target: str, series: Series) -> list[Curve]:
    """Return the curves of a target, without methods that recorded none or whose seeds share no step."""
    curves = []
    for name, style in series.items():
        cell = [result for result in results if result.task == target and (result.method, str(result.k)) == name]
        seeds = [{point["step"]: point[VALIDATION] for point in r.history if VALIDATION in point} for r in cell]
        if seeds := [seed for seed in seeds if seed]:
            curves.append(Curve(style, seeds))
    return [curve for curve in curves if curve.mean]


def _draw_panel(panel: Axes, curves: Sequence[Curve], title: str) -> None:
    for curve in curves:
        style, mean = curve.style, curve.mean
        look: dict[str, Any] = {"color": style.colour, "linestyle": style.line}
        for seed in curve.seeds if len(curve.seeds) > 1 else ():
            panel.plot(list(seed), list(seed.values()), linewidth=0.7, alpha=0.4, **look)
        last = [len(mean) - 1]  # without its marker, a line of one point would be invisible
        panel.plot(list(mean), list(mean.values()), linewidth=1.8, markersize=5, markevery=last, **look, **style.marks)
    panel.set_title(title, fontsize=10)
    panel.tick_params(labelsize=9)
    panel.margins(y=0.12)
    panel.set_xlim(left=0)
    panel.xaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 2.5, 5, 10], integer=True))
    panel.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    drop_frame(panel)


def _add_legend(figure: Figure, panel: Axes, series: Series, columns: int) -> None:
    styles = list(series.values())
    looks = [{"color": style.colour, "linestyle": style.line, "linewidth": 1.8, **style.marks} for style in styles]
    lines = [panel.plot([], [], markersize=5, **look)[0] for look in looks]
    names = [style.label for style in styles]
    ncols = min(len(styles), columns + 1)
    figure.legend(lines, names, loc="outside upper center", ncols=ncols, frameon=False, fontsize=9)
