"""Compare the settings of several results: list shared values once, and different values by the coarsest grouping."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pemt_core.artifacts.result import CellResult
from pemt_core.report.names import MethodNames
from pemt_core.settings.dotted import flatten


@dataclass(frozen=True)
class Value:
    """A value of a setting, and the names that have it."""

    key: str
    value: str
    names: list[str]


@dataclass(frozen=True)
class SharedSettings:
    """The settings that all share, by dotted key, and the values that differ, by grouping."""

    shared: dict[str, str]
    different: dict[str, list[Value]]


def share_settings(settings: Sequence[Mapping[str, Any]], groupings: Mapping[str, Sequence[str]]) -> SharedSettings:
    """Compare nested settings; a missing key counts as a different value.

    Each of `groupings` has the group of each of `settings`, the coarsest grouping first; in the last, every group has
    one member. A key that differs is listed under the first grouping whose groups agree on it.
    """
    flat = [flatten(values, in_words) for values in settings]
    shared: dict[str, str] = {}
    different: dict[str, list[Value]] = {heading: [] for heading in groupings}
    for key in dict.fromkeys(key for values in flat for key in values):
        values = [each.get(key, "absent") for each in flat]
        if len(set(values)) == 1:
            shared[key] = values[0]
            continue
        heading = next((h for h, groups in groupings.items() if _agree(groups, values)), list(groupings)[-1])
        holders: dict[str, dict[str, None]] = {}
        for value, name in zip(values, groupings[heading], strict=True):
            holders.setdefault(value, {})[name] = None
        different[heading] += [Value(key, value, list(names)) for value, names in holders.items()]
    return SharedSettings(shared, {heading: values for heading, values in different.items() if values})


def _agree(groups: Sequence[str], values: Sequence[str]) -> bool:
    """Whether every group has one value."""
    return len(set(zip(groups, values, strict=True))) == len(set(groups))


def settings_of_results(results: Sequence[CellResult], names: MethodNames) -> SharedSettings:
    """Compare the settings of stage 2, grouped by method, by target, by both, or by single results."""
    both = [f"{result.task} ({names.title(result.method)})" for result in results]
    cells = [f"{r.task} ({names.title(r.method)}, k={r.k}, seed {r.seed})" for r in results]
    groupings = {
        "Methods": [names.title(result.method) for result in results],
        "Targets": [result.task for result in results],
        "Targets and methods": both,
        "Results": cells,
    }
    return share_settings([result.settings for result in results], groupings)


def in_words(value: Any) -> str:
    """Format a setting's value as the page shows it."""
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(in_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
