"""register: make each target's best cell a model version in MLflow's registry; the best version gets an alias."""

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from pemt_core.artifacts.adapter import best_on_validation
from pemt_core.artifacts.description import TargetDescription, load_description, load_training_record
from pemt_core.artifacts.target import check_cell
from pemt_core.data.prepared import PreparedTask
from pemt_core.prediction import served
from pemt_core.prediction.model_folder import write_model_folder
from pemt_core.prediction.rows import TEXT
from pemt_core.provenance.commit import PACKAGE_ROOT
from pemt_core.settings import ModelSettings
from pemt_core.settings.steps import Register
from pemt_core.tasks.entry import OwnTask
from pemt_core.tracking import ARTIFACT, CELL, KEY, Tracker, TrackingError
from pemt_core.tracking.models import (
    BACKBONE_DIR,
    FINGERPRINT,
    FOLDER,
    Package,
    Version,
    add_version,
    aliases_of,
    model_name,
    set_alias,
    versions_of,
)
from pemt_core.tracking.store import Store

logger = logging.getLogger(__name__)

REQUIREMENTS = (  # what a served model imports
    "huggingface-hub", "jaxtyping", "mlflow", "numpy", "pyarrow", "pydantic", "regex", "ruamel.yaml", "safetensors",
    "scikit-learn", "scipy", "SQLAlchemy", "tokenizers", "torch", "transformers",
)  # fmt: skip
NOT_SERVED = (
    "embedded",
    "preparation",
    "report",
    "serving",
    "__pycache__",
)  # parts of pemt_core that a model does not need
# Tags of a version, beside CELL, ARTIFACT and FINGERPRINT
SCORE, METRIC, DATA, ANSWER = "pemt.validation", "pemt.metric", "pemt.data", "pemt.answer"


@dataclass(frozen=True)
class Folders:
    """The outputs of earlier steps."""

    adapters: Path  # one folder of cells per target
    data: Path
    backbone: Path
    experts: Path


def register(
    folders: Folders, settings: Register, tracker: Tracker, targets: Sequence[str] | None = None
) -> dict[str, int]:
    """Register the best cell of every target (or of `targets`) unless it is registered or `settings` disable it.

    A model is named <prefix>-<target> (`model_name`). The alias goes to the version with the best validation score
    among those trained on the same data as this cell and scored by the same metric: others are not comparable.

    Returns:
        The version that has the alias, by model.

    Raises:
        ArtifactError: a folder is missing.
        SettingsError: a target has no such metric, or is not a task.
        TrackingError: the store cannot be reached, or has no run of the cell.
    """
    champions = {}
    for target in (targets or settings.targets) if settings.models.enabled else ():
        cell_dir = best_on_validation(folders.adapters / target, settings.models.metric, settings.methods)
        with tracker.tolerance() as store:
            if store:
                check_cell(cell_dir, load_description(cell_dir, TargetDescription)[0])
                model = _Model(model_name(settings.prefix, target), cell_dir, folders, settings)
                model.add_unless_there(store, tracker)
                champions[model.name] = model.crown(store).number
    return champions


@dataclass(frozen=True)
class _Model:
    """A registered model, and the cell to register as its version."""

    name: str
    cell_dir: Path
    folders: Folders
    step: Register

    @property
    def settings(self) -> ModelSettings:
        return self.step.models

    @cached_property
    def tags(self) -> dict[str, str]:
        """The tags that identify a version, and those that it is compared by."""
        description, artifact = load_description(self.cell_dir, TargetDescription)
        refers = self.settings.backbone == "refer"
        return {
            CELL: description.cell.run,
            KEY: description.key,
            ARTIFACT: artifact,
            DATA: description.data,
            FINGERPRINT: description.backbone,
            ANSWER: description.answer,
            SCORE: f"{load_training_record(self.cell_dir).validation[self.settings.metric]:.4f}",
            METRIC: self.settings.metric,
            **({BACKBONE_DIR: str(self.folders.backbone.resolve())} if refers else {}),
        }

    def add_unless_there(self, store: Store, tracker: Tracker) -> None:
        """Register the cell as a version linked to its run, unless it is one."""
        if any(self.tags.items() <= each.tags.items() for each in versions_of(store, self.name)):  # users add tags
            return
        run = tracker.find(self.tags[CELL], self.tags[KEY])
        if run is None:
            raise TrackingError(f"there is no run of {self.tags[CELL]} to register; `dvc repro -f -s record` writes it")
        text = f"{self.tags[CELL]}: {self.tags[SCORE]} on validation ({self.settings.metric})"
        with TemporaryDirectory() as temporary:
            package = self._package(Path(temporary))
            made = add_version(store, run.run_id, self.name, package, tags=self.tags, description=text)
        logger.info("register: %s is version %d of %s", self.tags[CELL], made.number, self.name)

    def crown(self, store: Store) -> Version:
        """Give the alias to the best comparable version, and return it; the newest wins a tie.

        Branches of a cluster register versions side by side, so it looks again after it has given the alias.
        """
        crowned = 0
        while True:
            same = {name: self.tags[name] for name in (DATA, METRIC)}.items()
            comparable = [each for each in versions_of(store, self.name) if same <= each.tags.items()]
            best = max(comparable, key=lambda each: (float(each.tags[SCORE]), each.number))
            if best.number in (crowned, aliases_of(store, self.name).get(self.settings.alias)):
                return best
            set_alias(store, self.name, self.settings.alias, best)
            crowned = best.number
            logger.info("register: %s@%s is version %d", self.name, self.settings.alias, best.number)

    def _package(self, temporary: Path) -> Package:
        """The cell as a model folder, with the code that serves it."""
        target, folder = self.cell_dir.parent.name, temporary / FOLDER
        own_tasks: Mapping[str, OwnTask] = self.step.own_tasks
        own_texts = {target: own_tasks[target].text} if target in own_tasks else {}
        description = write_model_folder(
            folder,
            self.folders.backbone,
            self.folders.experts,
            {target: self.cell_dir},
            self.folders.data,
            own_texts=own_texts,
            include_backbone=self.settings.backbone == "include",
            batch_size=self.step.batch_size,
        )
        conversion = description.conversion(target)
        code = temporary / PACKAGE_ROOT.name
        shutil.copytree(PACKAGE_ROOT, code, ignore=shutil.ignore_patterns(*NOT_SERVED))
        kinds = {column: conversion.kinds.get(column, "text") for column in conversion.inputs}
        return Package(
            loader_module=served.__name__,
            folder=folder,
            code=code,
            requirements=[
                f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS
            ],  # torch's local version
            columns={**kinds, TEXT: "text"},
            example={TEXT: _first_text(self.folders.data / target, target)},
        )


def _first_text(task_dir: Path, target: str) -> str:
    """The text of a row of the test split."""
    text: str = PreparedTask.load(task_dir, target).rows("test")["source"][0].as_py()
    return text
