"""Model versions in MLflow's registry: make one from a folder, give one an alias, find and fetch one."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pemt_core.errors import cut, nearest
from pemt_core.tasks.pairs import Kind
from pemt_core.tracking.address import TrackingError
from pemt_core.tracking.mlflow_defaults import long_requests
from pemt_core.tracking.store import Store, request

MODEL, FOLDER = "model", "folder"  # a run's artifact folder with a version; the package's folder in it
MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<number>[0-9]{1,18}))")
BACKBONE_DIR = "pemt.backbone_dir"  # tag: where a version's backbone is, unless the version contains it
FINGERPRINT = "pemt.backbone"  # tag: the fingerprint of the backbone that a version was trained on
BACKBONE = "backbone"  # key of a model's configuration: the backbone's folder, as a server may set it
NOT_IN_NAMES = re.compile(r"[/:@'\"\\]")  # the registry refuses the first two, its URIs and filters the others


class UnknownModelError(TrackingError):
    """The registry has no such model, alias or version; the message names the nearest."""


@dataclass(frozen=True)
class Version:
    """A version of a registered model."""

    number: int
    run_id: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Package:
    """A folder with all that MLflow needs to load and serve it as a model anywhere."""

    loader_module: str  # defines _load_pyfunc
    folder: Path  # named FOLDER
    code: Path  # the package that `loader_module` is in
    requirements: Sequence[str]  # pinned
    columns: Mapping[str, Kind]  # possible columns of a row
    example: Mapping[str, Any]  # a row


def model_name(experiment: str, target: str) -> str:
    """The registered model of a target; characters that models' names cannot have become hyphens."""
    return f"{NOT_IN_NAMES.sub('-', experiment)}-{target}"


@request
def versions_of(store: Store, name: str) -> list[Version]:
    """Return all versions of a registered model, newest first; empty if the model does not exist."""
    found = store.client.search_model_versions(f"name='{name}'")
    versions = [Version(int(each.version), each.run_id or "", each.tags) for each in found]
    return sorted(versions, key=lambda version: -version.number)


@request
def add_version(
    store: Store, run_id: str, name: str, package: Package, *, tags: Mapping[str, str], description: str
) -> Version:
    """Write `package` into the artifacts of a run and register it as the next version of the model `name`."""
    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException

    with TemporaryDirectory() as temporary:
        saved = Path(temporary) / MODEL
        mlflow.pyfunc.save_model(
            saved,
            loader_module=package.loader_module,
            data_path=str(package.folder),
            code_paths=[str(package.code)],
            signature=_signature(package.columns),
            input_example=[dict(package.example)],
            pip_requirements=list(package.requirements),
            model_config={BACKBONE: ""},
        )
        with long_requests():
            store.client.log_artifacts(run_id, str(saved), MODEL)
        try:
            store.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        made = store.client.create_model_version(
            name, f"runs:/{run_id}/{MODEL}", run_id, tags=dict(tags), description=description
        )
    return Version(int(made.version), run_id, tags)


@request
def set_alias(store: Store, name: str, alias: str, version: Version) -> None:
    """Give `alias` to this version, and take it from any other version of the model."""
    store.client.set_registered_model_alias(name, alias, str(version.number))


@request
def aliases_of(store: Store, name: str) -> dict[str, int]:
    """Return the version of each alias of a registered model. TrackingError names the nearest to an unknown model."""
    found = {model.name: model.aliases for model in _models(store, None)}
    if name not in found:
        hint = nearest(name, found) if found else "no model is registered; run `dvc repro register`"
        raise UnknownModelError(f"{store.place}: there is no registered model '{name}'; {hint}")
    return {alias: int(number) for alias, number in found[name].items()}


def find_version(store: Store, uri: str) -> Version:
    """Return the version at models:/<name>@<alias> or models:/<name>/<number>. TrackingError names the nearest."""
    match = MODEL_URI.fullmatch(uri)
    if not match:
        expected = "expected models:/<name>@<alias> or models:/<name>/<version>"
        raise UnknownModelError(f"'{cut(uri)}' is not a model; {expected}")
    name, alias = match["name"], match["alias"]
    aliases, versions = aliases_of(store, name), {each.number: each for each in versions_of(store, name)}
    if alias and alias not in aliases:
        hint = nearest(alias, aliases) if aliases else "it has none"
        raise UnknownModelError(f"the model {name} has no alias '{alias}'; {hint}")
    number = aliases[alias] if alias else int(match["number"])
    if number not in versions:
        raise UnknownModelError(f"the model {name} has no version {number}; {nearest(str(number), map(str, versions))}")
    return versions[number]


@request
def versions_with(store: Store, alias: str, prefix: str) -> dict[str, int]:
    """Return the number of the version that has `alias`, by model, of all models whose names begin with `prefix`."""
    models = _models(store, f"name LIKE '{prefix}%'")
    found = {model.name: int(model.aliases[alias]) for model in models if alias in model.aliases}
    return {name: number for name, number in found.items() if name.startswith(prefix)}  # _ in LIKE is any character


def _models(store: Store, where: str | None) -> Iterator[Any]:
    """All registered models that fit a filter of MLflow, which answers with a page of 100 at a time."""
    page = None
    while page != "":
        models = store.client.search_registered_models(where, page_token=page)
        yield from models
        page = models.token or ""


@request
def version_at(store: Store, name: str, number: int) -> Version:
    """Return a version that exists. Raises TrackingError if it is gone."""
    found = store.client.get_model_version(name, str(number))
    return Version(int(found.version), found.run_id or "", found.tags)


@request
def fetch_version(store: Store, version: Version, folder: Path) -> Path:
    """Copy `Package.folder` of a version into `folder` and return its path."""
    return Path(store.client.download_artifacts(version.run_id, f"{MODEL}/data/{FOLDER}", str(folder)))


@request
def files_of(store: Store, version: Version) -> Any:
    """Return MLflow's repository of the artifacts of a version's run, for `fetch_part`."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(store.client.get_run(version.run_id).info.artifact_uri, tracking_uri=store.uri)


@request
def fetch_part(store: Store, files: Any, part: str, folder: Path) -> Path:
    """Copy the file or folder `part` of a version's `Package.folder` to `folder`/`part`, and return this path."""
    place = folder / part
    place.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder) as temporary:
        return Path(files.download_artifacts(f"{MODEL}/data/{FOLDER}/{part}", temporary)).rename(place)


def rejected_input(message: str) -> Exception:
    """Return the exception for which MLflow's scoring server answers 400 with this message and no traceback."""
    from mlflow.exceptions import MlflowException

    return MlflowException.invalid_parameter_value(message)


def _signature(columns: Mapping[str, Kind]) -> Any:
    """Return the model's signature. All columns are optional: a row has those of its task, or its complete text."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array, Map

    kinds = {"text": DataType.string, "number": DataType.long, "texts": Array(DataType.string)}
    inputs = [ColSpec(kinds[kind], name, required=False) for name, kind in columns.items()]
    numbers = Map(DataType.double)
    outputs = [
        ColSpec(DataType.string, "task"),
        ColSpec(DataType.string, "prediction"),
        ColSpec(DataType.string, "answer"),
        ColSpec(DataType.double, "score"),
        ColSpec(numbers, "scores", required=False),
        ColSpec(numbers, "expert_weights"),
        ColSpec(DataType.boolean, "truncated"),
    ]
    return ModelSignature(Schema(inputs), Schema(outputs))
