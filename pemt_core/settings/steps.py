"""The resolved settings of each step: one JSON text, in plan/<step>.json and as the argument of a container.

The text has only what affects the step's result, and a hash of the code that the result depends on: while it stays the
same, DVC and Kubeflow reuse the result.
"""

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field

from pemt_core.answering.rule import AnswerRule
from pemt_core.artifacts.cell import Cell
from pemt_core.errors import SettingsError
from pemt_core.methods import Method, stored_method
from pemt_core.schema.group import Group
from pemt_core.schema.json_values import MOST_BYTES, parse_object
from pemt_core.schema.numbers import Count, FewShot, Name, Seed
from pemt_core.schema.validation import validate
from pemt_core.schema.values import read_text
from pemt_core.settings.groups import (
    BackboneSettings,
    EvaluateSettings,
    ModelSettings,
    PrepareSettings,
    ReportSettings,
    TokenizerSettings,
)
from pemt_core.settings.settings import cells_of
from pemt_core.settings.sources import ImportedSource, LonePromptSettings, TrainSourceSettings
from pemt_core.tasks.entry import OwnTask
from pemt_core.training.settings import FixedRateTraining, GroupRows

StepType = TypeVar("StepType", bound=Group)


class StepSettings(Group):
    """The settings of one step."""

    code: str  # hash of the code that the step's result depends on


class Prepare(StepSettings):
    tasks: list[str]  # in the order of preparation
    joined: list[str] = Field(default_factory=list)  # of these, those that make up the source `joint`
    own_tasks: dict[str, OwnTask]
    prepare: PrepareSettings
    tokenizer: TokenizerSettings


class Backbone(StepSettings):
    backbone: BackboneSettings


class TrainSource(StepSettings):
    source: str
    train_source: TrainSourceSettings
    prompt: LonePromptSettings | None = None  # None: no listed method reads a prompt that was trained alone

    @property
    def trainings(self) -> list[FixedRateTraining]:
        """Of the adapter, and of the prompt that is trained alone."""
        return [self.train_source.training, *([self.prompt.training] if self.prompt else [])]

    answer: AnswerRule


class CollectExperts(StepSettings):
    sources: list[str]
    lone_prompts: list[str] = Field(default_factory=list)  # the sources that have a prompt trained alone
    imported_sources: dict[Name, ImportedSource]


class Transfer(StepSettings):
    """The cells of one target."""

    target: str
    methods: dict[Name, dict[str, Any]]  # by name, each with all settings of its kind
    k: list[FewShot]
    seeds: list[Seed]
    answer: AnswerRule
    group: GroupRows

    @property
    def cells(self) -> list[Cell]:
        return cells_of(self.target, list(self.methods), self.k, self.seeds)

    def method(self, name: str) -> Method:
        return stored_method(self.methods[name], f"methods.{name}")


class Transfers(Group):
    """The cells of one or several targets, which a process trains."""

    targets: list[Transfer] = Field(min_length=1)


class Evaluate(StepSettings):
    targets: list[str]
    evaluate: EvaluateSettings


class MethodNaming(Group):
    """A method's name in reports, and its explanation."""

    title: str
    about: str


class Record(StepSettings):
    sources: list[str]
    targets: list[str]
    methods: dict[Name, MethodNaming]  # the first leads reports
    report: ReportSettings
    evaluate: EvaluateSettings  # identifies a run's results


class Register(StepSettings):
    targets: list[str]
    own_tasks: dict[str, OwnTask]
    methods: list[Name]  # the first wins a tie between cells
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
    """Serialise settings as JSON; equal values give equal texts. The order of keys, which experts follow, is kept."""
    return json.dumps(settings.model_dump(mode="json"), ensure_ascii=False, separators=(",", ":"))


def read_step(kind: type[StepType], given: str, step: str) -> StepType:
    """Read a step's settings from JSON or the file that `given` names. Raises SettingsError as `load_settings` does."""
    if given.lstrip().startswith("{"):
        return validate(kind, parse_object(given, f"the settings of {step}"), f"the settings of {step}")
    if not given.strip():
        raise SettingsError(f"the settings of {step} are empty: expected a file that plan wrote, or its content")
    text = read_text(Path(given), MOST_BYTES, "; `dvc repro plan` writes it")
    return validate(kind, parse_object(text, given), given)
