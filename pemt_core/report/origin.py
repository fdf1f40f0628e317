"""Where the results come from: commits, versions, data, source adapters."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pemt_core.artifacts.description import SourceDescription, load_description, load_training_record
from pemt_core.backbone.description import recorded_parameters
from pemt_core.report.cost import Process
from pemt_core.settings.groups import BackboneSettings, PrepareSettings

CHANGED = "+changes"  # what `git_commit` appends if the checkout differs from the commit


@dataclass(frozen=True)
class Origin:
    """What a report knows besides the results: settings of data and backbone, and what the steps recorded.

    If a cluster ran the steps, `processes` is empty and `backbone_dir` is None.
    """

    prepare: PrepareSettings
    backbone: BackboneSettings
    backbone_dir: Path | None
    processes: list[Process]
    source_dirs: Sequence[Path]

    @cached_property  # the page asks for it in every row of a table
    def num_parameters(self) -> int | None:
        """Those of the backbone. Raises ArtifactError if its description is missing."""
        return recorded_parameters(self.backbone_dir) if self.backbone_dir else None

    @property
    def date(self) -> str:
        """The start of the newest process, such as "2026-11-21 15:23 UTC"; empty if nothing was recorded."""
        newest = max((process.facts["started"] for process in self.processes), default="")
        return f"{newest[:16].replace('T', ' ')} UTC" if newest else ""

    @property
    def commits(self) -> list[str]:
        """The commits at which the processes ran, in the order of their starts."""
        processes = sorted(self.processes, key=lambda process: str(process.facts["started"]))
        return list(dict.fromkeys(process.facts["commit"] for process in processes))

    @property
    def software(self) -> dict[str, list[str]]:
        """Platform, Python and packages, each with all the versions that processes used."""
        found: dict[str, list[str]] = {}
        for process in self.processes:
            facts = process.facts
            versions = {"platform": facts["platform"], "Python": facts["python"], **facts["versions"]}
            for name, value in versions.items():
                if value not in found.setdefault(name, []):
                    found[name].append(value)
        return found


@dataclass(frozen=True)
class Source:
    """A source adapter that became an expert."""

    description: SourceDescription
    content_hash: str
    trained_parameters: int
    validation: float  # main metric, points


def read_sources(directories: Sequence[Path]) -> list[Source]:
    """Read the source adapters of these folders. ArtifactError if one is incomplete."""
    sources = []
    for directory in directories:
        (description, content_hash), record = (
            load_description(directory, SourceDescription),
            load_training_record(directory),
        )
        sources.append(Source(description, content_hash, record.trained_parameters, record.validation["main"]))
    return sources
