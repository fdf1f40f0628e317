"""Where the results come from: commits, versions, data, settings that all share and those that differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pemt_core.artifacts.description import SourceDescription, load_description, load_training_record
from pemt_core.artifacts.files import read_json
from pemt_core.artifacts.result import CellResult
from pemt_core.report.cost import Run
from pemt_core.settings.groups import BackboneSettings, PrepareSettings

CHANGED = "+changes"  # what `git_commit` adds where the checkout differs from the commit


@dataclass(frozen=True)
class Origin:
    """What a report is told beside the results: settings of the data and the backbone, and what the steps left.

    `runs` and `num_parameters` (of the backbone) are empty and None where a cluster ran the steps.
    """

    prepare: PrepareSettings
    backbone: BackboneSettings
    num_parameters: int | None
    runs: list[Run]
    source_dirs: Sequence[Path]

    @property
    def backbone_title(self) -> str:
        """The checkpoint's name, or the size of what was pretrained from scratch."""
        backbone = self.backbone
        return backbone.name if backbone.kind == "hub" else f"{backbone.size} T5, pretrained here"

    @property
    def date(self) -> str:
        """When the newest run began, as "2026-11-21 15:23 UTC"; empty where nothing was recorded."""
        newest = max((run.facts["started"] for run in self.runs), default="")
        return f"{newest[:16].replace('T', ' ')} UTC" if newest else ""

    @property
    def commits(self) -> list[str]:
        """The commits that the runs were made at, in the order of their starts."""
        runs = sorted(self.runs, key=lambda run: str(run.facts["started"]))
        return list(dict.fromkeys(run.facts["commit"] for run in runs))

    @property
    def software(self) -> dict[str, list[str]]:
        """Platform, Python and packages, each with all that runs were made with."""
        found: dict[str, list[str]] = {}
        for run in self.runs:
            facts = {"platform": run.facts["platform"], "Python": run.facts["python"], **run.facts["versions"]}
            for name, value in facts.items():
                if value not in found.setdefault(name, []):
                    found[name].append(value)
        return found


def num_parameters_of(backbone_dir: Path) -> int:
    """How many parameters a backbone has, from the folder that the backbone step wrote."""
    return int(read_json(Path(backbone_dir) / "backbone.json")["parameters"])


@dataclass(frozen=True)
class Source:
    """A source adapter that the experts were made of."""

    description: SourceDescription
    content_hash: str
    trained_parameters: int
    validation: float  # main metric, points


def read_sources(directories: Sequence[Path]) -> list[Source]:
    """The source adapters of these folders. ArtifactError where one is incomplete."""
    sources = []
    for directory in directories:
        (description, content_hash), record = (
            load_description(directory, SourceDescription),
            load_training_record(directory),
        )
        sources.append(Source(description, content_hash, record.trained_parameters, record.validation["main"]))
    return sources


@dataclass(frozen=True)
class Difference:
    """A setting that is not the same everywhere: a value, and whose it is."""

    key: str
    value: str
    names: list[str]


@dataclass(frozen=True)
class Comparison:
    """Settings of several things: those that all share by their dotted keys, then those in which some differ."""

    shared: dict[str, str]
    different: list[Difference]


def compare_settings(settings: Mapping[str, Mapping[str, Any]]) -> Comparison:
    """Lay nested settings, by the name of what has them, beside one another. A key that one lacks differs."""
    flat = {name: flatten(values) for name, values in settings.items()}
    shared, different = {}, []
    for key in dict.fromkeys(key for values in flat.values() for key in values):
        holders: dict[str, list[str]] = {}
        for name, values in flat.items():
            holders.setdefault(values.get(key, "absent"), []).append(name)
        if len(holders) == 1:
            shared[key] = next(iter(holders))
        else:
            different += [Difference(key, value, names) for value, names in holders.items()]
    return Comparison(shared, different)


def settings_of_targets(results: Sequence[CellResult]) -> Comparison:
    """The settings of stage 2 by target; by cell where a target's cells differ."""
    by_target: dict[str, list[CellResult]] = {}
    for result in results:
        by_target.setdefault(result.task, []).append(result)
    named: dict[str, Mapping[str, Any]] = {}
    for target, own in by_target.items():
        equal = all(result.settings == own[0].settings for result in own)
        named |= {target: own[0].settings} if equal else {_cell_name(r): r.settings for r in own}
    return compare_settings(named)


def _cell_name(result: CellResult) -> str:
    return f"{result.task} ({result.method}, k={result.k}, seed {result.seed})"


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as dotted keys with their values as text: {"training.epochs": "20"}."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = _words(value)
    return flat


def _words(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)
