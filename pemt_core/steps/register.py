"""register: each target's best cell as a version of a model in MLflow's registry, the best version under an alias."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from pemt_core.artifacts.adapter import best_on_validation, load_description, load_training_record
from pemt_core.artifacts.cell import Cell
from pemt_core.artifacts.provenance import PACKAGE_ROOT
from pemt_core.prediction import served
from pemt_core.prediction.model_folder import write_model_folder
from pemt_core.prediction.rows import TEXT
from pemt_core.settings import ModelSettings
from pemt_core.tasks import get_task
from pemt_core.tracking import ARTIFACT, CELL, Tracker, TrackingError
from pemt_core.tracking.models import (
    BACKBONE_DIR,
    FOLDER,
    Package,
    Version,
    add_version,
    aliases_of,
    set_alias,
    versions_of,
)
from pemt_core.tracking.store import Store

logger = logging.getLogger(__name__)

REQUIREMENTS = (  # what a served model imports
    "jaxtyping", "mlflow", "numpy", "pyarrow", "pydantic", "regex", "ruamel.yaml", "safetensors", "tokenizers",
    "torch", "transformers",
)  # fmt: skip
NOT_SERVED = ("embedded", "preparation", "report", "__pycache__")  # parts of pemt_core that a model does without
SCORE, DATA, BACKBONE = "pemt.validation", "pemt.data", "pemt.backbone"  # tags of a version, beside CELL and ARTIFACT


@dataclass(frozen=True)
class Folders:
    """Where the steps before this one wrote."""

    adapters: Path  # one folder of cells per target
    data: Path
    backbone: Path
    experts: Path


def register(
    folders: Folders, targets: Sequence[str], settings: ModelSettings, *, batch_size: int, tracker: Tracker, prefix: str
) -> dict[str, int]:
    """Register the best cell of every target, unless it is, or `settings` say none is to be.

    Returns the version that has the alias, by model.

    A model is named <prefix>-<target>. The alias goes to the version with the best validation score among those
    trained on the same data as this cell: scores on other rows cannot be compared. ArtifactError where a folder is
    missing, SettingsError where a target has no such metric, TrackingError where the store is lost or has no run of
    the cell.
    """
    champions = {}
    for target in targets if settings.enabled else ():
        name = f"{prefix}-{target}"
        cell_dir = best_on_validation(folders.adapters / target, settings.metric)
        with tracker.tolerance() as store:
            if store:
                tags = _tags(cell_dir, folders.backbone, settings)
                _add_unless_there(store, tracker, name, folders, cell_dir, tags, batch_size)
                champions[name] = _crown(store, name, settings.alias, tags[DATA]).number
    return champions


def _tags(cell_dir: Path, backbone_dir: Path, settings: ModelSettings) -> dict[str, str]:
    description, artifact = load_description(cell_dir)
    cell = Cell(description.task, str(description.method), description.k, description.seed)  # type: ignore[arg-type]
    return {
        CELL: cell.run,
        ARTIFACT: artifact,
        DATA: description.data,
        BACKBONE: description.backbone,
        SCORE: f"{load_training_record(cell_dir).validation[settings.metric]:.4f}",
        "pemt.metric": settings.metric,
        **({BACKBONE_DIR: str(backbone_dir.resolve())} if settings.backbone == "refer" else {}),
    }


def _add_unless_there(
    store: Store,
    tracker: Tracker,
    name: str,
    folders: Folders,
    cell_dir: Path,
    tags: Mapping[str, str],
    batch_size: int,
) -> None:
    if any(each.tags == tags for each in versions_of(store, name)):
        return
    run = tracker.find(tags[CELL])
    if run is None:
        raise TrackingError(f"there is no run of {tags[CELL]} to register; `dvc repro -f -s report` writes it")
    with TemporaryDirectory() as temporary:
        package = _package(
            Path(temporary), cell_dir, folders, include_backbone=BACKBONE_DIR not in tags, batch=batch_size
        )
        text = f"{tags[CELL]}: {tags[SCORE]} on validation ({tags['pemt.metric']})"
        made = add_version(store, run.run_id, name, package, tags=tags, description=text)
    logger.info("register: %s is version %d of %s", tags[CELL], made.number, name)


def _crown(store: Store, name: str, alias: str, data: str) -> Version:
    """Give the alias to the best version on this data, the newest of equals."""
    comparable = [each for each in versions_of(store, name) if each.tags.get(DATA) == data]
    best = max(comparable, key=lambda each: (float(each.tags[SCORE]), each.number))
    if aliases_of(store, name).get(alias) != best.number:
        set_alias(store, name, alias, best)
        logger.info("register: %s@%s is version %d", name, alias, best.number)
    return best


def _package(temporary: Path, cell_dir: Path, folders: Folders, *, include_backbone: bool, batch: int) -> Package:
    """The cell as a model folder, with the code that serves it."""
    target, conversion = cell_dir.parent.name, get_task(cell_dir.parent.name).conversion
    write_model_folder(
        temporary / FOLDER,
        folders.backbone,
        folders.experts,
        {target: cell_dir},
        folders.data,
        include_backbone=include_backbone,
        batch_size=batch,
    )
    code = temporary / PACKAGE_ROOT.name
    shutil.copytree(PACKAGE_ROOT, code, ignore=shutil.ignore_patterns(*NOT_SERVED))
    kinds = {column: conversion.kinds.get(column, "text") for column in conversion.inputs}
    return Package(
        loader_module=served.__name__,
        folder=temporary / FOLDER,
        code=code,
        requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],  # torch's local version
        columns={**kinds, TEXT: "text"},
        example={TEXT: _first_text(folders.data / target)},
    )


def _first_text(task_dir: Path) -> str:
    """The text of a row of the test split."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(task_dir / "test.parquet") as file:
        text: str = next(file.iter_batches(1, columns=["source"])).column(0)[0].as_py()
    return text
