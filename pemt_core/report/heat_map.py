"""Heat maps of expert weights, averaged over the test set, seeds and groups of layers."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from numpy.typing import NDArray

from pemt_core.artifacts.result import STACKS, CellResult
from pemt_core.report.palette import figure_without

Weights = NDArray[np.float64]


def group_layers(layers: Sequence[Sequence[float]], num_groups: int) -> list[tuple[str, Weights]]:
    """Return name and mean weights of consecutive groups of layers: [("1-4", (E,)), ...].

    The groups are as even as possible. No group is empty, so there are at most as many groups as layers: none without.
    """
    if not layers:
        return []
    matrix = np.asarray(layers, dtype=np.float64)  # layers, E
    parts = np.array_split(np.arange(len(matrix)), min(num_groups, len(matrix)))
    names = [f"{part[0] + 1}" if len(part) == 1 else f"{part[0] + 1}-{part[-1] + 1}" for part in parts]
    return [(name, matrix[part].mean(axis=0)) for name, part in zip(names, parts, strict=True)]


def weight_panels(results: Sequence[CellResult], sources: Sequence[str], num_groups: int) -> dict[str, Weights]:
    """Map panel titles to weights (targets, sources), NaN if a target lacks a source; encoder panels come first.

    `results` belong to one method and k; the seeds of a target are averaged.
    """
    targets = list(dict.fromkeys(result.task for result in results))
    cells: dict[str, list[list[Weights]]] = {}  # title -> target -> one vector per seed
    for stack in STACKS:
        for result in results:
            assert result.expert_weights is not None
            for name, weights in group_layers(result.expert_weights.get(stack, []), num_groups):
                row = np.array([weights[result.sources.index(s)] if s in result.sources else np.nan for s in sources])
                panel = cells.setdefault(f"{stack} {name}", [[] for _ in targets])
                panel[targets.index(result.task)].append(row)
    absent = np.full(len(sources), np.nan)
    return {title: np.array([np.mean(rows or [absent], axis=0) for rows in panel]) for title, panel in cells.items()}


def draw_expert_weights(results: Sequence[CellResult], num_groups: int, title: str) -> Figure:
    """Draw a row of panels per k: targets down, sources across, a panel per group of layers.

    `results` belong to the method with this title; those without expert weights are left out.
    """
    groups: dict[str, list[CellResult]] = {}
    for result in results:
        if result.expert_weights is not None:
            groups.setdefault(str(result.k), []).append(result)
    if not groups:
        return figure_without("expert weights")
    sources = list(dict.fromkeys(source for group in groups.values() for result in group for source in result.sources))
    rows = {name: weight_panels(group, sources, num_groups) for name, group in groups.items()}
    columns = max(len(panels) for panels in rows.values())
    most = max(len({result.task for result in group}) for group in groups.values())
    size = (columns * max(1.5, 0.27 * len(sources)) + 2.0, len(rows) * (0.26 * most + 1.5) + 0.4)
    figure = Figure(figsize=size, layout="constrained")
    highest = max(float(np.nanmax(panel)) for panels in rows.values() for panel in panels.values())
    for subfigure, name in zip(figure.subfigures(len(rows), 1, squeeze=False)[:, 0], rows, strict=True):
        targets = list(dict.fromkeys(result.task for result in groups[name]))
        subfigure.suptitle(f"{title}, k={name}: expert weights by layers", fontsize=11)
        _draw_row(subfigure, rows[name], targets, sources, highest)
    return figure


def draw_weights_of(result: CellResult) -> Figure:
    """Draw the expert weights of one cell: a panel per stack, layers down, sources across."""
    assert result.expert_weights is not None
    weights = result.expert_weights
    stacks = {stack: np.asarray(weights[stack]) for stack in STACKS if stack in weights}  # layers, E
    deepest = max(map(len, stacks.values()))
    width = len(stacks) * max(1.5, 0.27 * len(result.sources)) + 2.0
    figure = Figure(figsize=(width, 0.26 * deepest + 1.5), layout="constrained")
    panels = figure.subplots(1, len(stacks), squeeze=False)[0]
    for panel, (stack, layers) in zip(panels, stacks.items(), strict=True):
        image = panel.imshow(layers, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
        _label(panel, stack, result.sources, [str(layer + 1) for layer in range(len(layers))])
    panels[0].set_ylabel("layer", fontsize=8)
    _add_bar(figure, image, list(panels), len(result.sources))
    return figure


def _draw_row(
    figure: SubFigure, panels: dict[str, Weights], targets: list[str], sources: list[str], highest: float
) -> None:
    """Draw the panels of one k with a shared colour bar from 0; dark cells are sources with high weights."""
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for panel, (title, weights) in zip(axes, panels.items(), strict=True):
        image = panel.imshow(weights, cmap="Blues", vmin=0.0, vmax=highest, aspect="auto")
        panel.set_facecolor("#bbbbbb")
        _label(panel, title, sources, targets)
    _add_bar(figure, image, list(axes), len(sources))


def _label(panel: Axes, title: str, sources: Sequence[str], rows: Sequence[str]) -> None:
    panel.set_title(title, fontsize=9)
    panel.set_xticks(range(len(sources)), sources, rotation=90, fontsize=8)
    panel.set_yticks(range(len(rows)), rows, fontsize=8)
    panel.tick_params(length=0)


def _add_bar(figure: Figure | SubFigure, image: AxesImage, axes: list[Axes], num_sources: int) -> None:
    bar = figure.colorbar(image, ax=axes, pad=0.01, fraction=0.02)
    bar.set_label(f"weight (equal: {1 / num_sources:.2f})", fontsize=8)
    bar.ax.tick_params(labelsize=7)
