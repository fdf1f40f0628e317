"""The scored test answers of several methods and seeds to the same rows of one target: the input of every analysis."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from pemt_core.metrics import Scored, get_metric


@dataclass(frozen=True, eq=False)
class TargetRuns:
    """The answers of methods to one target's test rows, at one k.

    All runs hold the same rows in the same order: a bootstrap draws rows once for all of them.
    `clusters` names, for each row, what it was drawn with: rows of one question or passage belong together.
    `chance` is what guessing scores where no constant answer can show it (WinoGrande's two options: 50).
    """

    target: str
    metric: str
    runs: Mapping[str, Mapping[int, Scored]]  # method -> seed -> answers
    clusters: Sequence[str] | None = None  # None: the groups of the rows, which are single rows for most tasks
    chance: float = 0.0  # points

    def __post_init__(self) -> None:
        found = [(method, seed, run) for method, seeds in self.runs.items() for seed, run in seeds.items()]
        if not found:
            raise ValueError(f"{self.target}: no runs to analyse")
        first_method, first_seed, first = found[0]
        for method, seed, run in found:
            if (run.references, run.groups, run.labels) != (first.references, first.groups, first.labels):
                raise ValueError(
                    f"{self.target}: the test rows of {method}, seed {seed} are not those of "
                    f"{first_method}, seed {first_seed}; evaluate both on the same rows"
                )
        if self.clusters is not None and len(self.clusters) != len(first.groups):
            raise ValueError(f"{self.target}: {len(self.clusters)} clusters for {len(first.groups)} rows")
        if len({*zip(self.cluster_of_row.tolist(), first.groups, strict=True)}) > len({*first.groups}):
            raise ValueError(f"{self.target}: a group of rows is split among clusters")

    @property
    def any_run(self) -> Scored:
        """One of the runs, for references, groups and labels, which all share."""
        return next(run for seeds in self.runs.values() for run in seeds.values())

    @cached_property
    def cluster_of_row(self) -> Int[np.ndarray, " rows"]:
        """The index of every row's cluster."""
        _, index = np.unique(self.any_run.groups if self.clusters is None else self.clusters, return_inverse=True)
        return index

    @property
    def num_clusters(self) -> int:
        """How many independent units the test rows have; a single one bounds no error of a score."""
        return int(self.cluster_of_row.max()) + 1

    def shared_seeds(self, method: str, reference: str) -> list[int]:
        """The seeds that both methods have, in order."""
        return sorted(set(self.runs.get(method, {})) & set(self.runs.get(reference, {})))

    @cached_property
    def _scores(self) -> dict[tuple[str, int], float]:
        function = get_metric(self.metric).function
        return {(name, seed): function(run) for name, seeds in self.runs.items() for seed, run in seeds.items()}

    def scores(self, method: str, seeds: Sequence[int]) -> Float[np.ndarray, " seeds"]:
        """The metric of every seed, in points."""
        return np.array([self._scores[method, seed] for seed in seeds])

    def mean(self, method: str, seeds: Sequence[int]) -> float:
        return float(self.scores(method, seeds).mean())


@runtime_checkable
class Cell(Protocol):
    """What an analysis needs to know of a cell; `pemt_core.artifacts.result.CellResult` has it."""

    @property
    def task(self) -> str: ...
    @property
    def method(self) -> str: ...
    @property
    def k(self) -> str | int: ...
    @property
    def seed(self) -> int: ...
    @property
    def main_metric(self) -> str: ...


def target_runs(
    scored: Iterable[tuple[Cell, Scored]],
    chance: Mapping[str, float] | None = None,
    clusters: Mapping[str, Sequence[str]] | None = None,
) -> list[TargetRuns]:
    """Group results and their test answers by target, in the order of the results.

    `chance` and `clusters` are those of each target in TargetRuns.

    Raises ValueError if a cell occurs twice or the results mix several k: each k is an analysis.
    """
    runs: dict[str, dict[str, dict[int, Scored]]] = {}
    metrics: dict[str, str] = {}
    ks = set()
    for result, answers in scored:
        ks.add(result.k)
        seeds = runs.setdefault(result.task, {}).setdefault(result.method, {})
        if result.seed in seeds:
            raise ValueError(f"{result.task}: {result.method}, k = {result.k}, seed {result.seed} occurs twice")
        seeds[result.seed] = answers
        if metrics.setdefault(result.task, result.main_metric) != result.main_metric:
            raise ValueError(f"{result.task}: main metric {result.main_metric} and {metrics[result.task]}")
    if len(ks) > 1:
        raise ValueError(f"results of k = {', '.join(sorted(map(str, ks)))} in one analysis; pass one k at a time")
    return [
        TargetRuns(target, metrics[target], methods, (clusters or {}).get(target), (chance or {}).get(target, 0.0))
        for target, methods in runs.items()
    ]
