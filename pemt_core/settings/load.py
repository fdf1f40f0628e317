"""params.yaml and its recipes, read and checked.

The files are read as YAML 1.2, as DVC reads them. `recipe` names a file of the folder `recipes` beside params.yaml,
whose differences are laid over the groups.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator
from ruamel.yaml import YAML, YAMLError

from pemt_core.errors import SettingsError, nearest
from pemt_core.schema.group import Group
from pemt_core.schema.numbers import FewShot, Seed
from pemt_core.schema.validation import merged, parse_object, validate
from pemt_core.settings.groups import STEPS
from pemt_core.settings.settings import Settings
from pemt_core.tasks import TASKS

RECIPE_GROUPS = ("methods", "prepare", "backbone", "train_source", "transfer", "evaluate", "per_source", "per_target")
RECIPES = "recipes"  # the folder, and the key that its files have in what `read_params` returns
TRAINING, OF_TRAINING = "training", ("backbone", "train_source", "transfer")  # shared settings, and who has them
EVERY_STEP = "every_step"


class Choices(Group):
    """What a run chooses over params.yaml. Absent, null and empty: as params.yaml has it.

    `k` and `seeds` that `per_target` has for one task stay as they are.
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
        """The content of params.yaml with these choices; `k` and `seeds` go before those of the recipe."""
        recipe = self.recipe or values.get("recipe")
        tasks = {name: names for name, names in (("sources", self.sources), ("targets", self.targets)) if names}
        cells = {"transfer": {name: listed for name, listed in (("k", self.k), ("seeds", self.seeds)) if listed}}
        recipes = {recipe: cells} if recipe in values.get(RECIPES, {}) else {}
        return merged(values, {"recipe": recipe, "tasks": tasks, **cells, RECIPES: recipes})


def load_settings(path: Path) -> Settings:
    """Read and check params.yaml. Raises SettingsError naming the file, the key, the value and what was expected."""
    return parse_settings(read_params(path), str(path))


def parse_run(text: str, origin: str = "--run") -> Settings:
    """The settings of a run on a cluster: a JSON object with `params`, as `read_params` returns them, and `choices`."""
    values = parse_object(text, origin)
    try:
        params, choices = values["params"], values["choices"]
    except KeyError as error:
        raise SettingsError(f"{origin}: key {error} is missing; expected params and choices") from error
    return parse_settings(validate(Choices, choices, origin).laid_over(params), origin)


def read_params(path: Path) -> dict[str, Any]:
    """The content of params.yaml, and under the key `recipes` that of the files beside it, unchecked."""
    values, folder = _read(path), Path(path).parent / RECIPES
    if RECIPES in values:
        raise SettingsError(f"{path}: unknown key '{RECIPES}'; a recipe is a file {folder}/<name>.yaml")
    return {**values, RECIPES: {file.stem: _read(file) for file in sorted(folder.glob("*.yaml"))}}


def parse_settings(values: Mapping[str, Any], origin: str) -> Settings:
    """Check the content of params.yaml and its recipes, as `read_params` returns it; `origin` names it in errors."""
    plain = {key: value for key, value in values.items() if key != RECIPES}
    name, recipes = plain.get("recipe"), values.get(RECIPES, {})
    recipe = _recipe(name, recipes, origin) if isinstance(name, str) else {}
    layered = merged(plain, recipe)

    def named(location: Sequence[str]) -> str:
        """The key as the user wrote it, with the recipe's file before it where the recipe did."""
        group, *rest = location
        if group in OF_TRAINING and rest[:1] == [TRAINING] and not _holds(layered, location):
            location = rest
        if group == "kubeflow" and rest[:1] == ["resources"] and not _holds(layered, location):
            location = [group, "resources", EVERY_STEP, *rest[2:]]
        return f"{RECIPES}/{name}.yaml: {'.'.join(location)}" if _holds(recipe, location) else ".".join(location)

    settings = validate(Settings, _completed(layered), origin, named)
    _check(settings, origin)
    return settings


def _read(path: Path) -> dict[str, Any]:
    try:
        values = YAML(typ="safe", pure=True).load(Path(path))
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: no such file") from error
    except (YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not readable as YAML: {error}") from error
    if values is None:  # comments alone
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: expected groups of settings, found {type(values).__name__}")
    return values


def _recipe(name: str, recipes: Mapping[str, Any], origin: str) -> Mapping[str, Any]:
    """The differences of the chosen recipe."""
    if name not in recipes:
        hint = nearest(name, recipes) if recipes else f"there is no file in {RECIPES}/"
        raise SettingsError(f"{origin}: recipe '{name}': there is no {RECIPES}/{name}.yaml; {hint}")
    recipe: Mapping[str, Any] = recipes[name]
    for group, differences in recipe.items():
        if group not in RECIPE_GROUPS:
            raise SettingsError(f"{RECIPES}/{name}.yaml: {group}: no such group; {nearest(group, RECIPE_GROUPS)}")
        if not isinstance(differences, Mapping):
            found = type(differences).__name__
            raise SettingsError(f"{RECIPES}/{name}.yaml: {group}: expected settings that differ, found {found}")
    return recipe


def _completed(values: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with shared settings laid below those of each training and of each step's container."""
    completed = dict(values)
    shared = completed.pop(TRAINING, {})
    for group in OF_TRAINING:
        if isinstance(completed.get(group), Mapping) and isinstance(shared, Mapping):
            completed[group] = merged({TRAINING: dict(shared)}, completed[group])
    kubeflow = completed.get("kubeflow")
    if isinstance(kubeflow, Mapping) and isinstance(kubeflow.get("resources"), Mapping):
        steps = dict(kubeflow["resources"])
        every_step = steps.pop(EVERY_STEP, {})
        below = dict.fromkeys((*STEPS, *steps), every_step)
        completed["kubeflow"] = {**kubeflow, "resources": merged(below, steps)}
    return completed


def _holds(values: Any, location: Sequence[str]) -> bool:
    """Whether nested `values` have a key at `location`, or at the part of it that is a mapping."""
    for part in location:
        if not isinstance(values, Mapping):
            return True
        if part not in values:
            return False
        values = values[part]
    return True


def _check(settings: Settings, origin: str) -> None:
    """What no single group shows: names of steps, and of tasks, sources and methods that refer to one another."""
    for name in settings.imported_sources:
        if name in settings.tasks.sources:
            raise SettingsError(f"{origin}: imported_sources.{name}: a source task has this name; choose another")
    for step in settings.kubeflow.resources:
        if step not in STEPS:
            raise SettingsError(f"{origin}: kubeflow.resources.{step}: there is no such step; {nearest(step, STEPS)}")
    known = {*TASKS, *settings.own_tasks}
    for group in ("per_source", "per_target"):
        for task in getattr(settings, group):
            if task not in known:
                raise SettingsError(f"{origin}: {group}.{task}: there is no such task; {nearest(task, known)}")
    try:
        settings.all_methods()
        for task in settings.per_source:
            settings.train_source_for(task)
        for task in {*settings.per_target, *settings.tasks.targets}:
            settings.methods_for(task)
    except SettingsError as error:
        raise SettingsError(f"{origin}: {error}") from error
