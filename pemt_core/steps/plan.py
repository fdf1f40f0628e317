"""plan: resolve what every other step reads from params.yaml, its recipe and a run's choices.

On one machine it is the first stage, and writes plan/<step>.json, plan/train_source/<source>.json and
plan/transfer/<target>.json. On a cluster the containers take the same texts as arguments.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pemt_core.artifacts.cell import Cell
from pemt_core.artifacts.files import atomic_directory, sha256_of_json
from pemt_core.errors import SettingsError, nearest
from pemt_core.methods import Method
from pemt_core.provenance.code import code_hash
from pemt_core.provenance.commit import git_commit
from pemt_core.schema.group import Group
from pemt_core.settings import Settings, TrackingSettings
from pemt_core.settings.steps import (
    Backbone,
    CollectExperts,
    Evaluate,
    MethodNaming,
    Prepare,
    Record,
    Register,
    Report,
    StepSettings,
    TrainSource,
    Transfer,
    Transfers,
    as_text,
)
from pemt_core.tasks import JOINT, known_tasks

TRACKING = ("pemt_core.tracking.results", "pemt_core.tracking.comparison")


@dataclass(frozen=True)
class Branch:
    """One seed of one or several targets, which a cluster transfers, evaluates and records in parallel with others."""

    seed: int
    key: str  # hash of all that its cells come from: code, data, backbone, sources, settings
    transfers: list[Transfer]  # of its targets

    @property
    def targets(self) -> list[str]:
        return [each.target for each in self.transfers]


@dataclass(frozen=True)
class Plan:
    """The settings of every step."""

    prepare: Prepare
    backbone: Backbone
    train_source: Mapping[str, TrainSource]  # by source
    collect_experts: CollectExperts
    transfer: Mapping[str, Transfer]  # by target
    evaluate: Evaluate
    record: Record
    register: Register
    report: Report
    tracking: TrackingSettings
    branches: list[Branch]

    @property
    def cells(self) -> list[tuple[str, Cell]]:
        """Every cell, with the key of its branch."""
        return [(branch.key, cell) for branch in self.branches for each in branch.transfers for cell in each.cells]

    @property
    def steps(self) -> dict[str, StepSettings]:
        """The settings of the steps that are one process each."""
        names = ("prepare", "backbone", "collect_experts", "evaluate", "record", "register", "report")
        return {name: getattr(self, name) for name in names}

    @property
    def files(self) -> dict[str, str]:
        """The text of a file for each step, by its path, and of tracking.json, which no result depends on."""
        settings: dict[str, Group] = {**self.steps, "tracking": self.tracking}
        settings |= {f"train_source/{name}": each for name, each in self.train_source.items()}
        settings |= {f"transfer/{name}": Transfers(targets=[each]) for name, each in self.transfer.items()}
        return {f"{name}.json": f"{as_text(each)}\n" for name, each in settings.items()}

    def write(self, directory: Path) -> None:
        """Write the files."""
        with atomic_directory(directory) as folder:
            for name, text in self.files.items():
                path = folder / name
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")

    def reads_as_before(self, directory: Path) -> bool:
        """Whether the plan in `directory` has the same folders and files of the user: their content may be made."""
        texts = {directory / name: self.files[name] for name in ("prepare.json", "collect_experts.json")}
        return all(path.is_file() and path.read_text("utf-8") == text for path, text in texts.items())

    def parameters(self) -> dict[str, Any]:
        """The plan as the output parameters of the step on a cluster."""
        texts = {name: as_text(settings) for name, settings in self.steps.items() if name != "report"}
        trainings = [{"source": name, "settings": as_text(each)} for name, each in self.train_source.items()]
        branches = [
            {
                "targets": json.dumps(branch.targets),
                "seed": branch.seed,
                "key": branch.key,
                "transfer": as_text(Transfers(targets=branch.transfers)),
            }
            for branch in self.branches
        ]
        return {**texts, "tracking": as_text(self.tracking), "source_trainings": trainings, "branches": branches}


def make_plan(settings: Settings, folder: Path, rerun: str = "") -> Plan:
    """Make the plan of a run; paths of the user's tasks are relative to `folder`.

    `rerun` identifies a run that does every step again: the keys of its branches are its alone.

    Raises SettingsError, naming the nearest, if a task is unknown.
    """
    check_tasks(settings, folder)
    tasks = settings.tasks
    prepare = Prepare(
        tasks=[name for name in (*tasks.sources, *tasks.targets) if name != JOINT],
        joined=tasks.joined,
        own_tasks=settings.listed_own_tasks,  # an entry that is in no list changes nothing
        prepare=settings.prepare,
        tokenizer=settings.backbone.of_tokenizer,
        code=code_hash("pemt_core.steps.prepare"),
    )
    backbone = Backbone(backbone=settings.backbone, code=code_hash("pemt_core.steps.backbone"))
    lone_prompts = settings.lone_prompts
    sources = {name: _train_source(settings, name, name in lone_prompts) for name in tasks.sources}
    collect_experts = CollectExperts(
        sources=tasks.sources,
        lone_prompts=lone_prompts,
        imported_sources=settings.imported_sources,
        code=code_hash("pemt_core.steps.collect_experts"),
    )
    transfer = {name: _transfer(settings, name) for name in tasks.targets}
    run = [rerun] if rerun else []
    before = [git_commit(), *run, *map(as_text, (prepare, backbone, *sources.values(), collect_experts))]
    return Plan(
        prepare=prepare,
        backbone=backbone,
        train_source=sources,
        collect_experts=collect_experts,
        transfer=transfer,
        evaluate=Evaluate(
            targets=tasks.targets,
            evaluate=settings.evaluate,
            code=code_hash("pemt_core.steps.evaluate", *_kinds(settings)),
        ),
        tracking=settings.tracking,
        branches=_branches(list(transfer.values()), settings.kubeflow.targets_per_branch, before),
        record=_record(settings),
        register=_register(settings),
        report=_report(settings),
    )


def check_tasks(settings: Settings, folder: Path) -> None:
    """Raise SettingsError, naming the nearest, if a task is unknown."""
    known = known_tasks(settings.own_tasks, folder, settings.prepare.label_words)
    for key, names in settings.tasks:
        for name in names:
            if name not in known and name != JOINT:
                raise SettingsError(f"tasks.{key}: there is no task '{name}': {nearest(name, known)}")


def _train_source(settings: Settings, name: str, with_prompt: bool) -> TrainSource:
    return TrainSource(
        source=name,
        train_source=settings.train_source_for(name),
        prompt=settings.lone_prompt_for(name) if with_prompt else None,
        answer=settings.evaluate.answer,
        code=code_hash("pemt_core.steps.train_source"),
    )


def _transfer(settings: Settings, name: str) -> Transfer:
    methods, cells = settings.methods_for(name), settings.transfer_for(name)
    return Transfer(
        target=name,
        methods={method: value.model_dump() for method, value in methods.items()},
        k=list(dict.fromkeys(cells.k)),
        seeds=list(dict.fromkeys(cells.seeds)),
        answer=settings.evaluate.answer,
        group=cells.group,
        code=code_hash("pemt_core.steps.transfer", *_code_of(methods)),
    )


def _branches(transfers: Sequence[Transfer], most_targets: int, before: list[str]) -> list[Branch]:
    """Up to `most_targets` targets each, all with the same seed."""
    branches = []
    for first in range(0, len(transfers), most_targets):
        several = transfers[first : first + most_targets]
        for seed in dict.fromkeys(seed for each in several for seed in each.seeds):
            alone = [each.model_copy(update={"seeds": [seed]}) for each in several if seed in each.seeds]
            branches.append(Branch(seed, sha256_of_json([*before, *map(as_text, alone)]), alone))
    return branches


def _record(settings: Settings) -> Record:
    return Record(
        sources=settings.tasks.sources,
        targets=settings.tasks.targets,
        methods=_namings(settings),
        report=settings.report,
        evaluate=settings.evaluate,
        code=code_hash("pemt_core.steps.record", *TRACKING),
    )


def _register(settings: Settings) -> Register:
    return Register(
        targets=settings.tasks.targets,
        own_tasks=settings.listed_own_tasks,
        methods=list(_namings(settings)),
        models=settings.models,
        batch_size=settings.evaluate.batch_size,
        prefix=settings.tracking.experiment,
        code=code_hash("pemt_core.steps.register", "pemt_core.tracking.models", *_kinds(settings)),
    )


def _report(settings: Settings) -> Report:
    return Report(
        sources=settings.tasks.sources,
        targets=settings.tasks.targets,
        methods=_namings(settings),
        prepare=settings.prepare,
        backbone=settings.backbone,
        report=settings.report,
        code=code_hash("pemt_core.steps.report"),
    )


def _namings(settings: Settings) -> dict[str, MethodNaming]:
    """The methods of all targets, in the order of the group `methods`."""
    listed = {name for target in settings.tasks.targets for name in settings.methods_for(target)}
    methods = {name: settings.method(name) for name in settings.methods if name in listed}
    return {
        name: MethodNaming(title=method.title if name == method.kind else name, about=method.about(settings.sources))
        for name, method in methods.items()
    }


def _kinds(settings: Settings) -> list[str]:
    """The code of the methods of all targets."""
    code = [part for target in settings.tasks.targets for part in _code_of(settings.methods_for(target))]
    return list(dict.fromkeys(code))


def _code_of(methods: Mapping[str, Method]) -> list[str]:
    return list(dict.fromkeys(part for method in methods.values() for part in method.code))
