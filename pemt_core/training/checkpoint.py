"""The whole training state in one safetensors file, replaced atomically; no pickle is written or read.

The state is stored outside a stage's outputs, which DVC deletes before a re-run. Its folder is named by a hash of
everything that the training depends on, so other inputs get another folder.
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pemt_core.artifacts.description import TrainingRecord
from pemt_core.artifacts.files import atomic_file, sha256_of_json
from pemt_core.errors import ArtifactError

FILE = "state.safetensors"
MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass
class TrainingState:
    """The progress of a training. It has no random state, because each step draws from (seed, step)."""

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
    unread: list[tuple[int, list[int], list[float]]] = field(default_factory=list)  # steps, rows and losses to log

    def record(
        self, learning_rate: float, trained_parameters: int, trials: dict[str, float] | None = None
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


class CheckpointStore:
    """Stores the state of one training in `root`/<key>, where the key is a hash of `inputs`."""

    def __init__(self, root: Path, inputs: Any) -> None:
        self.path = Path(root) / sha256_of_json(inputs)[:32] / FILE

    def save(self, state: TrainingState, trained: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
        tensors = {f"trained/{name}": parameter.detach().cpu().contiguous() for name, parameter in trained.items()}
        tensors |= {f"best/{name}": tensor for name, tensor in state.best_tensors.items()}
        for name, parameter in trained.items():
            moments = optimizer.state.get(parameter, {})
            tensors |= {
                f"{kind}/{name}": moments[kind].detach().cpu().contiguous() for kind in MOMENTS if kind in moments
            }
        counters = {key: value for key, value in asdict(state).items() if key != "best_tensors"}
        with atomic_file(self.path) as temporary:
            save_file(tensors, temporary, metadata={"state": json.dumps(counters)})

    def restore(self, trained: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> TrainingState | None:
        """Copy the stored state to `trained` and `optimizer`, and return it; None if nothing is stored."""
        if not self.path.is_file():
            return None
        with self._named_errors():
            tensors, state = self._read()
            _write_back(tensors, state, trained, optimizer)
        return state

    def load(self) -> TrainingState:
        """The stored state with its best tensors. Raises ArtifactError if it is missing or unreadable."""
        with self._named_errors():
            return self._read()[1]

    def discard(self) -> None:
        """Remove the state once the training's result is written."""
        shutil.rmtree(self.path.parent, ignore_errors=True)

    def _read(self) -> tuple[dict[str, Tensor], TrainingState]:
        with safe_open(self.path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            state = TrainingState(**json.loads(file.metadata()["state"]))
        best = {key: tensor for key, tensor in tensors.items() if key.startswith("best/")}
        state.best_tensors = {key.removeprefix("best/"): tensor for key, tensor in best.items()}
        return tensors, state

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{self.path}: not readable as a training state ({error}); delete it to start over"
            ) from error


def _write_back(
    tensors: dict[str, Tensor], state: TrainingState, trained: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer
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
