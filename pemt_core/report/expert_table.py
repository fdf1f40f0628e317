"""Expert weights as tables of numbers on a single-hue scale: targets by sources, and each target layer by layer."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pemt_core.artifacts.result import CellResult, named_layers
from pemt_core.report.heat_map import Weights
from pemt_core.report.palette import in_order_of_k

SHADES = 11  # colours from 0 to 1: enough to tell weights apart, few enough for a CSS class each
_LIGHTEST, _MIDDLE, _DARKEST = (247, 251, 255), (107, 174, 214), (8, 48, 107)  # of ColorBrewer's Blues


@dataclass(frozen=True)
class TargetWeights:
    """One target: weights averaged over seeds and layers, (E,), and by name for each layer."""

    name: str
    weights: Weights
    layers: list[tuple[str, Weights]]


@dataclass(frozen=True)
class ExpertTable:
    """The targets of one k by suite. The columns are `sources`; a weight is NaN if the target lacks the source."""

    k: str
    sources: list[str]
    suites: dict[str, list[TargetWeights]]


def expert_tables(results: Sequence[CellResult]) -> list[ExpertTable]:
    """Return a table per k of `results`, which belong to one method and have expert weights."""
    groups: dict[str, list[CellResult]] = {}
    for result in results:
        groups.setdefault(str(result.k), []).append(result)
    return [_table(k, groups[k]) for k in sorted(groups, key=in_order_of_k)]


def _table(k: str, results: Sequence[CellResult]) -> ExpertTable:
    sources = list(dict.fromkeys(source for result in results for source in result.sources))
    suites: dict[str, list[TargetWeights]] = {}
    for suite, name in dict.fromkeys((result.suite, result.task) for result in results):
        seeds = [result for result in results if result.task == name]
        suites.setdefault(suite, []).append(_target(name, sources, seeds))
    return ExpertTable(k, sources, suites)


def _target(name: str, sources: Sequence[str], seeds: Sequence[CellResult]) -> TargetWeights:
    over_seeds = np.mean([_all_layers(result, sources) for result in seeds], axis=0)  # layers of both stacks, E
    titles = named_layers(seeds[0].expert_weights)
    return TargetWeights(name, over_seeds.mean(axis=0), list(zip(titles, over_seeds, strict=True)))


def _all_layers(result: CellResult, sources: Sequence[str]) -> Weights:
    """Return the weights of one result, encoder first, with a column per source: (layers, E)."""
    layers = np.array(list(named_layers(result.expert_weights).values()), dtype=np.float64)
    columns = [layers[:, result.sources.index(s)] if s in result.sources else np.full(len(layers), np.nan)
               for s in sources]  # fmt: skip
    return np.stack(columns, axis=1)


def shade_of(weight: float) -> int:
    """Return the index, among SHADES, for a weight from 0 to 1."""
    return min(SHADES - 1, max(0, round(weight * (SHADES - 1))))


def heat_colours() -> list[tuple[str, str]]:
    """Return background and text colour of each shade, light to dark; the text is black or white by contrast."""
    colours = []
    for shade in range(SHADES):
        position = 2 * shade / (SHADES - 1)  # 0 lightest, 1 middle, 2 darkest
        start, end = (_LIGHTEST, _MIDDLE) if position <= 1 else (_MIDDLE, _DARKEST)
        share = position if position <= 1 else position - 1
        mixed = [round(a + (b - a) * share) for a, b in zip(start, end, strict=True)]
        background = "#" + "".join(f"{channel:02x}" for channel in mixed)
        text = max(("#000000", "#ffffff"), key=lambda colour: contrast(colour, background))
        colours.append((background, text))
    return colours


def contrast(first: str, second: str) -> float:
    """Return the contrast ratio of two colours "#rrggbb", from 1 to 21, as defined by WCAG 2.2."""
    high, low = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
