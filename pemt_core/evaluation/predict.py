"""Greedy generation over a split, and its score."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from accelerate import Accelerator
from accelerate.utils import gather_object
from numpy.typing import NDArray

from pemt_core.data.batches import length_batches
from pemt_core.data.prepared import TaskDescription
from pemt_core.data.tokenized import TokenizedSplit, tokenize
from pemt_core.metrics import Scored, score
from pemt_core.model.prompted import PromptedT5

Weights = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Predictions:
    """Generated texts in the order of the rows, and the mean expert weights of every layer over them."""

    texts: list[str]
    expert_weights: Weights  # "encoder.0" to (E,); empty for a model without experts


@dataclass(frozen=True)
class EvaluationSplit:
    """Rows of one split, ready to be generated for and scored."""

    task: TaskDescription
    tokenized: TokenizedSplit
    references: list[list[str]]
    groups: list[str]
    ids: list[str]

    @classmethod
    def of(
        cls, task: TaskDescription, rows: pa.Table, tokenizer: Any, *, source_length: int, max_rows: int | None
    ) -> "EvaluationSplit":
        """The first `max_rows` rows (None: all); preparation has already put them in a seeded order or left the
        publisher's, so a bound keeps the same rows in every run."""
        kept = rows if max_rows is None else rows.slice(0, max_rows)
        columns = {name: kept[name].to_pylist() for name in kept.column_names}
        tokenized = tokenize(
            columns["source"],
            columns["target"],
            tokenizer,
            source_length=source_length,
            target_length=task.generation_length,
        )
        return cls(task, tokenized, columns["references"], columns["group"], columns["id"])

    def __len__(self) -> int:
        return len(self.ids)

    def scored(self, predictions: Sequence[str]) -> Scored:
        return Scored(list(predictions), self.references, self.groups, self.task.labels)

    def metrics(self, predictions: Sequence[str]) -> dict[str, float]:
        """Every metric of the task, the main one first, in points."""
        return score(self.task.metrics, self.scored(predictions))


def predict(
    model: PromptedT5, split: EvaluationSplit, tokenizer: Any, accelerator: Accelerator, *, batch_size: int
) -> Predictions:
    """Generate greedily for every row, rows of like length together; all processes get all predictions."""
    model.eval()
    found: list[tuple[int, str]] = []
    weights: list[dict[str, NDArray[np.float64]]] = []
    batches = length_batches(split.tokenized.sources.lengths, batch_size)
    for rows in batches[accelerator.process_index :: accelerator.num_processes]:
        batch = split.tokenized.batch(rows)
        with accelerator.autocast():
            ids = model.generate(
                batch["input_ids"].to(accelerator.device),
                batch["attention_mask"].to(accelerator.device),
                max_new_tokens=split.task.generation_length,
                do_sample=False,
                num_beams=1,
            )
        texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
        found += [(int(row), text.strip()) for row, text in zip(rows, texts, strict=True)]
        weights.append({n: w.double().sum(0).cpu().numpy() for n, w in model.signal.expert_weights.items()})
    if accelerator.num_processes > 1:
        found, weights = gather_object(found), gather_object(weights)
    names = weights[0] if weights else {}
    means = {name: np.sum([part[name] for part in weights], axis=0) / len(split) for name in names}
    return Predictions([text for _, text in sorted(found)], means)
