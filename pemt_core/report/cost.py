"""The cost of the results in time, memory and energy, from the provenance that each step wrote."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from pemt_core.artifacts.files import read_json
from pemt_core.errors import ArtifactError

STEPS = ("prepare", "backbone", "train_source", "collect_experts", "transfer", "evaluate")
WATT_HOUR = 3600.0  # joules


class Facts(BaseModel):
    """What a report shows of a process's provenance."""

    commit: str | None
    started: datetime
    seconds: float
    peak_memory_mib: int
    workers_memory_mib: int = 0
    energy_joules: dict[str, float | None] = Field(default_factory=dict)
    platform: str
    python: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Process:
    """One process of a step, as its provenance describes it. `task` is empty if the step has a single process."""

    step: str
    task: str
    facts: dict[str, Any]

    @property
    def memory_mib(self) -> int:
        """Peak memory of the process and its workers, without GPU memory."""
        return int(self.facts["peak_memory_mib"]) + int(self.facts.get("workers_memory_mib", 0))

    def watt_hours(self, part: str) -> float | None:
        """Energy of the whole machine while the process ran; None if it could not be measured."""
        joules = self.facts.get("energy_joules", {}).get(part)
        return None if joules is None else joules / WATT_HOUR


@dataclass(frozen=True)
class Cost:
    """The cost of several processes together."""

    processes: list[Process]

    @property
    def seconds(self) -> float:
        return sum(process.facts["seconds"] for process in self.processes)

    @property
    def memory_mib(self) -> int:
        """The highest peak of any process: what a machine needs to run them one after another."""
        return max(process.memory_mib for process in self.processes)

    def watt_hours(self, part: str) -> float | None:
        """The sum over processes; None if one of them could not be measured."""
        parts = [process.watt_hours(part) for process in self.processes]
        known = [energy for energy in parts if energy is not None]
        return sum(known) if len(known) == len(parts) else None


def read_processes(provenance_dir: Path, tasks: Iterable[str]) -> list[Process]:
    """Read the processes from their provenance in a folder, in the pipeline's order; empty if they ran elsewhere.

    Of steps that run once per task, it reads only `tasks`, since files of tasks that are no longer listed remain.
    """
    paths = [(step, path) for step in STEPS for path in _files(Path(provenance_dir), step)]
    named = [(step, "" if path.stem == step else path.stem, path) for step, path in paths]
    known = {"", *tasks}
    return [Process(step, task, _facts(path)) for step, task, path in named if task in known]


def _facts(path: Path) -> dict[str, Any]:
    """Read the provenance of a process. Raises ArtifactError if it lacks what a report shows."""
    facts = read_json(path)
    try:
        Facts.model_validate(facts)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise ArtifactError(f"{path}: not the provenance of a step: {key}: {first['msg']}; remove it") from error
    return dict(facts)


def _files(folder: Path, step: str) -> Iterable[Path]:
    single = folder / f"{step}.json"
    return [single] if single.is_file() else sorted((folder / step).glob("*.json"))


def by_step(processes: Iterable[Process]) -> dict[str, Cost]:
    """Return the cost of each step that has processes."""
    groups: dict[str, list[Process]] = {}
    for process in processes:
        groups.setdefault(process.step, []).append(process)
    return {step: Cost(group) for step, group in groups.items()}


def elapsed(processes: Sequence[Process]) -> float:
    """Return the seconds from the first start to the last end; 0 without processes."""
    starts = [datetime.fromisoformat(process.facts["started"]).timestamp() for process in processes]
    ends = [start + process.facts["seconds"] for start, process in zip(starts, processes, strict=True)]
    return max(ends) - min(starts) if processes else 0.0


def duration(seconds: float) -> str:
    """Format a duration: "12 s", "6 min 12 s", "3 h 05 min"."""
    whole = round(seconds)
    if seconds < 0.1:
        return "under 0.1 s"
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
