"""The training loop, on accelerate.

transformers' Seq2SeqTrainer does not fit: the loss has a second term whose parts come from inside the backbone, only a
named set of tensors is trained and stored, checkpoints must hold no pickle, and an exact resume should not depend on
the state of a sampler. Overriding all this would leave little of the Trainer; accelerate does the rest (devices,
processes, precision).
"""

import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from pemt_core.errors import TrainingError
from pemt_core.interruption import Interrupted, asked_for, deferred
from pemt_core.training.checkpoint import CheckpointStore, TrainingState
from pemt_core.training.loader import Loader, TrainingData
from pemt_core.training.meter import Meter
from pemt_core.training.optimizer import linear_schedule, make_optimizer
from pemt_core.training.settings import TrainingSettings

logger = logging.getLogger(__name__)

Log = Callable[[int, dict[str, float]], None]
LOGGED_STEPS = 10  # losses stay on the device for this many steps: reading one makes a GPU wait


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation: the score that selects (higher is better), and named metrics."""

    score: float
    metrics: dict[str, float]


class Trainer:
    """Trains `model.trained` and leaves the best-scoring tensors in the model.

    `batch_size` counts the rows of an optimizer step, over all processes and all accumulated parts.
    """

    def __init__(
        self,
        model: Any,
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
        progress_bar: bool = True,
        learning_rate_factors: Mapping[str, float] | None = None,
    ) -> None:
        """`learning_rate_factors` multiply the learning rate of the trained tensors by name; the default is 1."""
        self.model, self.data, self.evaluate = model, data, evaluate
        self.loader = Loader(data, accelerator.device, ahead=accelerator.device.type == "cuda")
        self.settings, self.accelerator, self.store = settings, accelerator, store
        self.learning_rate, self.seed, self.log, self.title = learning_rate, seed, log, title
        self.progress_bar = progress_bar
        self.trained: dict[str, nn.Parameter] = model.trained
        optimizer = make_optimizer(self.trained, learning_rate, learning_rate_factors or {})
        self.prepared, self.optimizer = accelerator.prepare(model, optimizer)
        self.state = TrainingState()
        self.until: Fraction | None = None
        self.pending: list[tuple[int, NDArray[np.int64], Tensor]] = []
        self.saved_step = -1
        self.meter = Meter(accelerator.device)
        self.shown: dict[str, str] = {}  # beside the progress bar
        steps_per_epoch = len(data.batches(0))
        if not steps_per_epoch:
            raise TrainingError(f"{title}: there are no training rows")
        most = sys.maxsize if settings.max_steps is None else settings.max_steps
        self.total_steps = min(settings.epochs * steps_per_epoch, most)
        self.steps_per_evaluation = (
            steps_per_epoch if settings.evaluate_every == "epoch" else int(settings.evaluate_every)
        )

    def fit(self, until: Fraction | None = None) -> TrainingState:
        """Train to the end, resuming from a stored state.

        `until` ends it earlier, at the first evaluation at or after this share of the steps; the state is saved with
        the best score so far, and another `fit` goes on from there as if nothing had ended.

        Raises TrainingError if the loss is not finite, and Interrupted on a signal, with the state saved if the step
        ends soon. Processes that share the training end at once, since they get the signal at different steps.
        """
        self.until = until
        self._resume()
        try:
            with deferred() if self.accelerator.num_processes == 1 else nullcontext():
                self._train()
        except Interrupted as stopped:
            raise self._explained(stopped) from None
        finally:
            self.loader.close()
        self.accelerator.wait_for_everyone()
        with torch.no_grad():
            for name, tensor in self.state.best_tensors.items():
                self.trained[name].copy_(tensor)
        self.accelerator.free_memory()
        return self.state

    def _resume(self) -> None:
        restored = self.store.restore(self.trained, self._plain_optimizer())
        if restored is not None:
            self.state, device = restored, self.accelerator.device
            self.pending = [
                (step, np.array(rows), torch.tensor(loss, device=device)) for step, rows, loss in restored.unread
            ]
            logger.info("%s: resumed after step %d of %d", self.title, self.state.step, self.total_steps)

    def _train(self) -> None:
        with self._progress_bar() as bar:
            if not (self.total_steps or self._has_ended):
                self._after_step(bar)
            for rows in self._remaining_batches():
                self._step(rows)
                bar.update()
                self._after_step(bar)
                if self._has_ended:
                    break
                if stopped := asked_for():
                    self._save_between_checkpoints()
                    raise stopped

    def _remaining_batches(self) -> Iterator[NDArray[np.int64]]:
        state = self.state
        while not self._has_ended:
            batches = self.data.batches(state.epoch)
            while state.batch < len(batches):
                for following in batches[state.batch + 1 : state.batch + 2]:
                    self.loader.announce(self._parts(following), state.epoch)
                yield batches[state.batch]
            state.epoch, state.batch = state.epoch + 1, 0

    @property
    def _has_ended(self) -> bool:
        return self.state.finished or (self.until is not None and self.state.early_score is not None)

    def _step(self, rows: NDArray[np.int64]) -> None:
        """Take one optimizer step over `rows`, in as many parts as are accumulated."""
        state, accelerator, parts = self.state, self.accelerator, self._parts(rows)
        self.prepared.train()
        seed = np.random.SeedSequence([self.seed, state.step, accelerator.process_index]).generate_state(1)
        torch.manual_seed(int(seed[0]))  # dropout depends on (seed, step) alone: a resumed run repeats it
        schedule = linear_schedule(state.step, self.settings.warmup_steps, self.total_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * schedule * group["factor"]
        losses, num_rows = [], sum(map(len, parts))
        for index, part in enumerate(parts):
            with accelerator.no_sync(self.prepared) if index < len(parts) - 1 else nullcontext():
                losses.append(self._backward(part, len(part) / num_rows))
        accelerator.clip_grad_norm_(self.trained.values(), self.settings.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.pending.append((state.step, rows, torch.stack(losses).sum(0)))
        state.step, state.batch = state.step + 1, state.batch + 1

    def _parts(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """The rows of a step that this process takes, in as many parts as are accumulated."""
        shard = rows[self.accelerator.process_index :: self.accelerator.num_processes]
        shard = shard if len(shard) else rows[:1]  # every process must take part in the exchange of gradients
        return np.array_split(shard, min(self.settings.gradient_accumulation, len(shard)))

    def _backward(self, rows: NDArray[np.int64], share: float) -> Tensor:
        """Run forward and backward on one part; returns [loss, sparsity loss] times its share, on the device."""
        batch = self.loader.load(rows, self.state.epoch)
        with self.accelerator.autocast():
            output = self.prepared(**batch)
        self.meter.sample()  # with all that the backward pass needs
        self.accelerator.backward(output.loss * share)
        sparsity = getattr(output, "sparsity_loss", None)
        parts = [output.loss.detach(), torch.zeros_like(output.loss) if sparsity is None else sparsity.detach()]
        return torch.stack(parts).float() * share

    def _after_step(self, bar: Any) -> None:
        """Do what is due: read losses, evaluate, stop early, save a checkpoint."""
        state, settings = self.state, self.settings
        at_end = state.step >= self.total_steps
        evaluates = at_end or state.step % self.steps_per_evaluation == 0
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
        if (saves or self._has_ended) and self.accelerator.is_main_process:
            self._save([])

    def _save(self, unread: list[tuple[int, list[int], list[float]]]) -> None:
        self.state.unread = unread
        self.state.seconds += self.meter.seconds()
        self.meter.sample()
        self.state.peak_memory_mib = max(self.state.peak_memory_mib, self.meter.peak_memory_mib)
        self.store.save(self.state, self.trained, self._plain_optimizer())
        self.saved_step = self.state.step

    def _save_between_checkpoints(self) -> None:
        """Save with the losses that are still to be read, so that the history does not depend on the interruption.

        Numbers that are not finite are not saved: the resumed training meets and reports them again.
        """
        losses = [(step, rows.tolist(), loss.tolist()) for step, rows, loss in self.pending]
        tensors = [torch.tensor([loss for _, _, loss in losses]), *self.trained.values()]
        if all(bool(tensor.isfinite().all()) for tensor in tensors):
            self._save(losses)

    def _explained(self, stopped: Interrupted) -> Interrupted:
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

    def _divergence(self, problem: str, step: int) -> TrainingError:
        kept = "the last good checkpoint is kept" if self.store.path.is_file() else "there is no checkpoint yet"
        return TrainingError(
            f"{self.title}: {problem} step {step} of {self.total_steps} (epoch {self.state.epoch + 1}, learning rate "
            f"{self.learning_rate:g}); {kept} ({self.store.path}). Lower the learning rate, or use float32"
        )

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

    def _plain_optimizer(self) -> torch.optim.Optimizer:
        plain: torch.optim.Optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        return plain

    def _progress_bar(self) -> Any:
        return tqdm(
            total=self.total_steps,
            initial=self.state.step,
            desc=self.title,
            unit="step",
            mininterval=0.5 if sys.stderr.isatty() else 15.0,  # a log file gets a line every 15 s
            disable=not (self.progress_bar and self.accelerator.is_local_main_process),
        )
