"""Registered versions as trained targets on one backbone in memory; targets that mix equal experts share them.

The code of this project loads them, not the code in each version: a version that it cannot read is refused, and
`mlflow models serve` still serves it.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from pemt_core.artifacts.experts import MANIFEST, TENSORS, ExpertBank, load_experts
from pemt_core.artifacts.files import sha256_of_file
from pemt_core.artifacts.target import load_target
from pemt_core.backbone.shapes import outline
from pemt_core.backbone.store import Backbone, load_backbone
from pemt_core.data.prepared import load_task_description
from pemt_core.errors import ArtifactError
from pemt_core.prediction.model_folder import MODEL, read_model_description
from pemt_core.prediction.predictor import Predictor
from pemt_core.prediction.trained import MixedExperts, TrainedTarget
from pemt_core.tracking.models import BACKBONE_DIR, FINGERPRINT, Version, fetch_part, files_of
from pemt_core.tracking.store import Store


class VersionLoader:
    """Builds targets for `predictor`, whose backbone is that of the first version."""

    def __init__(self, store: Store, first: Version, backbone_dir: Path | None) -> None:
        """Load the backbone: from `backbone_dir`, from where the version says that it is, or from the version itself.

        Raises ArtifactError if it is gone, altered or another one.
        """
        self._store = store
        with TemporaryDirectory() as temporary:
            files = files_of(store, first)
            batch_size = read_model_description(fetch_part(store, files, MODEL, Path(temporary)).parent).batch_size
            referred = backbone_dir or (Path(first.tags[BACKBONE_DIR]) if BACKBONE_DIR in first.tags else None)
            directory = referred or fetch_part(store, files, "backbone", Path(temporary))
            if not directory.is_dir():
                raise ArtifactError(f"{directory}: no such folder; it is the backbone of the targets to serve")
            backbone, self._outline = load_backbone(directory), outline(directory)
        expected = first.tags.get(FINGERPRINT, backbone.fingerprint)
        if backbone.fingerprint != expected:
            raise ArtifactError(
                f"{directory}: is the backbone {backbone.fingerprint[:12]}, expected {expected[:12]}, on which the "
                "targets to serve were trained"
            )
        backbone.model.to("cuda" if torch.cuda.is_available() else "cpu")
        self.predictor = Predictor(backbone, {}, batch_size=batch_size)
        self._mixed: dict[str, MixedExperts] = {}  # by the hash of the experts
        self._users: dict[TrainedTarget, str] = {}
        self._bank: tuple[str, ExpertBank] | None = None  # the last, by the hash of its manifest

    @property
    def backbone(self) -> Backbone:
        return self.predictor.backbone

    def load(self, target: str, version: Version) -> TrainedTarget:
        """Return the target of a version, detached from the backbone, while other threads use the predictor.

        Raises ArtifactError if it is missing, altered, not of this backbone, or written by code that differs.
        """
        with TemporaryDirectory() as temporary, _without_path(temporary):
            files = files_of(self._store, version)
            folder = fetch_part(self._store, files, MODEL, Path(temporary)).parent
            description = read_model_description(folder)
            if target not in description.targets:
                raise ArtifactError(f"the version has {', '.join(description.targets)}, expected {target}")
            for part in (f"targets/{target}", f"tasks/{target}", f"experts/{MANIFEST}"):
                fetch_part(self._store, files, part, folder)
            bank = self._experts(files, folder)
            adapter = load_target(folder / "targets" / target, target, self._outline, bank)
            task = load_task_description(folder / "tasks" / target, target)
        sources = adapter.description.sources
        key = bank.mixture_hash(sources)
        with self.predictor.idle() as backbone:
            if key not in self._mixed:
                self._mixed[key] = MixedExperts.of(backbone.model, bank.select(sources))
            mixed, conversion = self._mixed[key], description.conversion(target)
            made = TrainedTarget.make(backbone.model, adapter, mixed, task, conversion)
        self._users[made] = key
        return made

    def release(self, served: Collection[TrainedTarget]) -> None:
        """Free what only targets other than those `served` use."""
        self._bank = None
        self._users = {target: key for target, key in self._users.items() if target in served}
        self._mixed = {key: self._mixed[key] for key in {*self._users.values()}}

    def _experts(self, files: Any, folder: Path) -> ExpertBank:
        content = sha256_of_file(folder / "experts" / MANIFEST)
        if self._bank is None or self._bank[0] != content:
            fetch_part(self._store, files, f"experts/{TENSORS}", folder)
            self._bank = content, load_experts(folder / "experts", self._outline)
        return self._bank[1]


@contextmanager
def _without_path(folder: str) -> Iterator[None]:
    """Name files of a version in errors as the version does, not by the temporary folder that they were copied to."""
    try:
        yield
    except ArtifactError as error:
        raise ArtifactError(str(error).replace(f"{folder}/", "")) from error
