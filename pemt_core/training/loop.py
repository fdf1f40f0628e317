"""The training loop, on accelerate.

transformers' Seq2SeqTrainer does not fit: the loss has a second term whose parts come from inside the backbone, only a
named set of tensors is trained and stored, checkpoints must hold no pickle, and an exact resume should not depend on
the state of a sampler. Overriding all this would leave little of the Trainer; accelerate does the rest (devices,
processes, precision).
"""

from collections.abc import Mapping
from contextlib import ExitStack, nullcontext
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pemt_core.interruption import Interrupted, asked_for, deferred
from pemt_core.training.checkpoint import TrainingState
from pemt_core.training.compiled import compiled_layers
from pemt_core.training.course import Course
from pemt_core.training.loader import Loader
from pemt_core.training.optimizer import make_optimizer
from pemt_core.training.step_bar import step_bar


class Trainer:
    """Trains `model.trained` and leaves the best-scoring tensors in the model.

    `batch_size` counts the rows of an optimizer step, over all processes and all accumulated parts.
    """

    def __init__(
        self,
        model: Any,
        course: Course,
        *,
        progress_bar: bool = True,
        learning_rate_factors: Mapping[str, float] | None = None,
    ) -> None:
        """`course` is of `model.trained`; `learning_rate_factors` are by name of a trained tensor, or 1."""
        self.model, self.course, self.progress_bar = model, course, progress_bar
        self.settings, self.accelerator = course.settings, course.accelerator
        device = self.accelerator.device
        self.loader = Loader(course.data, device, ahead=device.type == "cuda")
        self.trained: dict[str, nn.Parameter] = model.trained
        optimizer = make_optimizer(self.trained, course.learning_rate, learning_rate_factors or {})
        self.prepared, self.optimizer = self.accelerator.prepare(model, optimizer)

    def fit(self, until: Fraction | None = None) -> TrainingState:
        """Train to the end, resuming from a stored state.

        `until` ends it earlier, at the first evaluation at or after this share of the steps; the state is saved with
        the best score so far, and another `fit` goes on from there as if nothing had ended.

        Raises TrainingError if the loss is not finite, and Interrupted on a signal, with the state saved if the step
        ends soon. Processes that share the training end at once, since they get the signal at different steps.
        """
        self.course.until = until
        self.course.resume(getattr(self.optimizer, "optimizer", self.optimizer))
        try:
            with ExitStack() as during:
                if self.settings.compile:
                    repeat = self.settings.pad_to_multiple_of > 1
                    during.enter_context(compiled_layers(self.model, lengths_repeat=repeat))
                if self.accelerator.num_processes == 1:
                    during.enter_context(deferred())
                self._train()
        except Interrupted as stopped:
            raise self.course.explained(stopped) from None
        finally:
            self.loader.close()
        self.accelerator.wait_for_everyone()
        self.course.keep_best()
        self.accelerator.free_memory()
        return self.course.state

    def _train(self) -> None:
        course = self.course
        shown = self.progress_bar and self.accelerator.is_local_main_process
        with step_bar(course.title, course.total_steps, course.state.step, shown=shown) as bar:
            if not (course.total_steps or course.has_ended):
                course.after_step(bar)
            while not course.has_ended:
                for following in course.rows_after_next():
                    self.loader.announce((part for part, _ in self._parts(following)), course.state.epoch)
                self._step(course.next_rows())
                bar.update()
                course.after_step(bar)
                if not course.has_ended and (stopped := asked_for()):
                    course.save_between_checkpoints()
                    raise stopped

    def _step(self, rows: NDArray[np.int64]) -> None:
        """Take one optimizer step over `rows`, in as many parts as are accumulated."""
        course, accelerator, parts = self.course, self.accelerator, self._parts(rows)
        self.prepared.train()
        seed = np.random.SeedSequence([course.seed, course.state.step, accelerator.process_index]).generate_state(1)
        torch.manual_seed(int(seed[0]))  # dropout depends on (seed, step) alone: a resumed run repeats it
        for group in self.optimizer.param_groups:
            group["lr"] = course.rate * group["factor"]
        losses = []
        for index, (part, share) in enumerate(parts):
            with accelerator.no_sync(self.prepared) if index < len(parts) - 1 else nullcontext():
                losses.append(self._backward(part, share))
        accelerator.clip_grad_norm_(self.trained.values(), self.settings.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        course.stepped(rows, torch.stack(losses).sum(0))

    def _parts(self, rows: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], float]]:
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        return parts_of(rows, process, processes, self.settings.gradient_accumulation)

    def _backward(self, rows: NDArray[np.int64], share: float) -> Tensor:
        """Run forward and backward on one part; returns [loss, sparsity loss] times its share, on the device."""
        batch = self.loader.load(rows, self.course.state.epoch)
        with self.accelerator.autocast():
            output = self.prepared(**batch)
        self.course.meter.sample()  # with all that the backward pass needs
        self.accelerator.backward(output.loss * share)
        sparsity = getattr(output, "sparsity_loss", None)
        parts = [output.loss.detach(), torch.zeros_like(output.loss) if sparsity is None else sparsity.detach()]
        return torch.stack(parts).float() * share


def parts_of(
    rows: NDArray[np.int64], process: int, processes: int, accumulation: int
) -> list[tuple[NDArray[np.int64], float]]:
    """The rows of a step that a process takes, in as many parts as are accumulated, each with the share of its loss.

    In the mean over processes every row weighs the same, also where some have fewer. A process without rows takes one
    that weighs nothing, since all must take part in the exchange of gradients.
    """
    shard = rows[process::processes]
    taken = shard if len(shard) else rows[:1]
    parts = np.array_split(taken, min(accumulation, len(taken)))
    return [(part, len(part) * processes / len(rows) if len(shard) else 0.0) for part in parts]
