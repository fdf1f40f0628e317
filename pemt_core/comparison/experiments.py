"""Read the files in experiments/: differences from params.yaml, and what is compared with what.

The file `shared.yaml` there has what all experiments share: methods with their learning rates, and the numbers of the
tests; every other file is an experiment. With the form for the paper's setting, the recipe `paper` comes before them,
and the key `paper` of either file has more differences.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pemt_core.comparison.definition import BASE, Definition, Variant
from pemt_core.errors import SettingsError, cut, nearest
from pemt_core.schema.validation import holds, merged, validate
from pemt_core.settings import RECIPE_GROUPS, Settings
from pemt_core.settings.load import RECIPES, Layer, parse_layers, read_groups, read_params, recipe_layer, settings_files

FOLDER, SHARED, PAPER = "experiments", "shared", "paper"
GROUPS = ("tasks", *RECIPE_GROUPS)
STATISTICS = "statistics"  # the key of a definition that the shared file may have
SHARED_FILE = f"{FOLDER}/{SHARED}.yaml"
KEYS = (*Definition.model_fields, PAPER, *GROUPS)
TAKEN = (SHARED, PAPER, "backbone", "checkpoints", "costs", "data", "experts", "made", "scores", "sources", "targets")


@dataclass(frozen=True)
class Experiment:
    """An experiment, and the settings of each of its variants of stage 1."""

    name: str
    file: str
    definition: Definition
    variants: Mapping[str, Settings]

    @property
    def settings(self) -> Settings:
        """Of the first variant; the variants differ in `train_source` and in the listed methods alone."""
        return next(iter(self.variants.values()))

    @property
    def columns(self) -> dict[str, tuple[str, str]]:
        """The variant and the method of every column, in the order in which they are listed."""
        return {
            self.definition.column(method, variant): (variant, method)
            for variant, settings in self.variants.items()
            for target in settings.tasks.targets
            for method in settings.methods_for(target)
        }


def read_experiments(params: Path, *, paper: bool = False) -> dict[str, Experiment]:
    """Read every experiment beside params.yaml, by name.

    Raises SettingsError, naming the file, the key and the nearest valid one, if a file is invalid.
    """
    values, folder = read_params(params), Path(params).parent / FOLDER
    files = {file.stem: read_groups(file) for file in settings_files(folder)}
    plain = {key: value for key, value in values.items() if key != RECIPES}
    below = [Layer(str(params), plain)]
    if paper:
        below.append(recipe_layer(PAPER, values[RECIPES], str(params)))
    shared = files.pop(SHARED, {})
    below += _layers(SHARED_FILE, shared, (PAPER, STATISTICS, *GROUPS), paper)
    statistics = _whole(shared, paper).get(STATISTICS, {})
    return {name: _experiment(name, content, below, statistics, paper) for name, content in files.items()}


def find_experiment(name: str, experiments: Mapping[str, Experiment]) -> Experiment:
    """Look an experiment up. Raises SettingsError with the nearest name if there is none."""
    if name == SHARED:
        raise SettingsError(f"{SHARED_FILE} is what experiments share, and none itself; {nearest('', experiments)}")
    if name not in experiments:
        hint = nearest(name, experiments) if experiments else f"{FOLDER}/ has no experiments"
        raise SettingsError(f"there is no {FOLDER}/{cut(name)}.yaml; {hint}")
    return experiments[name]


def _experiment(
    name: str, content: Mapping[str, Any], below: Sequence[Layer], statistics: Any, paper: bool
) -> Experiment:
    """`statistics` are those of the shared file."""
    file = f"{FOLDER}/{name}.yaml"
    if name in TAKEN:
        raise SettingsError(f"{file}: an experiment cannot be named '{name}', as a folder of its output is; rename it")
    layers = [*below, *_layers(file, content, KEYS, paper)]
    definition = _definition(file, _whole(content, paper), statistics)
    variants = {
        each: parse_layers([*layers, _variant_layer(file, each, variant)])
        for each, variant in definition.variants.items()
    }
    experiment = Experiment(name, file, definition, variants)
    _check_columns(experiment)
    return experiment


def _whole(content: Mapping[str, Any], paper: bool) -> Mapping[str, Any]:
    return merged(content, content.get(PAPER, {})) if paper else content


def _definition(file: str, whole: Mapping[str, Any], statistics: Any) -> Definition:
    """Errors name the shared file if it has the key."""
    own = {key: whole[key] for key in Definition.model_fields if key in whole}

    def placed(location: Sequence[str]) -> tuple[str, str]:
        is_shared = location[0] == STATISTICS and not holds(own, location)
        return SHARED_FILE if is_shared else file, ".".join(location)

    return validate(Definition, merged({STATISTICS: statistics}, own), file, placed)


def _layers(file: str, content: Mapping[str, Any], known: Sequence[str], paper: bool) -> list[Layer]:
    """The groups of a file, and those below its key `paper`."""
    for key in content:
        if key not in known:
            raise SettingsError(f"{file}: unknown key '{key}'; {nearest(key, known)}")
    differences = content.get(PAPER, {})
    Layer(file, {PAPER: differences}).check([PAPER])
    layers = [Layer(file, _groups(content))]
    if set(differences) - {*known} or PAPER in differences:
        inner = [each for each in known if each != PAPER]
        key = next(key for key in differences if key not in inner)
        raise SettingsError(f"{file}: unknown key '{PAPER}.{key}'; {nearest(key, inner)}")
    of_paper = Layer(file, _groups(differences), within=(PAPER,))
    for layer in (*layers, of_paper):
        layer.check(GROUPS)
    return [*layers, of_paper] if paper else layers


def _groups(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key in GROUPS}


def _variant_layer(file: str, name: str, variant: Variant) -> Layer:
    methods = {} if variant.methods is None else {"transfer": {"methods": variant.methods}}
    return Layer(file, {"train_source": variant.train_source, **methods}, within=("variants", name))


def _check_columns(experiment: Experiment) -> None:
    """Raise SettingsError if a name in the definition is no column, or two columns have one name."""
    columns, definition = experiment.columns, experiment.definition
    listed = {(variant, method) for variant, settings in experiment.variants.items() for method in _methods(settings)}
    for variant, method in listed:
        name = definition.column(method, variant)
        if columns[name] != (variant, method):
            raise SettingsError(
                f"{experiment.file}: '{method}' of the variant '{variant}' would be shown as '{name}', which is a "
                f"method of '{BASE}' too; rename the variant"
            )
    family, controls = definition.family or [], definition.controls
    for key, names in (("reference", [definition.reference]), ("family", family), ("controls", controls)):
        for name in names:
            if name not in columns:
                raise SettingsError(
                    f"{experiment.file}: {key}: '{name}' is not compared here; {nearest(name, columns)}"
                )
            if key != "reference" and name == definition.reference:
                raise SettingsError(f"{experiment.file}: {key}: '{name}' is the reference; remove it")
            if list(names).count(name) > 1:  # each member of the family is a test, which Holm's correction counts
                raise SettingsError(f"{experiment.file}: {key} lists '{name}' more than once")


def _methods(settings: Settings) -> Iterable[str]:
    return dict.fromkeys(method for target in settings.tasks.targets for method in settings.methods_for(target))
