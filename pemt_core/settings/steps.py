"""What each step reads, resolved: one JSON text a step, in plan/<step>.json and as the argument of a container.

A text holds what reaches the step's result and nothing else, and a hash of the code that it depends on: while it stays
the same, DVC and Kubeflow reuse the result.
"""

import json
from pathlib import Path
from typing import Any, TypeVar

from pemt_core.answering.rule import AnswerRule
from pemt_core.artifacts.cell import Cell
from pemt_core.errors import SettingsError
from pemt_core.methods import Method, stored_method
from pemt_core.schema.group import Group
from pemt_core.schema.numbers import Count, FewShot, Name, Seed
from pemt_core.schema.validation import parse_object, validate
from pemt_core.settings.groups import (
    BackboneSettings,
    EvaluateSettings,
    ImportedSource,
    ModelSettings,
    PrepareSettings,
    ReportSettings,
    TokenizerSettings,
    TrainSourceSettings,
)
from pemt_core.settings.settings import cells_of
from pemt_core.tasks.entry import OwnTask

StepType = TypeVar("StepType", bound=Group)


class StepSettings(Group):
    """What one step reads."""

    code: str  # hash of the code that the step's result depends on


class Prepare(StepSettings):
    tasks: list[str]  # in the order in which they are prepared
    own_tasks: dict[str, OwnTask]
    prepare: PrepareSettings
    tokenizer: TokenizerSettings


class Backbone(StepSettings):
    backbone: BackboneSettings


class TrainSource(StepSettings):
    source: str
    train_source: TrainSourceSettings
    answer: AnswerRule


class CollectExperts(StepSettings):
    sources: list[str]
    imported_sources: dict[Name, ImportedSource]


class Transfer(StepSettings):
    """The cells of one target."""

    target: str
    methods: dict[Name, dict[str, Any]]  # by name, each with all settings of its kind
    k: list[FewShot]
    seeds: list[Seed]
    answer: AnswerRule

    @property
    def cells(self) -> list[Cell]:
        return cells_of(self.target, list(self.methods), self.k, self.seeds)

    def method(self, name: str) -> Method:
        return stored_method(self.methods[name], f"methods.{name}")


class Evaluate(StepSettings):
    targets: list[str]
    evaluate: EvaluateSettings


class MethodNaming(Group):
    """How reports call a method, and what explains it."""

    title: str
    about: str


class Record(StepSettings):
    sources: list[str]
    targets: list[str]
    methods: dict[Name, MethodNaming]  # the first one leads reports
    report: ReportSettings
    evaluate: EvaluateSettings  # by which a run's results are found again


class Register(StepSettings):
    targets: list[str]
    own_tasks: dict[str, OwnTask]
    methods: list[Name]  # of cells that are equally good the first one's is taken
    models: ModelSettings
    batch_size: Count
    prefix: str


class Report(StepSettings):
    sources: list[str]
    targets: list[str]
    methods: dict[Name, MethodNaming]
    prepare: PrepareSettings
    backbone: BackboneSettings
    report: ReportSettings


def as_text(settings: Group) -> str:
    """As one JSON text; equal values give equal texts. Keys stay in their order, which is that of the experts."""
    return json.dumps(settings.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))


def read_step(kind: type[StepType], given: str, step: str) -> StepType:
    """The settings of a step from their text, or from the file that `given` names. SettingsError as `load_settings`."""
    if given.lstrip().startswith("{"):
        return validate(kind, parse_object(given, f"the settings of {step}"), f"the settings of {step}")
    return validate(kind, parse_object(_content(Path(given)), given), given)


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: no such file; `dvc repro plan` writes it") from error
