"""The rows of one task as the training loop reads them, in either stage."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from pemt_core.answering.rule import AnswerRule
from pemt_core.answering.split import EvaluationSplit, predict
from pemt_core.data.batches import epoch_batches
from pemt_core.data.few_shot import few_shot_rows
from pemt_core.data.prepared import PreparedTask
from pemt_core.data.tokenized import TokenizedSplit, answer_length, tokenize
from pemt_core.model.prompted import PromptedModel
from pemt_core.training.course import Evaluation
from pemt_core.training.settings import SelectBy, TrainingSettings

FewShot = Literal["full"] | int


@dataclass(frozen=True)
class TaskRows:
    """Training rows, all or a sample of them, in batches that depend on (seed, epoch)."""

    split: TokenizedSplit
    rows: NDArray[np.int64]
    batch_size: int
    seed: int
    pad_to_multiple_of: int = 1

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        lengths = self.split.sources.lengths[self.rows]
        return [self.rows[batch] for batch in epoch_batches(lengths, self.batch_size, self.seed, epoch)]

    def collate(self, rows: NDArray[np.int64], epoch: int) -> dict[str, Tensor]:
        return self.split.batch(rows, self.pad_to_multiple_of)


@dataclass(frozen=True)
class TaskData:
    """One prepared task, tokenized once for all trainings on it."""

    prepared: PreparedTask
    training: TokenizedSplit
    targets: list[str]
    validation: EvaluationSplit

    @classmethod
    def load(cls, prepared: PreparedTask, tokenizer: Any, settings: TrainingSettings, source_length: int) -> "TaskData":
        task, rows = prepared.task, prepared.rows("train")
        targets = rows["target"].to_pylist()
        training = tokenize(
            rows["source"].to_pylist(),
            targets,
            tokenizer,
            source_length=source_length,
            target_length=answer_length(task, tokenizer),
        )
        validation = EvaluationSplit.of(
            task,
            prepared.rows("validation"),
            tokenizer,
            source_length=source_length,
            max_rows=settings.validation_rows,
        )
        return cls(prepared, training, targets, validation)

    def rows(self, settings: TrainingSettings, seed: int, k: FewShot, rare_class: Literal["error", "all"]) -> TaskRows:
        """All training rows, or the few-shot sample of `seed`; a few-shot batch has k rows (the authors' rule)."""
        multiple_of = settings.pad_to_multiple_of
        if k == "full":
            return TaskRows(self.training, np.arange(len(self.training)), settings.batch_size, seed, multiple_of)
        task = self.prepared.task
        sample = few_shot_rows(
            self.targets, task.labels, int(k), seed, rare_class=rare_class, task=task.name, shown=task.shown
        )
        return TaskRows(self.training, sample, int(k), seed, multiple_of)

    def evaluate(
        self,
        model: PromptedModel,
        tokenizer: Any,
        accelerator: Accelerator,
        select_by: SelectBy,
        batch_size: int,
        rule: AnswerRule,
    ) -> Evaluation:
        """Score validation, answered by `rule`."""
        found = predict(model, self.validation, tokenizer, accelerator, rule=rule, batch_size=batch_size)
        return self.evaluation(found.texts, select_by)

    def evaluation(self, texts: list[str], select_by: SelectBy) -> Evaluation:
        """The scores of these answers to validation; the mean of the task's metrics or the main one selects."""
        metrics = self.validation.metrics(texts)
        values = list(metrics.values())
        selected = float(np.mean(values)) if select_by == "mean" else values[0]
        curves = {f"validation/{name}": value for name, value in metrics.items()}
        return Evaluation(selected, {**curves, "validation/main": values[0]})
