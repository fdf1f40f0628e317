"""The learning rates of a development experiment: which ones are best on validation, by method and k."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean

from pemt_core.artifacts.cell import FewShot
from pemt_core.artifacts.description import load_training_record
from pemt_core.comparison.folders import Folders
from pemt_core.comparison.plan import ComparisonPlan


@dataclass(frozen=True)
class Rate:
    """One configuration of a method, and its validation score in points, averaged over targets and seeds."""

    label: str
    score: float
    won: int  # cells in which it is the best
    cells: int


def rates_of(plan: ComparisonPlan, folders: Folders) -> dict[tuple[str, FewShot], list[Rate]]:
    """Every configuration by column and k, the best first."""
    scores: dict[tuple[str, FewShot], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    won: dict[tuple[str, FewShot], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for variant, cell in plan.cells:
        trials = load_training_record(folders.targets(variant.name) / cell.task / cell.name).trials
        key = plan.column(variant, cell.method), cell.k
        finite = {label: 0.0 if score is None else score for label, score in trials.items()}  # None: it diverged
        for label, score in finite.items():
            scores[key][label].append(score)
        won[key][max(finite, key=finite.__getitem__)] += 1
    return {key: _ranked(by_label, won[key]) for key, by_label in scores.items()}


def _ranked(scores: Mapping[str, list[float]], won: Mapping[str, int]) -> list[Rate]:
    rates = [Rate(label, fmean(each), won.get(label, 0), len(each)) for label, each in scores.items()]
    return sorted(rates, key=lambda rate: -rate.score)


def write_rates(rates: Mapping[tuple[str, FewShot], list[Rate]], most: int = 3) -> str:
    """The best rates of every method as a Markdown table."""
    lines = ["| method | k | learning rate | mean validation | best in |", "| --- | --- | --- | --- | --- |"]
    for (method, k), ranked in rates.items():
        for rate in ranked[:most]:
            lines.append(f"| {method} | {k} | {rate.label} | {rate.score:.2f} | {rate.won} of {rate.cells} cells |")
    return "\n".join(lines) + "\n"
