"""The gates of one method as a figure: entropy per layer, and beside it what else tells whether gates choose."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pemt_core.comparison_report.gates import MethodGates
from pemt_core.report.palette import COLOURS, SOFT, drop_frame, figure_without, lay_out, page_colours

ROW = 0.27  # inches
COLUMNS = {  # value to its title
    "one_hot": "one-hot rows\n(share)",
    "deviation": "deviation\nover rows",
    "agreement": "agreement\nof seeds",
}


@page_colours
def draw_gates(gates: MethodGates | None) -> Figure:
    """Draw targets down: a heat map of entropy by layer, then a column each for the values of COLUMNS."""
    if gates is None:
        return figure_without("gates")
    entropy = np.array([target.entropy for target in gates.targets])
    rows, layers = entropy.shape
    width = 1.6 + 0.36 * layers + 1.35 * len(COLUMNS)
    figure = Figure(figsize=(width, ROW * rows + 1.5), layout="constrained")
    ratios = [0.36 * layers, *[1.2] * len(COLUMNS)]
    heat, *panels = figure.subplots(1, 1 + len(COLUMNS), sharey=True, width_ratios=ratios)
    image = heat.imshow(entropy, cmap="Blues_r", vmin=0.0, vmax=1.0, aspect="auto")
    heat.set_facecolor("#bbbbbb")
    heat.set_title("entropy (0: one expert, 1: all equal)", fontsize=9)
    short = [name.replace("encoder ", "e").replace("decoder ", "d") for name in gates.layers]
    heat.set_xticks(range(layers), short, fontsize=8, rotation=90 if layers > 12 else 0)
    heat.set_yticks(range(rows), [target.target for target in gates.targets], fontsize=9)
    heat.tick_params(length=0)
    if layers <= 12:
        _write(heat, entropy)
    for panel, (value, title) in zip(panels, COLUMNS.items(), strict=True):
        _dots(panel, np.array([float(np.mean(getattr(target, value))) for target in gates.targets]), title, value)
    figure.colorbar(image, ax=heat, location="bottom", shrink=0.5, aspect=30, pad=0.02).ax.tick_params(labelsize=8)
    figure.suptitle(f"Gates of {gates.title}, means over rows and seeds", fontsize=10)
    figure.set_label(f"Gates of {gates.title}: entropy by layer, one-hot rows, deviation and agreement by target")
    lay_out(figure)
    return figure


def _write(axes: Axes, values: np.ndarray) -> None:
    for row, column in np.ndindex(*values.shape):
        value = values[row, column]
        if not np.isnan(value):
            axes.text(column, row, f"{value:.2f}".removeprefix("0"), ha="center", va="center", fontsize=7,
                      color="#ffffff" if value < 0.45 else "#1b1f24")  # fmt: skip


def _dots(axes: Axes, values: np.ndarray, title: str, value: str) -> None:
    axes.hlines(range(len(values)), 0, np.nan_to_num(values), color=COLOURS[0], linewidth=1.0, alpha=0.5)
    axes.plot(values, range(len(values)), "o", color=COLOURS[0], markersize=4)
    axes.set_title(title, fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=8, colors=SOFT)
    highest = float(np.nanmax(values)) if not np.isnan(values).all() else 0.0
    axes.set_xlim(0, 1.06 if value != "deviation" else max(0.05, 1.15 * highest))
    drop_frame(axes)
