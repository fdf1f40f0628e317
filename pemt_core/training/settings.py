"""The settings of the training loop."""

from typing import Literal

from pemt_core.schema.group import Group
from pemt_core.schema.numbers import Bound, Count, Natural, Precision, Rate

SelectBy = Literal["mean", "main"]
Search = Literal["full", "halving"]
GroupRows = Literal["auto", "off"] | Count  # the most rows of a step that several trainings share


class TrainingSettings(Group):
    """Settings of every training; a method has several learning rates, other trainings have one."""

    batch_size: Count
    gradient_accumulation: Count
    epochs: Count
    max_steps: Natural | None  # 0: a single evaluation of the start
    warmup_steps: Natural
    max_grad_norm: Rate
    precision: Precision
    evaluate_every: Literal["epoch"] | Count
    validation_rows: Bound
    early_stop: Bound
    checkpoint_every: Count
    compile: bool = False  # of the layers; older adapters lack it and what follows
    pad_to_multiple_of: Count = 1

    def total_steps(self, steps_per_epoch: int) -> int:
        """The steps of a training that does not stop early."""
        steps = self.epochs * steps_per_epoch
        return steps if self.max_steps is None else min(steps, self.max_steps)


class FixedRateTraining(TrainingSettings):
    learning_rate: Rate
