"""The learning rates of a development experiment: which ones are best on validation, by method and k."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from pemt_core.artifacts.cell import FewShot
from pemt_core.artifacts.description import load_training_record
from pemt_core.comparison.folders import Folders
from pemt_core.comparison.plan import ComparisonPlan
from pemt_core.report.markdown import pipe_table

Scores = Mapping[str, float]  # of one cell, by configuration: "0.01", or "mnli 0.01" if it also chooses a source


@dataclass(frozen=True)
class Grid:
    """Neighbouring learning rates, and the score of the best of them, averaged over targets and seeds."""

    labels: tuple[str, ...]
    score: float  # points on validation


def scores_of(plan: ComparisonPlan, folders: Folders) -> dict[tuple[str, FewShot], list[Scores]]:
    """The validation scores of every cell by column and k; a configuration that diverged scores 0."""
    scores: dict[tuple[str, FewShot], list[Scores]] = defaultdict(list)
    for variant, cell in plan.cells:
        trials = load_training_record(folders.targets(variant.name) / cell.task / cell.name).trials
        finite = {label: 0.0 if score is None else score for label, score in trials.items()}
        scores[plan.column(variant, cell.method), cell.k].append(finite)
    return scores


def ranked_grids(cells: Sequence[Scores], size: int) -> list[Grid]:
    """All grids of `size` neighbouring configurations that all cells have, the best first; none if they have none."""
    labels = _shared_labels(cells)
    grids = [tuple(labels[start : start + size]) for start in range(max(1, len(labels) - size + 1)) if labels]
    found = [Grid(grid, fmean(max(cell[label] for label in grid) for cell in cells)) for grid in grids]
    return sorted(found, key=lambda grid: -grid.score)


def _shared_labels(cells: Sequence[Scores]) -> list[str]:
    """The configurations that all cells have: targets may differ in their learning rates."""
    return [label for label in cells[0] if all(label in cell for cell in cells)]


def write_rates(scores: Mapping[tuple[str, FewShot], Sequence[Scores]], size: int, most: int = 3) -> str:
    """The best grids of every method as a Markdown table, then the mean of every rate."""
    grids, rates = [], []
    for (method, k), cells in scores.items():
        for grid in ranked_grids(cells, size)[:most]:
            grids.append([method, k, ", ".join(grid.labels), f"{grid.score:.2f}", len(cells)])
        means = [f"{label}: {fmean(cell[label] for cell in cells):.2f}" for label in _shared_labels(cells)]
        rates.append([method, k, ", ".join(means)])
    header = ["method", "k", f"grid of {size}", "mean of its best on validation", "cells"]
    return pipe_table(header, grids) + "\n\n" + pipe_table(["method", "k", "mean on validation by rate"], rates) + "\n"
