"""Learning curves: every recorded point as a CSV file, and the main metric on validation as small multiples."""

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pemt_core.artifacts.result import CellResult
from pemt_core.report.palette import Series, Style, drop_frame

SHOWN = "validation/main"


def curve_frame(results: Sequence[CellResult]) -> pd.DataFrame:
    """One row per recorded step: target, method, k, seed, step, then a column for each metric that was recorded."""
    rows = [
        {"target": result.task, "method": result.method, "k": str(result.k), "seed": result.seed, **point}
        for result in results
        for point in result.history
    ]
    first = ["target", "method", "k", "seed", "step"]
    metrics = sorted({name for row in rows for name in row} - set(first))
    return pd.DataFrame(rows, columns=[*first, *metrics])


def draw_curves(results: Sequence[CellResult], series: Series, most_columns: int) -> Figure:
    """A panel per target, so many in a row: the main metric on validation against the step.

    A thin line per seed, a thick one for their mean.
    """
    targets = {result.task: result.main_metric for result in results}
    columns = min(most_columns, len(targets))
    rows = math.ceil(len(targets) / columns)
    figure = Figure(figsize=(2.6 * columns + 0.6, 2.1 * rows + 1.0), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).flatten()
    for panel, (target, metric) in zip(panels, targets.items(), strict=False):
        for name, style in series.items():
            own = [result for result in results if result.task == target and (result.method, str(result.k)) == name]
            _draw_seeds(panel, own, style)
        panel.set_title(f"{target} ({metric})", fontsize=9)
        panel.tick_params(labelsize=7)
        panel.margins(y=0.12)
        drop_frame(panel)
    for panel in panels[len(targets) :]:
        panel.set_visible(False)
    figure.supxlabel("training step", fontsize=10)
    figure.supylabel("main metric on validation (points)", fontsize=10)
    _add_legend(figure, panels[0], series, columns)
    return figure


def _draw_seeds(panel: Axes, own: Sequence[CellResult], style: Style) -> None:
    """The seeds of one method on one target; the mean only at steps that all of them reached."""
    curves = [{point["step"]: point[SHOWN] for point in result.history if SHOWN in point} for result in own]
    curves = [curve for curve in curves if curve]
    if not curves:
        return
    for curve in curves:
        panel.plot(
            list(curve), list(curve.values()), color=style.colour, linestyle=style.line, linewidth=0.7, alpha=0.4
        )
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    means = [sum(curve[step] for curve in curves) / len(curves) for step in shared]
    marker = style.marker if len(shared) == 1 else None  # a line of one point would not be seen
    panel.plot(shared, means, color=style.colour, linestyle=style.line, linewidth=1.8, marker=marker, markersize=4)


def _add_legend(figure: Figure, panel: Axes, series: Series, columns: int) -> None:
    styles = list(series.values())
    lines = [panel.plot([], [], color=style.colour, linestyle=style.line, linewidth=1.8)[0] for style in styles]
    names = [style.label for style in styles]
    ncols = min(len(styles), columns + 1)
    figure.legend(lines, names, loc="outside upper center", ncols=ncols, frameon=False, fontsize=9)
