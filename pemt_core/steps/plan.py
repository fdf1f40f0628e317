"""plan: what every other step of a run on a cluster is to do, from the settings and the run's choices.

`dvc.yaml` has its lists and its params for this; Kubeflow's loops go over lists that a step has written. A step's
settings travel as one text that holds what it reads and no more, so that its result is reused while they are the same.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pemt_core.artifacts.cell import Cell, cells_of
from pemt_core.artifacts.files import sha256_of_json
from pemt_core.provenance.provenance import git_commit
from pemt_core.settings import Settings, settings_text
from pemt_core.tasks import get_task, known_tasks


@dataclass(frozen=True)
class SourceTraining:
    """A source task, and the settings of its training."""

    source: str
    settings: str


@dataclass(frozen=True)
class Branch:
    """A target task with one seed: what is transferred and evaluated beside the others."""

    target: str
    seed: int
    key: str  # of everything that its adapters come from: code, data, backbone, sources, settings
    transfer: str


@dataclass(frozen=True)
class Plan:
    """The settings of every step, as texts."""

    prepare: str
    backbone: str
    source_trainings: list[SourceTraining]
    collect_experts: str
    branches: list[Branch]
    evaluate: str

    def parameters(self) -> dict[str, Any]:
        """The plan as the parameters that the step puts out."""
        return asdict(self)


def make_plan(settings: Settings) -> Plan:
    """The plan of a run. SettingsError, naming the nearest, at a task that there is not."""
    tasks = known_tasks(settings.own_tasks, Path())
    for name in [*settings.tasks.sources, *settings.tasks.targets]:
        get_task(name, tasks)
    # An entry that no list names leaves the step's settings as they are
    own_tasks = settings.listed_own_tasks
    prepare = settings_text(settings, "prepare", own_tasks=own_tasks)
    evaluate = settings_text(settings, "evaluate", own_tasks=own_tasks)
    backbone = settings_text(settings, "backbone")
    sources = [_source(settings, name) for name in settings.tasks.sources]
    experts = {"sources": settings.tasks.sources, "targets": []}  # another target leaves the experts as they are
    collect_experts = settings_text(settings, "collect_experts", tasks=experts)
    common = [git_commit(), prepare, backbone, [asdict(source) for source in sources], collect_experts]
    branches = [
        _branch(settings, target, seed, common)
        for target in settings.tasks.targets
        for seed in dict.fromkeys(settings.transfer_for(target).seeds)
    ]
    return Plan(prepare, backbone, sources, collect_experts, branches, evaluate)


def planned_cells(settings: Settings) -> list[tuple[str, Cell]]:
    """Every cell of the plan, with the key of its branch."""
    return [
        (branch.key, cell)
        for branch in make_plan(settings).branches
        for cell in cells_of(
            branch.target, settings.transfer_for(branch.target).model_copy(update={"seeds": [branch.seed]})
        )
    ]


def _source(settings: Settings, name: str) -> SourceTraining:
    resolved = {"train_source": settings.train_source_for(name), "per_source": {name: {}}}
    return SourceTraining(name, settings_text(settings, "train_source", **resolved))


def _branch(settings: Settings, target: str, seed: int, common: list[Any]) -> Branch:
    resolved = settings.transfer_for(target).model_copy(update={"seeds": [seed]})
    transfer = settings_text(settings, "transfer", transfer=resolved, per_target={target: {}})
    return Branch(target, seed, sha256_of_json([*common, target, transfer]), transfer)
