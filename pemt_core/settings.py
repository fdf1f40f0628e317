"""params.yaml as typed values. It is the only home of numbers: nothing here has a default.

The file is read as YAML 1.2, as DVC reads it. `recipe` names a group of `recipes` whose differences are laid over the
step groups. Every recipe is checked, not only the chosen one.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML, YAMLError

from pemt_core.artifacts.cell import methods_over
from pemt_core.errors import SettingsError, nearest

RECIPE_GROUPS = ("prepare", "backbone", "train_source", "transfer", "evaluate", "per_source", "per_target")

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Bound = Count | None
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Precision = Literal["float32", "bfloat16"]
SelectBy = Literal["mean", "main"]
PromptInit = Literal["vocab", "normal"]


class Group(BaseModel):
    """A group of settings: unknown, missing and ill-typed keys are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class TaskSettings(Group):
    sources: list[str]
    targets: list[str]

    @model_validator(mode="after")
    def _distinct(self) -> "TaskSettings":
        for name, tasks in (("sources", self.sources), ("targets", self.targets)):
            repeated = {task for task in tasks if tasks.count(task) > 1}
            if repeated:
                raise ValueError(f"{name} lists {sorted(repeated)} more than once")
        return self


class PrepareSettings(Group):
    source: str
    embedded_seed: Annotated[int, Field(ge=0)]
    split_seed: Seed
    max_train_rows: Bound
    max_validation_rows: Bound
    max_test_rows: Bound
    corpus_rows_per_task: Count
    plain_texts: Annotated[int, Field(ge=0)]


class TrainingSettings(Group):
    """What the training loop needs, whatever it trains."""

    batch_size: Count
    gradient_accumulation: Count
    epochs: Count
    max_steps: Bound
    warmup_steps: Annotated[int, Field(ge=0)]
    max_grad_norm: Rate
    precision: Precision
    evaluate_every: Literal["epoch"] | Count
    validation_rows: Bound
    early_stop: Bound
    checkpoint_every: Count


class FixedRateTraining(TrainingSettings):
    learning_rate: Rate


class BackboneSettings(Group):
    kind: Literal["hub", "scratch"]
    name: str
    revision: str
    size: Literal["nano", "tiny", "mini", "small"]
    tokenizer: str
    vocab_size: Annotated[int, Field(ge=300)]
    dropout: Fraction
    noise_density: Annotated[float, Field(gt=0, lt=1)]
    mean_span_length: Annotated[float, Field(ge=1)]
    continuation_share: Annotated[float, Field(ge=0, le=1)]
    packed: bool
    length: Annotated[int, Field(ge=8)]
    seed: Seed
    training: FixedRateTraining


class TrainSourceSettings(Group):
    seed: Seed
    rank: Count
    alpha: Rate
    init: Literal["zero", "kaiming"]
    prompt_init: PromptInit
    source_length: Count
    select_by: SelectBy
    training: FixedRateTraining

    @property
    def scale(self) -> float:
        """s = alpha / R."""
        return self.alpha / self.rank


class TransferSettings(Group):
    methods: Annotated[list[str], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    k: Annotated[list[Literal["full"] | Count], Field(min_length=1)]
    rare_class: Literal["error", "all"]
    reduction_factor: Count
    prompt_init: PromptInit
    prompt_dropout: Fraction
    sparsity_coefficient: Annotated[float, Field(ge=0)]
    sparsity_positions: Literal["all", "unpadded"]
    source_length: Count
    select_by: SelectBy
    learning_rates: Annotated[list[Rate], Field(min_length=1)]
    training: TrainingSettings


class EvaluateSettings(Group):
    batch_size: Count
    precision: Precision
    max_rows: Bound


class ReportSettings(Group):
    confidence: Annotated[float, Field(gt=0, lt=1)]
    layer_groups: Count


class TrackingSettings(Group):
    uri: str
    experiment: str
    on_unreachable: Literal["stop", "continue"]


class Settings(Group):
    """The whole of params.yaml with the chosen recipe laid over it."""

    recipe: str
    tasks: TaskSettings
    prepare: PrepareSettings
    backbone: BackboneSettings
    train_source: TrainSourceSettings
    transfer: TransferSettings
    per_source: dict[str, dict[str, Any]]
    per_target: dict[str, dict[str, Any]]
    evaluate: EvaluateSettings
    report: ReportSettings
    tracking: TrackingSettings
    recipes: dict[str, dict[str, dict[str, Any]]]

    def train_source_for(self, task: str) -> TrainSourceSettings:
        """`train_source` with what `per_source` says of one source task."""
        return _with_differences(self.train_source, self.per_source, "per_source", task)

    def transfer_for(self, task: str) -> TransferSettings:
        """`transfer` with what `per_target` says of one target task."""
        return _with_differences(self.transfer, self.per_target, "per_target", task)


GroupType = TypeVar("GroupType", TrainSourceSettings, TransferSettings)


def load_settings(path: Path) -> Settings:
    """Read and check params.yaml. Raises SettingsError naming the file, the key, the value and what was expected."""
    try:
        values = YAML(typ="safe", pure=True).load(Path(path))
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: no such file") from error
    except YAMLError as error:
        raise SettingsError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: expected groups of settings, found {type(values).__name__}")
    return parse_settings(values, str(path))


def parse_settings(values: Mapping[str, Any], origin: str) -> Settings:
    """Check `values` (the content of params.yaml); `origin` names it in errors."""
    plain = _validate(Settings, values, origin)
    known = list(plain.per_source)  # a recipe that is not chosen may leave out sources that are not listed
    # The plain file first: DVC looks for the lines of `per_source` and `per_target` in the file itself
    _check_per_task(plain, known, origin)
    for name, recipe in plain.recipes.items():
        _check_recipe(name, recipe, plain, origin)
        laid_over = f"{origin} with recipe {name}"
        _check_per_task(_validate(Settings, _overlaid(values, recipe), laid_over), known, laid_over)
    if plain.recipe not in plain.recipes:
        raise SettingsError(
            f"{origin}: recipe '{plain.recipe}' is not in recipes; {nearest(plain.recipe, plain.recipes)}"
        )
    chosen = _validate(Settings, _overlaid(values, plain.recipes[plain.recipe]), origin)
    _check_per_task(chosen, chosen.tasks.sources, origin)
    return chosen


def _with_differences(
    settings: GroupType, differences: Mapping[str, Mapping[str, Any]], group: str, task: str
) -> GroupType:
    if task not in differences:  # DVC depends on <group>.<task>, and a parameter that is not there is an error to it
        raise SettingsError(
            f"{group} lacks '{task}' ({nearest(task, differences)}); where nothing differs write `{task}: {{}}`"
        )
    return _validate(type(settings), _merged(settings.model_dump(), differences[task]), f"{group}.{task}")


def _check_recipe(name: str, recipe: Mapping[str, Any], plain: Settings, origin: str) -> None:
    for group in recipe:
        if group not in RECIPE_GROUPS:
            raise SettingsError(f"{origin}: recipes.{name}.{group}: no such step; {nearest(group, RECIPE_GROUPS)}")
    absent = [group for group in RECIPE_GROUPS if group not in recipe]
    per_task = (
        ("per_source", plain.per_source, plain.tasks.sources),
        ("per_target", plain.per_target, plain.tasks.targets),
    )
    for group, lines, listed in per_task:
        absent += [f"{group}.{task}" for task in listed if task not in recipe.get(group, {})]
        for task in recipe.get(group, {}):
            if task not in lines:
                raise SettingsError(f"{origin}: recipes.{name}.{group}.{task}: no such task; {nearest(task, lines)}")
    if absent:  # DVC depends on recipes.<recipe>.<group>, and a parameter that is not there is an error to it
        raise SettingsError(f"{origin}: recipes.{name} lacks '{absent[0]}'; where nothing differs write `{{}}` there")


def _check_per_task(settings: Settings, sources: list[str], origin: str) -> None:
    """Each listed task has its line, each line names known settings, and methods leave out only some of `sources`."""
    try:
        _check_methods(settings.transfer.methods, sources, "transfer.methods")
        for task in sorted({*settings.tasks.sources, *settings.per_source}):
            settings.train_source_for(task)
        for task in sorted({*settings.tasks.targets, *settings.per_target}):
            _check_methods(settings.transfer_for(task).methods, sources, f"per_target.{task}.methods")
    except SettingsError as error:
        raise SettingsError(f"{origin}: {error}") from error


def _check_methods(methods: list[str], sources: list[str], key: str) -> None:
    choices = methods_over(sources)
    for place, method in enumerate(methods):
        if method not in choices:
            raise SettingsError(f"key '{key}.{place}' is {method!r}: no such method; {nearest(method, choices)}")


def _overlaid(values: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    return _merged(values, {group: recipe[group] for group in RECIPE_GROUPS if group in recipe})


def _merged(values: Mapping[str, Any], differences: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in differences.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


ModelType = TypeVar("ModelType", bound=BaseModel)


def _validate(model: type[ModelType], values: Mapping[str, Any], origin: str) -> ModelType:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        lines = [_line(model, problem) for problem in error.errors()]
        raise SettingsError(f"{origin}: " + "; ".join(dict.fromkeys(lines))) from error


def _line(model: type[BaseModel], problem: Any) -> str:
    """One problem as a user reads it: the key, what is wrong, the value, the nearest valid key."""
    location = [str(part) for part in problem["loc"]]
    key = ".".join(part for part in location if not part.startswith(("literal[", "constrained-", "function-")))
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'; {nearest(location[-1], _fields_at(model, location[:-1]))}"
    if problem["type"] == "missing":
        siblings = problem["input"] if isinstance(problem["input"], dict) else {}
        unknown = set(siblings) - set(_fields_at(model, location[:-1]))
        match = difflib.get_close_matches(location[-1], unknown, n=1)
        return f"key '{key}' is missing" + (f"; is '{match[0]}' meant for it?" if match else "")
    return f"key '{key}' is {problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}"


def _fields_at(model: type[BaseModel], location: list[str]) -> list[str]:
    for part in location:
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
