"""Several trainings of stage 2 on one backbone, step by step together: the backbone and the experts run once for all.

Each training has its own rows, learning rate, number of steps, clipping, evaluations, checkpoints and end, as alone.
Its checkpoint is the one that it would have alone, so that it may go on in another group or by itself. Losses and
answers equal those alone up to rounding; dropout is drawn for the group as a whole.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from pemt_core.errors import TrainingError
from pemt_core.interruption import Interrupted, asked_for, deferred
from pemt_core.model.copies import copied
from pemt_core.model.grouped.matrix import TensorMatrix
from pemt_core.model.grouped.model import GroupedModel
from pemt_core.training.course import Course, Evaluation
from pemt_core.training.loader import Loader
from pemt_core.training.meter import Meter
from pemt_core.training.optimizer import GroupedAdamW
from pemt_core.training.step_bar import step_bar


class GroupTrainer:
    """Trains the models of a group, each by its course, and leaves the best-scoring tensors of each in its state.

    A training that ends, or whose loss is not finite, leaves the batch; `errors` has the latter by their places.
    """

    def __init__(
        self,
        group: GroupedModel,
        courses: Sequence[Course],
        evaluate: Callable[[Sequence[int]], Mapping[int, Evaluation]],
        accelerator: Accelerator,
        *,
        max_grad_norm: float,
        title: str,
    ) -> None:
        """The courses train the rows of `group.matrix`, in its order. `evaluate` scores the models at some places."""
        self.group, self.courses, self.evaluate = group, courses, evaluate
        self.accelerator, self.max_grad_norm, self.title = accelerator, max_grad_norm, title
        ahead = accelerator.device.type == "cuda"
        self.loaders = [Loader(course.data, accelerator.device, ahead=ahead) for course in courses]
        self.optimizer = GroupedAdamW(group.matrix.values, group.matrix.is_trained)
        self.errors: dict[int, TrainingError] = {}
        self.meter, self.shares = Meter(accelerator.device), [_Share() for _ in courses]

    def fit(self) -> None:
        """Train all to their ends, resuming from stored states. Raises Interrupted on a signal; states are saved."""
        for place, course in enumerate(self.courses):
            course.meter = self.shares[place]
            course.resume(_RowMoments(self.group.matrix, self.optimizer, place, course.trained))
        with deferred(), self._progress_bar() as bar, ExitStack() as loaders:
            for loader in self.loaders:
                loaders.callback(loader.close)
            while active := self._active():
                self._step(active)
                self._after_step(active, bar)
                bar.update(len(active))
                if (left := self._active()) and (stopped := asked_for()):
                    for place in left:
                        self.courses[place].save_between_checkpoints()
                    reason = f"{self.title}: {stopped.reason}; the states of {len(left)} trainings are saved"
                    raise Interrupted(stopped.number, f"{reason}: run the same command again to resume")

    def _active(self) -> list[int]:
        ended = {place for place, course in enumerate(self.courses) if course.has_ended}
        return [place for place in range(len(self.courses)) if place not in ended | self.errors.keys()]

    def _step(self, active: Sequence[int]) -> None:
        """Take a step of every active training."""
        courses = [self.courses[place] for place in active]
        self.group.model.train()
        seeds = [number for course in courses for number in (course.seed, course.state.step)]
        torch.manual_seed(int(np.random.SeedSequence(seeds).generate_state(1)[0]))
        rows = [course.next_rows() for course in courses]
        for place, course in zip(active, courses, strict=True):
            self.loaders[place].announce(course.rows_after_next(), course.state.epoch)
        batches = [
            self.loaders[place].load(own, course.state.epoch)
            for place, course, own in zip(active, courses, rows, strict=True)
        ]
        models = None if len(active) == len(self.courses) else active
        with self.accelerator.autocast():
            output = self.group.losses(batches, models)
        self.meter.sample()  # with all that the backward pass needs
        self.accelerator.backward(output.loss.sum())
        self._update(active)
        sparsity = torch.zeros_like(output.loss) if output.sparsity_loss is None else output.sparsity_loss
        losses = torch.stack([output.loss, sparsity], dim=1).detach().float()
        for course, own, loss in zip(courses, rows, losses, strict=True):
            course.stepped(own, loss)

    def _update(self, active: Sequence[int]) -> None:
        values = self.group.matrix.values
        numbers = torch.zeros(3, len(self.courses))
        for place in active:
            course = self.courses[place]
            numbers[:, place] = torch.tensor([course.rate, course.state.step + 1, 1.0])
        rates, steps, moves = copied(numbers, values.device)
        self.optimizer.step(rates, steps, self.max_grad_norm, moves.bool())

    def _after_step(self, active: Sequence[int], bar: Any) -> None:
        """Do what is due for every training, with all evaluations together."""
        seconds = self.meter.seconds() / len(active)
        due = [place for place in active if self.courses[place].evaluates]
        evaluations = self.evaluate(due) if due else {}
        seconds += self.meter.seconds() / len(active)
        for place in active:
            course = self.courses[place]
            self.shares[place].add(seconds, self.meter.peak_memory_mib // len(self.courses))
            course.evaluate = partial(evaluations.__getitem__, place)
            try:
                course.after_step(bar)
            except TrainingError as error:
                self.errors[place] = error

    def _progress_bar(self) -> Any:
        total = sum(course.total_steps for course in self.courses)
        done = sum(course.state.step for course in self.courses)
        return step_bar(self.title, total, done)


class _RowMoments:
    """One training's part of the optimizer, as a store of checkpoints reads and writes it."""

    def __init__(
        self, matrix: TensorMatrix, optimizer: GroupedAdamW, place: int, trained: Mapping[str, Tensor]
    ) -> None:
        moments = {"exp_avg": optimizer.exp_avg, "exp_avg_sq": optimizer.exp_avg_sq}
        views = {kind: matrix.tensors(place, values) for kind, values in moments.items()}
        self.state = _Views({tensor: {kind: views[kind][name] for kind in views} for name, tensor in trained.items()})


class _Views(dict[Tensor, dict[str, Tensor]]):
    """Moments of tensors, as views of larger ones: what is set is copied to where the view is."""

    def __setitem__(self, tensor: Tensor, values: Mapping[str, Tensor]) -> None:
        for kind, view in self[tensor].items():
            view.copy_(values[kind])


class _Share(Meter):
    """One training's share of what a group takes."""

    def __init__(self) -> None:
        self._seconds, self._mib = 0.0, 0

    def add(self, seconds: float, peak_memory_mib: int) -> None:
        self._seconds, self._mib = self._seconds + seconds, max(self._mib, peak_memory_mib)

    def sample(self) -> None:
        """The group samples the memory."""

    def seconds(self) -> float:
        taken, self._seconds = self._seconds, 0.0
        return taken

    @property
    def peak_memory_mib(self) -> int:
        return self._mib
