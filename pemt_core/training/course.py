"""A training between its steps: which rows come next, and what is due: reading losses, evaluation, a checkpoint."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from pemt_core.errors import TrainingError
from pemt_core.interruption import Interrupted
from pemt_core.training.checkpoint import CheckpointStore, TrainingState
from pemt_core.training.compiled import uncompiled
from pemt_core.training.loader import TrainingData
from pemt_core.training.meter import Meter
from pemt_core.training.optimizer import linear_schedule
from pemt_core.training.settings import TrainingSettings

logger = logging.getLogger(__name__)

Log = Callable[[int, dict[str, float]], None]
LOGGED_STEPS = 10  # losses stay on the device for this many steps: reading one makes a GPU wait


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation: the score that selects (higher is better), and named metrics."""

    score: float
    metrics: dict[str, float]


class DivergenceError(TrainingError):
    """The loss or a trained tensor is no longer finite. `spent` has the steps, time and memory until then."""

    spent: TrainingState


class Course:
    """One training: its state, and the tensors that it trains, which whoever takes its steps changes.

    A step takes `next_rows()`, then calls `stepped` and `after_step`.
    """

    def __init__(
        self,
        trained: Mapping[str, Tensor],
        data: TrainingData,
        evaluate: Callable[[], Evaluation],
        settings: TrainingSettings,
        accelerator: Accelerator,
        store: CheckpointStore,
        *,
        learning_rate: float,
        seed: int,
        log: Log,
        title: str,
        flush: Callable[[], None] = lambda: None,
        until: Fraction | None = None,
    ) -> None:
        """`flush` is called after each checkpoint; `until` ends it at the first evaluation after this share of it."""
        self.trained, self.data = trained, data
        self.evaluate = uncompiled(evaluate) if settings.compile else evaluate
        self.settings, self.accelerator, self.store = settings, accelerator, store
        self.learning_rate, self.seed, self.log, self.title = learning_rate, seed, log, title
        self.flush, self.until = flush, until
        self.optimizer: Any = None
        self.state = TrainingState()
        self.pending: list[tuple[int, NDArray[np.int64], Tensor]] = []
        self.saved_step = -1
        self.meter = Meter(accelerator.device)
        self.shown: dict[str, str] = {}  # beside the progress bar
        self._batches = 0, data.batches(0)  # of an epoch
        steps_per_epoch = len(self._batches[1])
        if not steps_per_epoch:
            raise TrainingError(f"{title}: there are no training rows")
        self.total_steps = settings.total_steps(steps_per_epoch)
        self.steps_per_evaluation = (
            steps_per_epoch if settings.evaluate_every == "epoch" else int(settings.evaluate_every)
        )

    def resume(self, optimizer: Any) -> None:
        """Continue from a stored state, if there is one; `optimizer` has its moments by trained tensor."""
        self.optimizer = optimizer
        restored = self.store.restore(self.trained, self.optimizer)
        if restored is not None:
            self.state, device = restored, self.accelerator.device
            self.pending = [
                (step, np.array(rows), torch.tensor(loss, device=device)) for step, rows, loss in restored.unread
            ]
            logger.info("%s: resumed after step %d of %d", self.title, self.state.step, self.total_steps)

    def next_rows(self) -> NDArray[np.int64]:
        """The rows of the next step, in epochs that follow one another."""
        state = self.state
        while state.batch >= len(self._batches_of(state.epoch)):
            state.epoch, state.batch = state.epoch + 1, 0
        return self._batches_of(state.epoch)[state.batch]

    def rows_after_next(self) -> list[NDArray[np.int64]]:
        """The rows of the step after the next one, in a list; it is empty at the end of an epoch."""
        return self._batches_of(self.state.epoch)[self.state.batch + 1 : self.state.batch + 2]

    def _batches_of(self, epoch: int) -> list[NDArray[np.int64]]:
        if self._batches[0] != epoch:
            self._batches = epoch, self.data.batches(epoch)
        return self._batches[1]

    def stepped(self, rows: NDArray[np.int64], loss: Tensor) -> None:
        """Count a step over `rows`; `loss` is [loss, sparsity loss] on the device."""
        self.pending.append((self.state.step, rows, loss))
        self.state.step, self.state.batch = self.state.step + 1, self.state.batch + 1

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return self.learning_rate * linear_schedule(self.state.step, self.settings.warmup_steps, self.total_steps)

    @property
    def has_ended(self) -> bool:
        return self.state.finished or (self.until is not None and self.state.early_score is not None)

    @property
    def evaluates(self) -> bool:
        """Whether an evaluation is due after the last step."""
        return self.state.step >= self.total_steps or self.state.step % self.steps_per_evaluation == 0

    def after_step(self, bar: Any) -> None:
        """Do what is due: read losses, evaluate, stop early, save a checkpoint."""
        state, settings = self.state, self.settings
        at_end, evaluates = state.step >= self.total_steps, self.evaluates
        saves = at_end or state.step % settings.checkpoint_every == 0
        if evaluates or saves or len(self.pending) >= LOGGED_STEPS:
            self._read_losses(bar)
        if evaluates or saves:
            self._check_tensors()  # so that a state with numbers that are not finite is never saved
        if evaluates:
            self._evaluate(bar)
        patience = settings.early_stop
        state.finished = at_end or (patience is not None and state.evaluations_since_best >= patience)
        if self.until is not None and (state.finished or (evaluates and state.step >= self.until * self.total_steps)):
            state.early_score = state.best_score
        if (saves or self.has_ended) and self.accelerator.is_main_process:
            self._save([])
            self.flush()

    def _save(self, unread: list[tuple[int, list[int], list[float]]]) -> None:
        self.state.unread = unread
        self._measure()
        self.store.save(self.state, self.trained, self.optimizer)
        self.saved_step = self.state.step

    def _measure(self) -> None:
        """Count the time and memory since the last call."""
        self.state.seconds += self.meter.seconds()
        self.meter.sample()
        self.state.peak_memory_mib = max(self.state.peak_memory_mib, self.meter.peak_memory_mib)

    def save_between_checkpoints(self) -> None:
        """Save with the losses that are still to be read, so that the history does not depend on the interruption.

        Numbers that are not finite are not saved: the resumed training meets and reports them again.
        """
        losses = [(step, rows.tolist(), loss.tolist()) for step, rows, loss in self.pending]
        tensors = [torch.tensor([loss for _, _, loss in losses]), *self.trained.values()]
        if all(bool(tensor.isfinite().all()) for tensor in tensors):
            self._save(losses)

    def explained(self, stopped: Interrupted) -> Interrupted:
        """The interruption with what is kept of this training."""
        if self.saved_step == self.state.step:
            kept = "the state is saved: run the same command again to resume"
        elif self.store.path.is_file():
            kept = "the last checkpoint is kept: run the same command again to resume"
        else:
            kept = "there is no checkpoint yet: the same command starts again"
        place = f"after step {self.state.step} of {self.total_steps}"
        return Interrupted(stopped.number, f"{self.title}: {stopped.reason} {place}; {kept}")

    def _read_losses(self, bar: Any) -> None:
        if not self.pending:
            return
        losses = self.accelerator.reduce(torch.stack([entry[2] for entry in self.pending]), reduction="mean").cpu()
        for (step, rows, _), loss in zip(self.pending, losses[:, 0].tolist(), strict=True):
            if not math.isfinite(loss):
                raise self._divergence(f"the loss is {loss} for training rows {sorted(rows.tolist())} at", step + 1)
        self.pending.clear()
        loss, sparsity = losses.mean(0).tolist()
        metrics = {"train/loss": loss} | ({"train/sparsity_loss": sparsity} if sparsity else {})
        self.shown["loss"] = f"{loss:.3f}"
        bar.set_postfix(self.shown, refresh=False)
        self._record(metrics)

    def _check_tensors(self) -> None:
        """Check that all are finite: the last step may have had a finite loss and an infinite gradient."""
        finite = torch.stack([parameter.isfinite().all() for parameter in self.trained.values()]).tolist()
        if not all(finite):
            name = list(self.trained)[finite.index(False)]
            raise self._divergence(f"{name} is no longer finite after", self.state.step)

    def _divergence(self, problem: str, step: int) -> DivergenceError:
        kept = "the last good checkpoint is kept" if self.store.path.is_file() else "there is no checkpoint yet"
        error = DivergenceError(
            f"{self.title}: {problem} step {step} of {self.total_steps} (epoch {self.state.epoch + 1}, learning rate "
            f"{self.learning_rate:g}); {kept} ({self.store.path}). Lower the learning rate, or use float32"
        )
        self._measure()
        error.spent = TrainingState(
            self.state.step, finished=True, seconds=self.state.seconds, peak_memory_mib=self.state.peak_memory_mib
        )
        return error

    def _evaluate(self, bar: Any) -> None:
        state = self.state
        evaluation = self.evaluate()
        self._record(evaluation.metrics)
        state.evaluations_since_best += 1
        if state.best_score is None or evaluation.score > state.best_score:
            state.best_score, state.best_step, state.best_metrics = evaluation.score, state.step, evaluation.metrics
            state.evaluations_since_best = 0
            state.best_tensors = {n: p.detach().cpu().clone().contiguous() for n, p in self.trained.items()}
        self.shown["best"] = f"{state.best_score:.2f}"
        bar.set_postfix(self.shown, refresh=False)

    def _record(self, metrics: dict[str, float]) -> None:
        self.state.history.append({"step": self.state.step, **metrics})
        if self.accelerator.is_main_process:
            self.log(self.state.step, metrics)

    def keep_best(self) -> None:
        """Leave the best-scoring tensors in the trained ones."""
        with torch.no_grad():
            for name, tensor in self.state.best_tensors.items():
                self.trained[name].copy_(tensor)
