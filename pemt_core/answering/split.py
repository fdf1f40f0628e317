"""Answers to a split of a task and their scores, for validation and for the test."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pemt_core.answering.answers import Answerer, answer_read
from pemt_core.answering.gates import GateStatistics, gate_statistics
from pemt_core.answering.rule import AnswerRule
from pemt_core.data.batches import length_batches
from pemt_core.data.prepared import TaskDescription
from pemt_core.data.tokenized import TokenizedTexts
from pemt_core.metrics import Scored, score
from pemt_core.model.grouped.model import GroupedModel
from pemt_core.model.prompted import PromptedModel

Weights = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Predictions:
    """Answers in the order of the rows, and over them the expert weights of every layer."""

    texts: list[str]
    expert_weights: Weights  # "encoder.0" to their mean (E,); empty for a model without experts
    gates: Mapping[str, GateStatistics]  # "encoder.0" to how they spread and depend on the row


@dataclass(frozen=True)
class EvaluationSplit:
    """Rows of one split, ready to be answered and scored."""

    task: TaskDescription
    texts: TokenizedTexts
    references: list[list[str]]
    groups: list[str]
    ids: list[str]

    @classmethod
    def of(
        cls, task: TaskDescription, rows: pa.Table, tokenizer: Any, *, source_length: int, max_rows: int | None
    ) -> "EvaluationSplit":
        """Take the first `max_rows` rows (None: all).

        Preparation fixes their order, seeded or the publisher's, so every run takes the same rows.
        """
        kept = rows if max_rows is None else rows.slice(0, max_rows)
        columns = {name: kept[name].to_pylist() for name in kept.column_names}
        texts = TokenizedTexts.of(columns["source"], tokenizer, source_length)
        return cls(task, texts, columns["references"], columns["group"], columns["id"])

    def __len__(self) -> int:
        return len(self.ids)

    def scored(self, predictions: Sequence[str]) -> Scored:
        return Scored(list(predictions), self.references, self.groups, self.task.labels)

    def metrics(self, predictions: Sequence[str]) -> dict[str, float]:
        """Every metric of the task, the main one first, in points."""
        return score(self.task.metrics, self.scored(predictions))


def predict(
    model: PromptedModel,
    split: EvaluationSplit,
    tokenizer: Any,
    accelerator: Accelerator,
    *,
    rule: AnswerRule,
    batch_size: int,
) -> Predictions:
    """Answer every row, in batches of similar length; all processes get all predictions."""
    found: list[tuple[int, str]] = []
    weights: list[dict[str, Tensor]] = []  # of each batch, by row
    batches = length_batches(split.texts.texts.lengths, batch_size)
    shard = batches[accelerator.process_index :: accelerator.num_processes]
    with accelerator.autocast():
        for batch in Answerer(tokenizer, split.task, rule).answer(model, split.texts, shard, probabilities=False):
            found += [(int(row), text) for row, text in zip(batch.rows, batch.texts, strict=True)]
            weights.append({name: w.double().cpu() for name, w in batch.expert_weights.items()})
    if accelerator.num_processes > 1:
        found, weights = gather_object(found), gather_object(weights)
    names = weights[0] if weights else {}
    means = {name: np.sum([part[name].sum(0).numpy() for part in weights], axis=0) / len(split) for name in names}
    gates = {name: gate_statistics([part[name].numpy() for part in weights]) for name in names}
    return Predictions([text for _, text in sorted(found)], means, gates)


def predict_together(
    group: GroupedModel,
    splits: Mapping[int, EvaluationSplit],
    tokenizer: Any,
    accelerator: Accelerator,
    *,
    rule: AnswerRule,
    batch_size: int,
) -> dict[int, list[str]]:
    """Answer the rows of a split by each of several models of a group; a model is named by its place in the group.

    A batch has up to `batch_size` rows of every model. Tasks with label words and others are answered apart, since free
    text is longer.
    """
    group.model.eval()
    found: dict[int, list[str]] = {}
    with accelerator.autocast():
        for has_labels in (True, False):
            part = {place: each for place, each in splits.items() if (each.task.labels is not None) == has_labels}
            answerers = {place: Answerer(tokenizer, each.task, rule) for place, each in part.items()}
            texts: dict[int, dict[int, str]] = {place: {} for place in part}
            for batch in _batches_together(part, batch_size):
                for place, row, text in _answered_together(group, part, answerers, batch):
                    texts[place][row] = text
            found |= {place: [of_rows[row] for row in range(len(of_rows))] for place, of_rows in texts.items()}
    return found


def _batches_together(splits: Mapping[int, EvaluationSplit], size: int) -> Iterator[dict[int, NDArray[np.int64]]]:
    """Yield the rows of every model in batches, as `length_batches` has them for each alone."""
    batches = {place: length_batches(each.texts.texts.lengths, size) for place, each in splits.items()}
    for number in range(max(map(len, batches.values()), default=0)):
        yield {place: own[number] for place, own in batches.items() if number < len(own)}


def _answered_together(
    group: GroupedModel,
    splits: Mapping[int, EvaluationSplit],
    answerers: Mapping[int, Answerer],
    batch: Mapping[int, NDArray[np.int64]],
) -> Iterator[tuple[int, int, str]]:
    """Yield place, row and answer. A model with fewer rows than another has its last one several times."""
    most, device = max(map(len, batch.values())), group.model.backbone.device
    padded = {place: np.pad(rows, (0, most - len(rows)), mode="edge") for place, rows in batch.items()}
    parts = [splits[place].texts.batch(rows) for place, rows in padded.items()]
    width = max(ids.shape[1] for ids, _ in parts)
    ids, mask = (torch.cat([F.pad(part[side], (0, width - part[side].shape[1])) for part in parts]) for side in (0, 1))
    of_rows = [answerers[place] for place in padded for _ in range(most)]
    with group.encoded(ids.to(device), mask.to(device), [*padded]) as encoded:
        numbers = np.concatenate(list(padded.values()))
        texts = answer_read(group.model.signal, encoded, numbers, of_rows, probabilities=False).texts
    for start, (place, rows) in enumerate(batch.items()):
        yield from ((place, int(row), texts[start * most + offset]) for offset, row in enumerate(rows))
