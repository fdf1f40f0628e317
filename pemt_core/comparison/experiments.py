"""Read the files in experiments/: differences from params.yaml, and what is compared with what.

The file `shared.yaml` there has what all experiments share: methods with their learning rates, and the numbers of the
tests; every other file is an experiment. With the form for the paper's setting, the recipe `paper` comes before them,
and the key `paper` of either file has more differences. The form for real language has files of its own, in
experiments/real/, and the recipe `real` before them.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pemt_core.comparison.definition import BASE, Definition, Variant
from pemt_core.comparison.real import REAL, of_data, tasks_at_hand
from pemt_core.errors import PemtError, SettingsError, cut, nearest
from pemt_core.schema.validation import holds, merged, validate
from pemt_core.settings import RECIPE_GROUPS, Settings
from pemt_core.settings.load import (
    RECIPES,
    Layer,
    misnamed_files,
    parse_layers,
    read_groups,
    read_params,
    recipe_layer,
    settings_files,
)
from pemt_core.tasks import JOINT, TASKS

FOLDER, SHARED, PAPER = "experiments", "shared", "paper"
GROUPS = ("tasks", *RECIPE_GROUPS)
STATISTICS = "statistics"  # the key of a definition that the shared file may have
SHARED_FILE = f"{FOLDER}/{SHARED}.yaml"
KEYS = (*Definition.model_fields, PAPER, *GROUPS)
TAKEN = (
    SHARED, PAPER, REAL, "backbone", "backbones", "checkpoints", "costs", "data", "experts", "made", "scores",
    "sources", "targets", "tokenizers",
)  # fmt: skip


@dataclass(frozen=True)
class Experiment:
    """An experiment, and the settings of each of its variants."""

    name: str
    file: str
    definition: Definition
    settings: Settings  # without the differences of variants: in backbone, `train_source` and the listed methods
    variants: Mapping[str, Settings]

    @property
    def columns(self) -> dict[str, tuple[str, str]]:
        """The variant and the method of every column, in the order in which they are listed."""
        return {
            self.definition.column(method, variant): (variant, method)
            for variant, settings in self.variants.items()
            for target in settings.tasks.targets
            for method in settings.methods_for(target)
        }


@dataclass(eq=False, repr=False)
class Experiments(dict[str, Experiment]):
    """The experiments by name, without the files that cannot be read as one."""

    broken: dict[str, PemtError] = field(default_factory=dict)  # what is wrong with each of these files, by its stem
    ignored: dict[str, str] = field(default_factory=dict)  # what to do with files of other endings, by their stems
    folder: str = FOLDER  # of the files, as messages show it
    lacking: dict[str, str] = field(default_factory=dict)  # why a task is left out that is listed


def read_experiments(params: Path, *, paper: bool = False, real: str | None = None) -> Experiments:
    """Read every experiment beside params.yaml; with `real`, those for real language, on the datasets of this folder.

    The error of an invalid file names the file, the key and the nearest valid one. Raises SettingsError if params.yaml,
    the recipe or the shared file is invalid by itself.
    """
    values, found = read_params(params), Experiments(folder=FOLDER if real is None else f"{FOLDER}/{REAL}")
    folder = Path(params).parent / found.folder
    files = {file.stem: file for file in settings_files(folder)}
    plain = {key: value for key, value in values.items() if key != RECIPES}
    below = [Layer(str(params), plain)]
    if paper:
        below.append(recipe_layer(PAPER, values[RECIPES], str(params)))
    if real is not None:
        below += [recipe_layer(REAL, values[RECIPES], str(params)), of_data(real)]
    shared = read_groups(files.pop(SHARED)) if SHARED in files else {}
    below += _layers(SHARED_FILE, shared, (PAPER, STATISTICS, *GROUPS), paper)
    statistics = _whole(shared, paper).get(STATISTICS, {})
    found.ignored = misnamed_files(folder, found.folder)
    for name, file in files.items():
        shown = f"{found.folder}/{name}.yaml"
        try:
            content = read_groups(file)
            layers = [*below, *_layers(shown, content, KEYS, paper)]
            if real is not None:
                settings = parse_layers(layers)
                _check_tasks(settings, layers)
                layers.append(tasks_at_hand(settings, below[0], found.lacking))
            found[name] = _experiment(name, shown, _whole(content, paper), layers, statistics)
        except PemtError as error:
            found.broken[name] = error
    return found


def find_experiment(name: str, experiments: Experiments) -> Experiment:
    """Look an experiment up. Raises what is wrong with its file, or SettingsError with the nearest name."""
    if name == SHARED:
        raise SettingsError(f"{SHARED_FILE} is what experiments share, and none itself; {nearest('', experiments)}")
    if name in experiments.broken:
        raise experiments.broken[name]
    if name in experiments.ignored:
        raise SettingsError(experiments.ignored[name])
    if name not in experiments:
        hint = nearest(name, experiments) if experiments else f"{experiments.folder}/ has no experiments"
        raise SettingsError(f"there is no {experiments.folder}/{cut(name)}.yaml; {hint}")
    return experiments[name]


def _experiment(
    name: str, file: str, content: Mapping[str, Any], layers: Sequence[Layer], statistics: Any
) -> Experiment:
    """`content` is the whole file; `statistics` are those of the shared one."""
    if name in TAKEN:
        raise SettingsError(f"{file}: an experiment cannot be named '{name}', as a folder of its output is; rename it")
    definition = _definition(file, content, statistics)
    _check_methods(file, definition, layers)
    variants = {
        each: parse_layers([*layers, _variant_layer(file, each, variant)])
        for each, variant in definition.variants.items()
    }
    for settings in variants.values():
        _check_tasks(settings, layers)
        _check_repeated(settings, layers)
    experiment = Experiment(name, file, definition, parse_layers(layers), variants)
    _check_columns(experiment)
    return experiment


def _whole(content: Mapping[str, Any], paper: bool) -> Mapping[str, Any]:
    return merged(content, _differences(content)) if paper else content


def _differences(content: Mapping[str, Any]) -> Any:
    """What is below the key `paper`; an empty one has no differences."""
    found = content.get(PAPER)
    return {} if found is None else found


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
    differences = _differences(content)
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
    changed = {"backbone": variant.backbone, "train_source": variant.train_source}
    return Layer(file, {**changed, **methods}, within=("variants", name))


def _check_methods(file: str, definition: Definition, layers: Sequence[Layer]) -> None:
    """Raise SettingsError if a variant lists an undefined method."""
    defined = (layer.values.get("methods") for layer in layers)
    known = {name for methods in defined if isinstance(methods, Mapping) for name in methods}
    for variant, each in definition.variants.items():
        for place, name in enumerate(each.methods or ()):
            if name not in known:
                key = f"variants.{variant}.methods.{place}"
                raise SettingsError(
                    f"{file}: key '{key}' is '{name}', which `methods` does not define; {nearest(name, known)}"
                )


def _check_tasks(settings: Settings, layers: Sequence[Layer]) -> None:
    """Raise SettingsError, naming the file that lists it, if a source or target is no task."""
    known = {*TASKS, *settings.own_tasks}
    for key, names, choices in (
        ("sources", settings.tasks.sources, {*known, JOINT}),
        ("targets", settings.tasks.targets, known),
    ):
        for place, name in enumerate(names):
            if name not in choices:
                where = _place(layers, "tasks", key, str(place))
                raise SettingsError(f"{where} is '{cut(name)}': there is no such task; {nearest(name, choices)}")


def _check_repeated(settings: Settings, layers: Sequence[Layer]) -> None:
    """Raise SettingsError if cells are listed more than once; elsewhere, choices of a run may repeat them."""
    for key in ("methods", "k", "seeds"):
        repeated = [value for value, count in Counter(getattr(settings.transfer, key)).items() if count > 1]
        if repeated:
            raise SettingsError(f"{_place(layers, 'transfer', key)} lists {repeated} more than once")


def _place(layers: Sequence[Layer], *location: str) -> str:
    """The file and the key of a value that is in the last of the layers that has its list."""
    layer = next(layer for layer in reversed(layers) if holds(layer.values, location[:2]))
    return f"{layer.file}: key '{'.'.join((*layer.within, *location))}'"


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
