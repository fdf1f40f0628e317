"""The main metric against the number of trained parameters."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, LogLocator, NullLocator

from pemt_core.report.palette import Series, Style, drop_frame
from pemt_core.report.table import ALL


def draw_parameters(cells: pd.DataFrame, means: pd.DataFrame, series: Series) -> Figure:
    """A faint dot per target, and per method and k the mean over all targets with its interval over seeds.

    Takes the frames of `pemt_core.report.table`. Where no seed has every target there are dots but no mean, which
    the legend says. Intervals may leave the axes: those of two seeds can be wider than the scale.
    """
    figure = Figure(figsize=(7.0, 5.0), layout="constrained")
    axes = figure.subplots()
    sizes = [float(_rows_of(cells, name)["trained_parameters"].mean()) for name in series]
    for place, (name, style) in enumerate(series.items()):
        own = _rows_of(cells, name)
        axes.scatter(own["trained_parameters"], own["mean"], s=18, color=style.colour, alpha=0.35, linewidths=0)
        overall = _rows_of(means[means["suite"] == ALL], name).iloc[0]
        _draw_mean(axes, _beside_equals(sizes, place), overall, style)
    _scale(axes, cells)
    axes.set_xlabel("trained parameters per target (log scale)")
    axes.set_ylabel("main metric on test (points)")
    drop_frame(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def _rows_of(frame: pd.DataFrame, name: tuple[str, str]) -> pd.DataFrame:
    return frame[(frame["method"] == name[0]) & (frame["k"] == name[1])]


def _beside_equals(sizes: Sequence[float], place: int) -> float:
    """`sizes[place]`, moved a little where others have the same size, so that their means stand side by side."""
    equals = [index for index, size in enumerate(sizes) if size == sizes[place]]
    return sizes[place] * 1.1 ** (equals.index(place) - (len(equals) - 1) / 2)


def _draw_mean(axes: Axes, size: float, overall: pd.Series, style: Style) -> None:
    if pd.isna(overall["mean"]):
        label = f"{style.label}: targets missing, no mean"
        axes.scatter([], [], marker=style.marker, color=style.colour, alpha=0.35, label=label)
        return
    half = overall["half_width"]
    spread = "one seed" if pd.isna(half) else f"± {half:.1f}"
    axes.errorbar(
        size,
        overall["mean"],
        yerr=None if pd.isna(half) else half,
        fmt=style.marker,
        color=style.colour,
        markersize=6,
        capsize=6,
        linewidth=1.8,
        label=f"{style.label}: {overall['mean']:.1f} ({spread}) over {overall['targets']} targets",
    )


def _scale(axes: Axes, cells: pd.DataFrame) -> None:
    """Axes that the targets' dots decide: "2 M" on a logarithmic scale, half a decade wider than the methods."""
    parameters, points = cells["trained_parameters"], cells["mean"]
    axes.set_ylim(points.min() - 5, points.max() + 5)
    axes.set_xscale("log")
    axes.set_xlim(parameters.min() / 3, parameters.max() * 3)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.xaxis.set_minor_locator(NullLocator())
