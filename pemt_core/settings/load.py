"""Read and check params.yaml and its recipes.

The files are YAML 1.2, as DVC reads them. `recipe` names a file in the folder `recipes` next to params.yaml, whose
differences are merged over the groups.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from pemt_core.errors import SettingsError, cut, nearest, shown
from pemt_core.schema.group import Group
from pemt_core.schema.json_values import parse_object
from pemt_core.schema.numbers import FewShot, Seed
from pemt_core.schema.validation import holds, merged, validate
from pemt_core.schema.yaml_values import read_yaml
from pemt_core.settings.groups import STEPS
from pemt_core.settings.settings import Settings
from pemt_core.tasks import JOINT, TASKS
from pemt_core.training.settings import TrainingSettings

RECIPE_GROUPS = ("methods", "prepare", "backbone", "train_source", "transfer", "evaluate", "per_source", "per_target")
RECIPES = "recipes"  # the folder, and the key of its files in the result of `read_params`
TRAINING, OF_TRAINING = "training", ("backbone", "train_source", "transfer")  # shared settings, and their groups
EVERY_STEP = "every_step"
ENDING = ".yaml"  # of recipes and experiments


@dataclass(frozen=True)
class Layer:
    """Groups of settings in a file; below the key `within`, unless they are the whole file."""

    file: str
    values: Mapping[str, Any]
    within: tuple[str, ...] = ()

    def check(self, groups: Sequence[str]) -> None:
        """Raise SettingsError if a key is none of `groups`, or its value is not a mapping."""
        for group, differences in self.values.items():
            key = ".".join([*self.within, group])
            if group not in groups:
                raise SettingsError(f"{self.file}: {key}: no such group; {nearest(group, groups)}")
            if not isinstance(differences, Mapping):
                found = type(differences).__name__
                raise SettingsError(f"{self.file}: {key}: expected a group of settings, found {found}")


class Choices(Group):
    """Choices of a run that override params.yaml; an absent, null or empty choice keeps its value.

    `k` and `seeds` of a task in `per_target` are not overridden.
    """

    recipe: str | None = None
    sources: list[str] = Field(default_factory=list)
    targets: list[str] = Field(default_factory=list)
    k: list[FewShot] = Field(default_factory=list)
    seeds: list[Seed] = Field(default_factory=list)

    @field_validator("sources", "targets", "k", "seeds", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        return [] if value is None else value

    def laid_over(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Merge these choices over params.yaml; `k` and `seeds` take precedence over the recipe's."""
        recipe = self.recipe or values.get("recipe")
        tasks = {name: names for name, names in (("sources", self.sources), ("targets", self.targets)) if names}
        cells = {"transfer": {name: listed for name, listed in (("k", self.k), ("seeds", self.seeds)) if listed}}
        recipes = {recipe: cells} if isinstance(recipe, str) and recipe in values.get(RECIPES, {}) else {}
        return merged(values, {"recipe": recipe, "tasks": tasks, **cells, RECIPES: recipes})


def load_settings(path: Path) -> Settings:
    """Read and check params.yaml. Raises SettingsError naming the file, the key, the value and what was expected."""
    return parse_settings(read_params(path), str(path))


def parse_run(text: str, origin: str = "--run") -> Settings:
    """Parse a cluster run's settings: a JSON object with `params`, as `read_params` returns them, and `choices`."""
    values = parse_object(text, origin)
    try:
        params, choices = values["params"], values["choices"]
    except KeyError as error:
        raise SettingsError(f"{origin}: key {error} is missing; expected params and choices") from error
    _check_groups({"params": params}, origin)
    _check_groups({f"params.{RECIPES}": params.get(RECIPES, {})}, origin)
    _check_groups({f"params.{RECIPES}.{name}": recipe for name, recipe in params.get(RECIPES, {}).items()}, origin)
    return parse_settings(validate(Choices, choices, origin).laid_over(params), origin)


def _check_groups(values: Mapping[str, Any], origin: str) -> None:
    for name, value in values.items():
        if not isinstance(value, Mapping):
            raise SettingsError(f"{origin}: key '{name}' is {shown(value)}: expected a group of settings")


def read_params(path: Path) -> dict[str, Any]:
    """Read params.yaml, and under the key `recipes` the files of that folder, without checks."""
    values, folder = read_groups(path), Path(path).parent / RECIPES
    if RECIPES in values:
        raise SettingsError(f"{path}: unknown key '{RECIPES}'; a recipe is a file {folder}/<name>.yaml")
    name, ignored = values.get("recipe"), misnamed_files(folder, folder)
    if isinstance(name, str) and name in ignored:
        raise SettingsError(f"{path}: recipe '{name}': {ignored[name]}")
    return {**values, RECIPES: {file.stem: read_groups(file) for file in settings_files(folder)}}


def parse_settings(values: Mapping[str, Any], origin: str) -> Settings:
    """Check the content of params.yaml and its recipes, as `read_params` returns it; `origin` names it in errors."""
    name, recipes = values.get("recipe"), values.get(RECIPES, {})
    chosen = [recipe_layer(name, recipes, origin)] if isinstance(name, str) else []
    return parse_layers([Layer(origin, {key: value for key, value in values.items() if key != RECIPES}), *chosen])


def parse_layers(layers: Sequence[Layer]) -> Settings:
    """Check the groups of the layers, each merged over those before it. Errors name the layer that has the key."""
    layered: dict[str, Any] = {}
    for layer in layers:
        layered = merged(layered, layer.values)

    def layer_of(location: Sequence[str]) -> Layer:
        return next((layer for layer in reversed(layers) if holds(layer.values, location)), layers[0])

    def placed(location: Sequence[str]) -> tuple[str, str]:
        """Return the file that has a key, and the key as the user wrote it."""
        location = _as_written(location, layered)
        layer = layer_of(location)
        return layer.file, ".".join([*layer.within, *location])

    @contextmanager
    def problems_of(*location: str) -> Iterator[None]:
        """Prefix errors about a key with the file that has it."""
        try:
            yield
        except SettingsError as error:
            raise SettingsError(f"{layer_of(location).file}: {error}") from error

    origin = layers[0].file
    settings = validate(Settings, _completed(layered, origin), origin, placed)
    _check(settings, problems_of)
    return settings


def read_groups(path: Path) -> dict[str, Any]:
    """Read a file of groups, without checks. Raises SettingsError if it is unreadable or not a mapping."""
    values = read_yaml(path)
    if values is None:  # comments alone
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: expected groups of settings, found {type(values).__name__}")
    return values


def settings_files(folder: Path) -> list[Path]:
    """List the recipes or experiments in a folder; hidden files, as editors leave there, are none."""
    return [file for file in _yaml_files(folder) if file.suffix == ENDING]


def misnamed_files(folder: Path, shown: Path | str) -> dict[str, str]:
    """What to do with files that are ignored because their ending is .yml or in capitals, by their stems.

    `shown` is the folder in these messages. A file beside one of the right ending is left out.
    """
    taken = {file.stem for file in settings_files(folder)}
    misnamed = [file for file in _yaml_files(folder) if file.stem not in taken]
    return {file.stem: f"{shown}/{file.name} is ignored; rename it to {file.stem}{ENDING}" for file in misnamed}


def _yaml_files(folder: Path) -> list[Path]:
    files = sorted(folder.iterdir()) if folder.exists() else []
    return [file for file in files if file.suffix.lower() in (ENDING, ".yml") and not file.name.startswith(".")]


def recipe_layer(name: str, recipes: Mapping[str, Any], origin: str) -> Layer:
    """Return the differences of a recipe. Raises SettingsError if there is none of this name, or it has other keys."""
    if name not in recipes:
        hint = nearest(name, recipes) if recipes else f"{RECIPES}/ has no files"
        short = cut(name)
        raise SettingsError(f"{origin}: recipe '{short}': there is no {RECIPES}/{short}.yaml; {hint}")
    layer = Layer(f"{RECIPES}/{name}.yaml", recipes[name])
    layer.check(RECIPE_GROUPS)
    return layer


def _completed(values: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Merge each training, and each step's container resources, over the shared settings."""

    def shared(group: dict[str, Any], key: str, name: str) -> dict[str, Any]:
        found = group.pop(key, {})
        if not isinstance(found, Mapping):
            raise SettingsError(f"{origin}: key '{name}' is {shown(found)}: expected a group of settings")
        return dict(found)

    completed = dict(values)
    training = shared(completed, TRAINING, TRAINING)
    for group in OF_TRAINING:
        if isinstance(completed.get(group), Mapping):
            completed[group] = merged({TRAINING: training}, completed[group])
    kubeflow = completed.get("kubeflow")
    if isinstance(kubeflow, Mapping) and isinstance(kubeflow.get("resources"), Mapping):
        steps = dict(kubeflow["resources"])
        every_step = shared(steps, EVERY_STEP, f"kubeflow.resources.{EVERY_STEP}")
        below = dict.fromkeys((*STEPS, *steps), every_step)
        completed["kubeflow"] = {**kubeflow, "resources": merged(below, steps)}
    return completed


def _as_written(location: Sequence[str], values: Mapping[str, Any]) -> Sequence[str]:
    """Map a key of completed settings to the key in `values`, which may be in a shared group."""
    group, *rest = location
    if holds(values, location):
        return location
    if group in OF_TRAINING and rest[:1] == [TRAINING] and len(rest) > 1:
        return rest if holds(values, rest) or rest[1] in TrainingSettings.model_fields else location
    if group == "kubeflow" and rest[:1] == ["resources"]:
        return [group, "resources", EVERY_STEP, *rest[2:]]
    return location


def _check(settings: Settings, problems_of: Callable[..., AbstractContextManager[None]]) -> None:
    """Check across groups: names of steps, and references between tasks, sources and methods."""
    for name in settings.imported_sources:
        with problems_of("imported_sources", name):
            if name == JOINT:
                raise SettingsError(f"imported_sources.{name}: tasks.sources has this name for all sources together")
            if name in settings.tasks.sources:
                raise SettingsError(f"imported_sources.{name}: a source task has this name; choose another")
    for step in settings.kubeflow.resources:
        with problems_of("kubeflow", "resources", step):
            if step not in STEPS:
                raise SettingsError(f"kubeflow.resources.{step}: there is no such step; {nearest(step, STEPS)}")
    experiment = settings.tracking.experiment
    if settings.models.enabled and re.search("[/:]", experiment):
        with problems_of("tracking", "experiment"):
            raise SettingsError(
                f"tracking.experiment is '{experiment}': names of registered models begin with it, and cannot have "
                "/ or :; choose another name, or set models.enabled to false"
            )
    with problems_of("train_source", "prompt", "training"):
        settings.train_source.of_prompt("train_source")
    tasks = {*TASKS, *settings.own_tasks}
    for group, differences, known, settings_for in (
        ("per_source", settings.per_source, {*tasks, JOINT}, settings.lone_prompt_for),
        ("per_target", settings.per_target, tasks, settings.transfer_for),
    ):
        for task in differences:
            with problems_of(group, task):
                if task not in known:
                    raise SettingsError(f"{group}.{task}: there is no such task; {nearest(task, known)}")
                settings_for(task)
    for name in settings.methods:
        with problems_of("methods", name):
            settings.method(name)
    for task in dict.fromkeys([*settings.tasks.targets, *settings.per_target]):
        with problems_of(*settings.lists_methods_of(task)):
            methods = settings.methods_for(task)
        for name, method in methods.items() if task in settings.tasks.targets else ():
            with problems_of("methods", name):
                settings.lone_prompts_of(name, method)
