"""What each method costs: what it trains and stores, what it needs of stage 1, and PEFT-Bench's score against costs."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from pemt_core.artifacts.result import CellResult
from pemt_core.comparison.compared import Compared, SourcePart
from pemt_core.statistics.pscp import Cost, median_constants, pscp


@dataclass(frozen=True)
class MethodCost:
    """One method at one k. Counts per cell are means over targets and seeds; None: not measured."""

    fewest_parameters: int  # trained for one target
    most_parameters: int
    source_parameters: int | None  # frozen, of the sources that a cell draws on, the most of any; 0: none
    sources: int  # that a cell draws on, the most of any
    candidates: int  # that stage 1 trained for it; more than `sources` if it chooses among them
    source_seconds: float | None  # of the processor in stage 1, for all candidates, once for all targets
    configurations: float  # tried per cell
    steps: float | None  # optimizer steps per cell, over all configurations
    seconds: float | None  # training per cell, over all configurations
    peak_memory_mib: int | None  # the highest of its cells
    stored_bytes: float  # per cell
    added_flops: int  # operations per row beyond those of the bare backbone


def cost_of(compared: Compared, column: str, results: Sequence[CellResult]) -> MethodCost:
    """The cost of a method from its results at one k, which must not be empty."""
    costs = [compared.costs[result.cell] for result in results]
    steps = [cost.steps for cost in costs if cost.steps is not None]
    seconds = [cost.seconds for cost in costs if cost.seconds is not None]
    memory = [cost.peak_memory_mib for cost in costs if cost.peak_memory_mib is not None]
    whole = len(costs)
    candidates = compared.candidates[column]
    parts = _parts(compared, column, {*candidates, *(source for result in results for source in result.sources)})
    return MethodCost(
        fewest_parameters=min(result.trained_parameters for result in results),
        most_parameters=max(result.trained_parameters for result in results),
        source_parameters=_source_parameters(parts, results),
        sources=max(len(result.sources) for result in results),
        candidates=len(candidates),
        source_seconds=_source_seconds(parts, candidates),
        configurations=fmean(cost.configurations for cost in costs),
        steps=fmean(steps) if len(steps) == whole else None,
        seconds=fmean(seconds) if len(seconds) == whole else None,
        peak_memory_mib=max(memory) if len(memory) == whole else None,
        stored_bytes=fmean(cost.stored_bytes for cost in costs),
        added_flops=compared.added_flops[column],
    )


def _parts(compared: Compared, column: str, sources: Collection[str]) -> dict[str, SourcePart | None]:
    """What a column reads of each source: its prompt that was trained alone, or its adapter; None: not recorded."""
    known, alone = compared.sources.get(compared.variants[column], {}), column in compared.on_lone_prompts
    parts: dict[str, SourcePart | None] = dict.fromkeys(sources)
    for source, cost in known.items():
        if source in parts:
            parts[source] = cost.lone_prompt if alone else cost.adapter
    return parts


def _source_parameters(parts: Mapping[str, SourcePart | None], results: Sequence[CellResult]) -> int | None:
    """The most parameters of sources in a cell; None if a source is not recorded."""
    if any(parts[source] is None for result in results for source in result.sources):
        return None
    sizes = {source: part.parameters for source, part in parts.items() if part is not None}
    return max(sum(sizes[source] for source in result.sources) for result in results)


def _source_seconds(parts: Mapping[str, SourcePart | None], candidates: Sequence[str]) -> float | None:
    """The seconds of all candidates; None if those of one are unknown."""
    found = [part.seconds if part else None for part in (parts[source] for source in candidates)]
    known = [seconds for seconds in found if seconds is not None]
    return sum(known) if len(known) == len(found) else None


def pscp_of(methods: Mapping[str, tuple[float, MethodCost]]) -> dict[str, float]:
    """PEFT-Bench's PSCP of each method, from its mean in points and its cost.

    The constants are the medians over the methods whose memory was measured. NaN for a method without a mean, with a
    negative one, which costs would bring closer to 0, or whose memory was not measured.
    """
    costs = {
        name: Cost(cost.most_parameters, cost.added_flops, cost.peak_memory_mib)
        for name, (_, cost) in methods.items()
        if cost.peak_memory_mib is not None
    }
    if not costs:
        return dict.fromkeys(methods, math.nan)
    constants = median_constants(list(costs.values()))
    return {
        name: pscp(mean, costs[name], constants) if name in costs and mean >= 0 else math.nan
        for name, (mean, _) in methods.items()
    }
