"""params.yaml, read and checked.

The file is read as YAML 1.2, as DVC reads it. `recipe` names a group of `recipes` whose differences are laid over the
step groups. Every recipe is checked, not only the chosen one.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator
from ruamel.yaml import YAML, YAMLError

from pemt_core.artifacts.cell import methods_over
from pemt_core.errors import SettingsError, nearest
from pemt_core.schema.group import Group
from pemt_core.schema.validation import merged, parse_object, validate
from pemt_core.settings.groups import Count, Seed, Settings

RECIPE_GROUPS = ("prepare", "backbone", "train_source", "transfer", "evaluate", "per_source", "per_target")


class Choices(Group):
    """What a run chooses over params.yaml. Absent, null and empty: as that says.

    `k` and `seeds` that `per_target` has for one task stay its own.
    """

    recipe: str | None = None
    sources: list[str] = Field(default_factory=list)
    targets: list[str] = Field(default_factory=list)
    k: list[Literal["full"] | Count] = Field(default_factory=list)
    seeds: list[Seed] = Field(default_factory=list)

    @field_validator("sources", "targets", "k", "seeds", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        return [] if value is None else value

    @classmethod
    def parse(cls, text: str) -> "Choices":
        """From a JSON object. SettingsError as `load_settings`."""
        return validate(cls, parse_object(text, "--choices"), "--choices")

    def laid_over(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The content of params.yaml with these choices; `k` and `seeds` go before those of the recipe."""
        recipe = self.recipe or values.get("recipe")
        tasks = {name: names for name, names in (("sources", self.sources), ("targets", self.targets)) if names}
        cells = {"transfer": {name: listed for name, listed in (("k", self.k), ("seeds", self.seeds)) if listed}}
        recipes = {recipe: cells} if recipe in values.get("recipes", {}) else {}
        return merged(values, {"recipe": recipe, "tasks": tasks, **cells, "recipes": recipes})


def load_settings(path: Path) -> Settings:
    """Read and check params.yaml. Raises SettingsError naming the file, the key, the value and what was expected."""
    return parse_settings(read_params(path), str(path))


def read_params(path: Path) -> dict[str, Any]:
    """The content of params.yaml, unchecked."""
    try:
        values = YAML(typ="safe", pure=True).load(Path(path))
    except FileNotFoundError as error:
        raise SettingsError(f"{path}: no such file") from error
    except YAMLError as error:
        raise SettingsError(f"{path}: not readable as YAML: {error}") from error
    if not isinstance(values, dict):
        raise SettingsError(f"{path}: expected groups of settings, found {type(values).__name__}")
    return values


def parse_settings(values: Mapping[str, Any], origin: str) -> Settings:
    """Check `values` (the content of params.yaml); `origin` names it in errors."""
    plain = validate(Settings, values, origin)
    _check_imported(plain, origin)
    # A recipe that is not chosen may leave out sources that are not listed
    known = [*plain.per_source, *plain.imported_sources]
    # The plain file first: DVC looks for the lines of `per_source` and `per_target` in the file itself
    _check_per_task(plain, known, origin)
    for name, recipe in plain.recipes.items():
        _check_recipe(name, recipe, plain, origin)
        laid_over = f"{origin} with recipe {name}"
        _check_per_task(validate(Settings, _overlaid(values, recipe), laid_over), known, laid_over)
    if plain.recipe not in plain.recipes:
        raise SettingsError(
            f"{origin}: recipe '{plain.recipe}' is not in recipes; {nearest(plain.recipe, plain.recipes)}"
        )
    chosen = validate(Settings, _overlaid(values, plain.recipes[plain.recipe]), origin)
    _check_per_task(chosen, [*chosen.tasks.sources, *chosen.imported_sources], origin)
    return chosen


def _check_imported(settings: Settings, origin: str) -> None:
    for name in settings.imported_sources:
        if name in settings.per_source:
            raise SettingsError(f"{origin}: imported_sources.{name}: a source task has this name; expected another")


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
            methods = settings.transfer_for(task).methods
            if task in settings.tasks.targets or set(sources) >= set(settings.per_source):
                _check_methods(methods, sources, f"per_target.{task}.methods")
    except SettingsError as error:
        raise SettingsError(f"{origin}: {error}") from error


def _check_methods(methods: list[str], sources: list[str], key: str) -> None:
    choices = methods_over(sources)
    for place, method in enumerate(methods):
        if method not in choices:
            raise SettingsError(f"key '{key}.{place}' is {method!r}: no such method; {nearest(method, choices)}")


def _overlaid(values: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    return merged(values, {group: recipe[group] for group in RECIPE_GROUPS if group in recipe})
