"""What each method costs: what it trains and stores, what it needs of stage 1, and PEFT-Bench's score against costs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from pemt_core.artifacts.result import CellResult
from pemt_core.comparison.compared import Compared
from pemt_core.statistics.pscp import Cost, median_constants, pscp


@dataclass(frozen=True)
class MethodCost:
    """One method at one k. Counts per cell are means over targets and seeds; None: not measured."""

    fewest_parameters: int  # trained for one target
    most_parameters: int
    source_parameters: int | None  # of the frozen sources that it draws on, once for all targets; 0: none
    configurations: float  # tried per cell
    steps: float  # optimizer steps per cell, over all configurations
    seconds: float | None  # training per cell, over all configurations
    peak_memory_mib: int | None  # the highest of its cells
    stored_bytes: float  # per cell


def cost_of(compared: Compared, column: str, results: Sequence[CellResult]) -> MethodCost:
    """The cost of a method from its results at one k, which must not be empty."""
    costs = [compared.costs[result.cell] for result in results]
    seconds = [cost.seconds for cost in costs if cost.seconds is not None]
    memory = [cost.peak_memory_mib for cost in costs if cost.peak_memory_mib is not None]
    whole = len(costs)
    return MethodCost(
        fewest_parameters=min(result.trained_parameters for result in results),
        most_parameters=max(result.trained_parameters for result in results),
        source_parameters=_source_parameters(compared, column, results),
        configurations=fmean(cost.configurations for cost in costs),
        steps=fmean(cost.steps for cost in costs),
        seconds=fmean(seconds) if len(seconds) == whole else None,
        peak_memory_mib=max(memory) if len(memory) == whole else None,
        stored_bytes=fmean(cost.stored_bytes for cost in costs),
    )


def _source_parameters(compared: Compared, column: str, results: Sequence[CellResult]) -> int | None:
    """The parameters of every source that some cell draws on; None if one is not recorded."""
    known = compared.sources.get(compared.variants[column], {})
    used = {source for result in results for source in result.sources}
    if not used <= set(known):
        return None
    part = "lone_prompt_parameters" if column in compared.on_lone_prompts else "parameters"
    return sum(getattr(known[source], part) for source in used)


def pscp_of(methods: Mapping[str, tuple[float, MethodCost]]) -> dict[str, float]:
    """PEFT-Bench's PSCP of each method, from its mean in points and its cost.

    The constants are the medians over `methods`, and inference counts as free, since it is not measured. NaN without a
    mean, or if the memory of some method was not measured.
    """
    costs = {
        name: Cost(cost.most_parameters, 0.0, cost.peak_memory_mib)
        for name, (_, cost) in methods.items()
        if cost.peak_memory_mib is not None
    }
    if len(costs) < len(methods):
        return dict.fromkeys(methods, math.nan)
    constants = median_constants(list(costs.values()))
    return {
        name: math.nan if math.isnan(mean) else pscp(mean, costs[name], constants)
        for name, (mean, _) in methods.items()
    }
