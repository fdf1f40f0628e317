"""Versions of models in MLflow's registry: a folder becomes one, and the best of them gets an alias."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pemt_core.errors import nearest
from pemt_core.tasks.pairs import Kind
from pemt_core.tracking.address import TrackingError, without_password
from pemt_core.tracking.store import Store, named_errors

MODEL, FOLDER = "model", "folder"  # the folder of a run's artifacts that holds a version; what it was made of, in there
MODEL_URI = re.compile(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<number>\d+))")
BACKBONE_DIR = "pemt.backbone_dir"  # the tag that says where a version's backbone is, if it is not in it
BACKBONE = "backbone"  # the key of a model's configuration by which a server names the folder of the backbone


@dataclass(frozen=True)
class Version:
    """A version of a registered model."""

    number: int
    run_id: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Package:
    """What makes a folder a model that MLflow can load and serve anywhere."""

    loader_module: str  # defines _load_pyfunc
    folder: Path  # named FOLDER
    code: Path  # the package that `loader_module` is in
    requirements: Sequence[str]  # pinned
    columns: Mapping[str, Kind]  # that a row may have
    example: Mapping[str, Any]  # a row


def versions_of(store: Store, name: str) -> list[Version]:
    """All versions of a registered model, the newest first; none where there is no such model."""
    with named_errors(store.uri):
        found = store.client.search_model_versions(f"name='{name}'")
    versions = [Version(int(each.version), each.run_id or "", each.tags) for each in found]
    return sorted(versions, key=lambda version: -version.number)


def add_version(
    store: Store, run_id: str, name: str, package: Package, *, tags: Mapping[str, str], description: str
) -> Version:
    """Write `package` into the artifacts of a run and register it as the next version of the model `name`."""
    import mlflow.pyfunc
    from mlflow.exceptions import MlflowException

    with TemporaryDirectory() as temporary, named_errors(store.uri):
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


def set_alias(store: Store, name: str, alias: str, version: Version) -> None:
    """Let `alias` name this version, and no other of the model."""
    with named_errors(store.uri):
        store.client.set_registered_model_alias(name, alias, str(version.number))


def aliases_of(store: Store, name: str) -> dict[str, int]:
    """The version that each alias of a registered model names; TrackingError, with the nearest, at an unknown model."""
    with named_errors(store.uri):
        found = {model.name: model.aliases for model in store.client.search_registered_models()}
    if name not in found:
        hint = nearest(name, found) if found else "none is registered; `dvc repro register` does that"
        raise TrackingError(f"{without_password(store.uri)}: there is no registered model '{name}'; {hint}")
    return {alias: int(number) for alias, number in found[name].items()}


def find_version(store: Store, uri: str) -> Version:
    """The version that models:/<name>@<alias> or models:/<name>/<number> names. TrackingError, with the nearest."""
    match = MODEL_URI.fullmatch(uri)
    if not match:
        raise TrackingError(f"'{uri}' names no model; expected models:/<name>@<alias> or models:/<name>/<version>")
    name, alias, number = match["name"], match["alias"], match["number"]
    aliases, versions = aliases_of(store, name), {each.number: each for each in versions_of(store, name)}
    if alias and alias not in aliases:
        hint = nearest(alias, aliases) if aliases else "it has none"
        raise TrackingError(f"the model {name} has no alias '{alias}'; {hint}")
    wanted = aliases[alias] if alias else int(number)
    if wanted not in versions:
        raise TrackingError(f"the model {name} has no version {wanted}; {nearest(str(wanted), map(str, versions))}")
    return versions[wanted]


def fetch_version(store: Store, version: Version, folder: Path) -> Path:
    """Copy what a version was made of (`Package.folder`) below `folder`; returns where it is."""
    with named_errors(store.uri):
        return Path(store.client.download_artifacts(version.run_id, f"{MODEL}/data/{FOLDER}", str(folder)))


def rejected_input(message: str) -> Exception:
    """The exception that MLflow's scoring server answers with status 400 and this message, without a trace."""
    from mlflow.exceptions import MlflowException

    return MlflowException.invalid_parameter_value(message)


def _signature(columns: Mapping[str, Kind]) -> Any:
    """Every column may be absent: a row has those of its task, or its finished text."""
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
