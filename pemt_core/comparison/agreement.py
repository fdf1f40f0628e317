"""What experiments must agree on, since they share one folder of data, backbones, source adapters, cells and scores.

A cell's folder is named by its method, so a method's name means one thing for a target, a k and a variant.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pemt_core.comparison.experiments import Experiment
from pemt_core.errors import SettingsError
from pemt_core.settings import Settings
from pemt_core.settings.dotted import flatten

SHARED_GROUPS = ("prepare", "backbone", "imported_sources", "per_source", "evaluate")


def check_agreement(experiment: Experiment, experiments: Mapping[str, Experiment]) -> None:
    """Raise SettingsError, naming both files and the first key that differs, if another contradicts `experiment`.

    It may also contradict itself, as variants do that differ for a method.
    """
    own: dict[tuple[str, ...], Mapping[str, str]] = {}
    for each in (experiment, *(other for other in experiments.values() if other is not experiment)):
        for place, values in _meanings(each):
            before = own.setdefault(place, values) if each is experiment else own.get(place, values)
            if before != values:
                raise SettingsError(_difference(place, experiment.file, before, each.file, values))


def _meanings(experiment: Experiment) -> Iterator[tuple[tuple[str, ...], Mapping[str, str]]]:
    """What a file says about each thing that is shared, flat, by its place."""
    shared = experiment.settings.model_dump(mode="json", include={*SHARED_GROUPS})
    yield ("settings",), _flat({**shared, "tasks": {"sources": experiment.settings.tasks.sources}})
    for variant, settings in experiment.variants.items():
        groups = {"train_source", *(["backbone"] if experiment.definition.has_own_backbone(variant) else [])}
        yield ("variant", variant), _flat(settings.model_dump(mode="json", include=groups))
        for target in settings.tasks.targets:
            for name, method in settings.methods_for(target).items():
                values = _flat(method.model_dump(mode="json"))
                for k in settings.transfer_for(target).k:
                    yield ("method", variant, name, target, str(k)), values


def _flat(values: Mapping[str, Any]) -> dict[str, str]:
    return flatten(values, lambda value: json.dumps(value, ensure_ascii=False))


def _difference(
    place: tuple[str, ...], file: str, before: Mapping[str, str], other: str, values: Mapping[str, str]
) -> str:
    key = next(key for key in {**before, **values} if before.get(key) != values.get(key))
    one, two = before.get(key, "absent"), values.get(key, "absent")
    values_of = f"{key} is {one} and {two}"
    if place[0] == "method":
        _, variant, name, target, k = place
        where = "" if variant == "base" else f" in the variant '{variant}'"
        return (
            f"{file} and {other} define the method '{name}' differently{where}: for {target} with k {k}, {values_of}. "
            "Cells are named by their method and shared: give one of the two another name"
        )
    if place[0] == "variant":
        remedy = f"Stage 1 or a backbone with other settings is a variant with another name than '{place[1]}'"
        return f"{file} and {other} define the variant '{place[1]}' differently: {values_of}. {remedy}"
    return f"{file} and {other} differ in {key}: {one} and {two}. Experiments share data, backbone, sources and scores"


def for_data(experiments: Mapping[str, Experiment]) -> Settings:
    """The settings that data is prepared with: the tasks are those of all experiments, in the order of the first.

    Whichever experiment runs, the prepared data is the same.
    """
    every = [experiment.settings for experiment in experiments.values()]
    targets = list(dict.fromkeys(target for settings in every for target in settings.tasks.targets))
    own = {name: entry for settings in every for name, entry in settings.own_tasks.items()}
    tasks = every[0].tasks.model_copy(update={"targets": targets})
    return every[0].model_copy(update={"tasks": tasks, "own_tasks": own})


def for_sources(variant: str, settings: Settings, experiments: Mapping[str, Experiment]) -> Settings:
    """The settings that stage 1 of a variant is planned with: they list the methods of all experiments that have it.

    Whichever experiment runs, the source adapters and experts are the same. Sources that no method draws on are left
    out.
    """
    sharing = [each.variants[variant] for each in experiments.values() if variant in each.variants]
    listed = {
        name: (other.methods[name], other.sources_of(name, method))
        for other in sharing
        for target in other.tasks.targets
        for name, method in other.methods_for(target).items()
    }
    used = {source for _, sources in listed.values() for source in sources}
    sources = [source for source in settings.tasks.sources if source in used]
    return settings.model_copy(
        update={
            "methods": {name: entry for name, (entry, _) in listed.items()},
            "tasks": settings.tasks.model_copy(update={"sources": sources or settings.tasks.sources}),
            "transfer": settings.transfer.model_copy(update={"methods": list(listed)}),
            "per_target": {},
        }
    )
