"""The whole training state in one safetensors file, replaced atomically; no pickle is written or read.

The state is stored outside a stage's outputs, which DVC deletes before a re-run. Its folder is named by a hash of
everything that the training depends on, so other inputs get another folder. The file holds a hash of all its content.
"""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pemt_core.artifacts.description import TrainingRecord
from pemt_core.artifacts.files import atomic_file, sha256_of_json
from pemt_core.artifacts.staging import remove
from pemt_core.artifacts.tensors import check_shapes
from pemt_core.errors import ArtifactError

logger = logging.getLogger(__name__)

FILE = "state.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class TrainingState:
    """The progress of a training. It has no random state, because each step draws from (seed, step)."""

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True, extra="forbid", strict=True)

    step: int = 0  # optimizer steps done
    epoch: int = 0
    batch: int = 0  # batches of this epoch done
    finished: bool = False
    best_score: float | None = None
    best_step: int = 0
    best_metrics: dict[str, float] = field(default_factory=dict)
    evaluations_since_best: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_tensors: dict[str, Tensor] = field(default_factory=dict)
    early_score: float | None = None  # the best when `Trainer.fit(until=...)` ended
    seconds: float = 0.0  # of the processor, over all resumptions
    peak_memory_mib: int = 0
    unread: list[tuple[int, list[int], list[float]]] = field(default_factory=list)  # steps, rows and losses to log

    def record(
        self, learning_rate: float, trained_parameters: int, trials: dict[str, float | None] | None = None
    ) -> TrainingRecord:
        """The record of a finished training, which is stored beside its tensors."""
        return TrainingRecord(
            learning_rate=learning_rate,
            validation={n.removeprefix("validation/"): v for n, v in self.best_metrics.items()},
            best_step=self.best_step,
            steps=self.step,
            history=self.history,
            trained_parameters=trained_parameters,
            trials=trials or {},
        )


class HasMoments(Protocol):
    """An optimizer as torch has it: of each trained tensor, `exp_avg`, `exp_avg_sq` and `step`."""

    state: Any  # by tensor


class CheckpointStore:
    """Stores the state of one training in `root`/<key>, where the key is a hash of `inputs`."""

    def __init__(self, root: Path, inputs: Any) -> None:
        self.path = Path(root) / sha256_of_json(inputs)[:32] / FILE

    def save(self, state: TrainingState, trained: Mapping[str, Tensor], optimizer: HasMoments) -> None:
        tensors = {f"trained/{name}": parameter.detach().cpu().contiguous() for name, parameter in trained.items()}
        tensors |= {f"best/{name}": tensor for name, tensor in state.best_tensors.items()}
        for name, parameter in trained.items():
            moments = optimizer.state.get(parameter, {})
            tensors |= {
                f"{kind}/{name}": moments[kind].detach().cpu().contiguous() for kind in MOMENTS if kind in moments
            }
        counters = json.dumps({key: value for key, value in asdict(state).items() if key != "best_tensors"})
        with atomic_file(self.path) as temporary:
            save_file(tensors, temporary, metadata={"state": f"{_hash(tensors, counters)} {counters}"})

    def restore(self, trained: Mapping[str, Tensor], optimizer: HasMoments) -> TrainingState | None:
        """Copy the stored state to `trained` and `optimizer`, and return it; None if nothing is stored.

        A state that is damaged, or of other tensors, is removed with a warning, so that the training starts anew.
        """
        if not os.path.lexists(self.path):
            return None
        try:
            tensors, state = self._read()
            _check_fits(self.path, tensors, trained)
        except ArtifactError as error:
            logger.warning("%s; the training starts anew", error)
            remove(self.path)
            return None
        _write_back(tensors, state, trained, optimizer)
        return state

    def load(self) -> TrainingState:
        """The stored state with its best tensors. Raises ArtifactError if it is missing or altered."""
        return self._read()[1]

    def discard(self) -> None:
        """Remove the state once the training's result is written."""
        shutil.rmtree(self.path.parent, ignore_errors=True)

    def _read(self) -> tuple[dict[str, Tensor], TrainingState]:
        try:
            with safe_open(self.path, framework="pt") as file:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
                recorded, _, text = file.metadata()["state"].partition(" ")
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"{self.path}: not readable as a training state ({error})") from error
        if recorded != _hash(tensors, text):
            raise ArtifactError(f"{self.path}: altered: its content does not match its hash")
        try:
            _COUNTERS.validate_json(text)
        except ValidationError as error:
            problem = error.errors()[0]
            raise ArtifactError(f"{self.path}: {'.'.join(map(str, problem['loc']))}: {problem['msg']}") from error
        counters = json.loads(text)  # with integers where validated values are floats
        best = {key: tensor for key, tensor in tensors.items() if key.startswith("best/")}
        return tensors, TrainingState(
            **counters, best_tensors={key.removeprefix("best/"): tensor for key, tensor in best.items()}
        )


_COUNTERS = TypeAdapter(TrainingState)


def _hash(tensors: Mapping[str, Tensor], counters: str) -> str:
    """SHA-256 of the counters, and of the name, type, shape and bytes of every tensor."""
    digest = hashlib.sha256(counters.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_fits(path: Path, tensors: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> None:
    """Raise ArtifactError unless a state's tensors are those of a training of the tensors `trained`."""
    stepped = [name for name in trained if f"{MOMENTS[0]}/{name}" in tensors]
    kinds = {"trained": list(trained), **dict.fromkeys(MOMENTS, stepped)}
    if any(name.startswith("best/") for name in tensors):
        kinds["best"] = list(trained)
    expected = {f"{kind}/{name}": trained[name] for kind, names in kinds.items() for name in names}
    check_shapes(path, tensors, {name: parameter.shape for name, parameter in expected.items()}, "this training")
    for name, tensor in tensors.items():
        if tensor.dtype != expected[name].dtype:
            raise ArtifactError(f"{path}: tensor '{name}' is {tensor.dtype}, expected {expected[name].dtype}")
        if not name.startswith(MOMENTS) and not tensor.isfinite().all():
            raise ArtifactError(f"{path}: tensor '{name}' has values that are not finite")


def _write_back(
    tensors: Mapping[str, Tensor],
    state: TrainingState,
    trained: Mapping[str, Tensor],
    optimizer: HasMoments,
) -> None:
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[f"trained/{name}"])
            if f"exp_avg/{name}" in tensors:
                moments = {kind: tensors[f"{kind}/{name}"].to(parameter.device) for kind in MOMENTS}
                optimizer.state[parameter] = {
                    "step": torch.tensor(float(state.step), device=parameter.device),
                    **moments,
                }
