"""What the gates of a method do: how sharp they are, whether they read the row, and whether seeds agree."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from pemt_core.artifacts.result import CellResult, named_layers
from pemt_core.comparison_report.study import Study

CLEAR = 1e-6  # a layer whose two largest mean weights are closer chooses no expert


@dataclass(frozen=True)
class TargetGates:
    """One target, means over seeds; layers are those of the encoder, then of the decoder.

    A value is NaN if some weights of the method are no distribution, or one seed alone has a result.
    """

    target: str
    entropy: NDArray[np.float64]  # by layer, from 0 (one expert) to 1 (all equal)
    one_hot: NDArray[np.float64]  # by layer, share of rows
    deviation: NDArray[np.float64]  # by layer, of the weights over rows
    agreement: float  # share of pairs of seeds, over layers, that give the most weight to the same source
    chosen: str  # the source that most layers and seeds give the most weight; "" if none is clear
    chosen_share: float  # of the layers and seeds that choose it


@dataclass(frozen=True)
class MethodGates:
    """One method at one k."""

    column: str
    title: str
    sources: list[str]
    layers: list[str]  # "encoder 1", ...
    targets: list[TargetGates]

    def mean(self, value: str) -> float:
        """The mean over targets and layers of a value of TargetGates; NaN if none has it."""
        found = [float(np.mean(getattr(each, value))) for each in self.targets]
        known = [each for each in found if not math.isnan(each)]
        return fmean(known) if known else math.nan


def gates_of(study: Study) -> list[MethodGates]:
    """The gates of every method that has some, the reference first; results without them are left out."""
    found = []
    for line in [study.reference, *study.others]:
        own = [result for result in study.results if result.method == line.column and result.gates is not None]
        if own:
            targets: dict[str, list[CellResult]] = {}
            for result in own:
                targets.setdefault(result.task, []).append(result)
            rows = [_target(name, results, _are_shares(own)) for name, results in targets.items()]
            layers = list(named_layers(own[0].gates))
            found.append(MethodGates(line.column, line.title, own[0].sources, layers, rows))
    return found


def _are_shares(results: Sequence[CellResult]) -> bool:
    """Whether the weights of a method are a distribution everywhere; those of ScaLearn can add up to 1 by chance."""
    return all(layer["entropy"] is not None for result in results for layer in named_layers(result.gates).values())


def _target(name: str, results: Sequence[CellResult], are_shares: bool) -> TargetGates:
    chosen = [chosen_sources(result) for result in results]
    counts = Counter(source for layers in chosen for source in layers if source)
    most, unknown = counts.most_common(1), np.full(len(chosen[0]), math.nan)
    return TargetGates(
        target=name,
        entropy=_over_seeds(results, "entropy") if are_shares else unknown,
        one_hot=_over_seeds(results, "one_hot") if are_shares else unknown,
        deviation=_over_seeds(results, "deviation"),
        agreement=agreement(chosen),
        chosen=most[0][0] if most else "",
        chosen_share=most[0][1] / sum(map(len, chosen)) if most else math.nan,
    )


def _over_seeds(results: Sequence[CellResult], value: str) -> NDArray[np.float64]:
    """The mean over seeds of each layer's value; NaN where one has none."""
    rows = [[_number(layer, value) for layer in named_layers(result.gates).values()] for result in results]
    return np.mean(np.array(rows, dtype=np.float64), axis=0)


def _number(layer: Mapping[str, float | None], value: str) -> float:
    found = layer[value]
    return math.nan if found is None else found


def chosen_sources(result: CellResult) -> list[str]:
    """The source with the largest mean weight in each layer; "" where the largest two are equal."""
    return [_chosen(np.asarray(layer), result.sources) for layer in named_layers(result.expert_weights).values()]


def _chosen(weights: NDArray[np.float64], sources: Sequence[str]) -> str:
    order = np.argsort(-weights)
    if len(weights) > 1 and weights[order[0]] - weights[order[1]] < CLEAR:
        return ""
    return sources[int(order[0])]


def agreement(chosen: Sequence[Sequence[str]]) -> float:
    """The share of pairs of runs that chose the same source, over all layers in which both chose; NaN without one."""
    pairs = [
        first == second
        for one, other in combinations(chosen, 2)
        for first, second in zip(one, other, strict=True)
        if first and second
    ]
    return fmean(pairs) if pairs else math.nan
