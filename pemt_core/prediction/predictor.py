"""Several trained targets on one frozen backbone in memory.

Each target's modules are attached only while its rows are answered, so answers do not depend on the rows of other
targets in the call. Targets that mix the same experts share them. Targets may be added, replaced and removed at any
time: rows that were read before are still answered by the target that they were read for.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from threading import Lock
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from pemt_core.answering.answers import AnsweredBatch, Answerer, Probabilities
from pemt_core.answering.rule import AnswerRule
from pemt_core.artifacts.adapter import Adapter
from pemt_core.artifacts.description import TargetDescription
from pemt_core.artifacts.experts import load_experts
from pemt_core.artifacts.target import load_target, restore_target
from pemt_core.backbone.store import Backbone, load_backbone
from pemt_core.data.batches import length_batches
from pemt_core.data.prepared import TaskDescription, load_task_description
from pemt_core.data.tokenized import Ragged, TokenizedTexts
from pemt_core.errors import ArtifactError, DataError, nearest, shown
from pemt_core.model.assemble import FoldedLayers, fold_experts
from pemt_core.model.prompted import PromptedModel
from pemt_core.prediction.rows import TASK, Row, text_of_row
from pemt_core.tasks.pairs import RowConversion
from pemt_core.tasks.values import RowError, is_absent


@dataclass(frozen=True)
class Prediction:
    """The answer for one row."""

    task: str
    prediction: str  # the generated text, or the most probable label
    answer: AnswerRule  # the rule that answered, by which validation selected the target; free text is always generated
    score: float  # its probability: of the text as a whole, or among the label words
    scores: dict[str, float] | None  # of every label, adding up to 1; None for free text
    expert_weights: dict[str, float]  # by source, the mean over all layers; empty if the method mixes no experts
    truncated: bool  # the text was longer than the target's limit in training, and cut
    layers: dict[str, list[float]] = field(repr=False)  # expert weights by layer, "encoder.0" to (E,)

    def record(self) -> dict[str, Any]:
        """All but `layers`, as files and servers answer."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "layers"}


@dataclass(frozen=True, eq=False)
class TrainedTarget:
    """One trained target, detached from the backbone."""

    task: TaskDescription
    conversion: RowConversion
    adapter: Adapter[TargetDescription]
    model: PromptedModel

    @property
    def source_length(self) -> int:
        """The most tokens of a text, as in training."""
        length: int = self.adapter.description.settings["source_length"]
        return length


@dataclass(frozen=True, eq=False)
class ReadRow:
    """A valid row, ready to be answered by the target that it was read for."""

    target: TrainedTarget
    ids: NDArray[np.int32]
    truncated: bool


class Predictor:
    """Predicts for rows of all its targets; calls from several threads take turns on the backbone."""

    def __init__(self, backbone: Backbone, targets: Mapping[str, TrainedTarget], *, batch_size: int) -> None:
        self.backbone, self.targets, self.batch_size = backbone, dict(targets), batch_size
        self._lock = Lock()  # of the backbone
        self._tokenizer_lock = Lock()  # the tokenizer's last truncation is shared state

    def add(self, name: str, target: TrainedTarget) -> None:
        """Add a target, or replace the one of this name. Calls that run are not affected."""
        self.targets = {**self.targets, name: target}

    def remove(self, name: str) -> None:
        """Remove a target. Calls that run are not affected. Raises KeyError if there is none of this name."""
        if name not in self.targets:
            raise KeyError(name)
        self.targets = {other: target for other, target in self.targets.items() if other != name}

    @contextmanager
    def idle(self) -> Iterator[Backbone]:
        """Hold other threads' rows back while the block builds a target on the backbone, which is as it was loaded."""
        with self._lock:
            yield self.backbone

    def predict(
        self, rows: Sequence[Row], task: str | None = None, *, places: Sequence[str] | None = None
    ) -> list[Prediction]:
        """Answer rows, in their order.

        A row is a finished text, or the columns of its task. `task` is the target of all rows; without it, each row
        names its target in the column "task", which a single target makes unnecessary. Raises DataError, with the row's
        place (`places`, or its number), if a row is not what its task expects.
        """
        return self.answer(self.read(rows, task, places=places))

    def read(
        self, rows: Sequence[Row], task: str | None = None, *, places: Sequence[str] | None = None
    ) -> list[ReadRow]:
        """Check and tokenize rows, as `predict` does, without the backbone. Raises DataError like `predict`."""
        targets, texts = self.targets, dict[str, dict[int, str]]()
        for number, row in enumerate(rows):
            place = places[number] if places else f"row {number}"
            name = _task_of(row, task, place, targets)
            text = text_of_row(row, targets[name].conversion, f"{place}, task {name}")
            texts.setdefault(name, {})[number] = text
        found: dict[int, ReadRow] = {}
        for name, of_target in texts.items():
            target = targets[name]
            with self._tokenizer_lock:
                tokenized = TokenizedTexts.of([*of_target.values()], self.backbone.tokenizer, target.source_length)
            for index, number in enumerate(of_target):
                found[number] = ReadRow(target, tokenized.texts[index], bool(tokenized.truncated[index]))
        return [found[number] for number in range(len(rows))]

    def answer(self, rows: Sequence[ReadRow]) -> list[Prediction]:
        """Answer rows that `read` returned, in their order."""
        places: dict[TrainedTarget, list[int]] = {}
        for number, row in enumerate(rows):
            places.setdefault(row.target, []).append(number)
        found: dict[int, Prediction] = {}
        for target, numbers in places.items():
            answers = self._answer_for(target, [rows[number] for number in numbers])
            found.update(zip(numbers, answers, strict=True))
        return [found[number] for number in range(len(rows))]

    def _answer_for(self, target: TrainedTarget, rows: Sequence[ReadRow]) -> list[Prediction]:
        found: dict[int, Prediction] = {}
        tokenizer, truncated = self.backbone.tokenizer, np.array([row.truncated for row in rows], dtype=np.bool_)
        tokenized = TokenizedTexts(Ragged.of([row.ids for row in rows]), truncated, tokenizer.pad_token_id)
        with self._lock, target.model.attached() as model:
            batches = length_batches(tokenized.texts.lengths, self.batch_size)
            with self._tokenizer_lock:
                answerer = Answerer(tokenizer, target.task, target.adapter.description.answer)
            for batch in answerer.answer(model, tokenized, batches, probabilities=True):
                answers = _predictions(target, answerer.rule, batch, truncated[batch.rows])
                found.update(zip(map(int, batch.rows), answers, strict=True))
        return [found[row] for row in range(len(rows))]


def _task_of(row: Row, task: str | None, place: str, targets: Mapping[str, TrainedTarget]) -> str:
    if not isinstance(row, str | Mapping):
        raise DataError(f"{place}: is {shown(row)}: expected the columns of a task, or a finished text")
    named = None if isinstance(row, str) else row.get(TASK)
    name = task or (next(iter(targets)) if len(targets) == 1 else named)
    known = ", ".join(targets)
    if is_absent(name):
        raise DataError(f"{place}: the column '{TASK}' must name its target: {known}")
    if not isinstance(name, str):
        raise DataError(f"{place}: {RowError(TASK, name, f'the name of its target: {known}')}")
    if name not in targets:
        raise DataError(f"{place}: there is no target {name!r} here; {nearest(name, targets)}")
    return name


def _predictions(
    target: TrainedTarget, rule: AnswerRule, batch: AnsweredBatch, truncated: NDArray[np.bool_]
) -> Iterator[Prediction]:
    """Yield the prediction of each row of a batch."""
    weights = {name: layer.cpu().double().numpy() for name, layer in batch.expert_weights.items()}
    probabilities, shown = cast("Probabilities", batch.probabilities), target.task.shown_as  # asked for above
    for place, text in enumerate(batch.texts):
        layers = {name: layer[place] for name, layer in weights.items()}
        labels = probabilities.labels[place]
        means = np.mean(list(layers.values()), axis=0).tolist() if layers else []
        yield Prediction(
            task=target.task.name,
            prediction=shown(text),
            answer=rule,
            score=probabilities.answers[place],
            scores=None if labels is None else {shown(word): p for word, p in labels.items()},
            expert_weights=dict(zip(target.adapter.description.sources, means, strict=True)) if layers else {},
            truncated=bool(truncated[place]),
            layers={name: layer.tolist() for name, layer in layers.items()},
        )


def load_predictor(
    backbone_dir: Path,
    experts_dir: Path,
    adapter_dirs: Mapping[str, Path],
    task_dirs: Mapping[str, Path],
    conversions: Mapping[str, RowConversion],
    *,
    batch_size: int,
) -> Predictor:
    """Load a predictor for every target in `adapter_dirs`, on the GPU if there is one.

    Args:
        adapter_dirs: the trained cell of each target, as `transfer` wrote it.
        task_dirs: the folder with task.json of each target.
        conversions: how raw rows of each target become text.

    Raises:
        ArtifactError: a folder is missing, altered, or belongs to another backbone or other experts.
    """
    backbone = _load_backbone(backbone_dir, adapter_dirs)
    backbone.model.to("cuda" if torch.cuda.is_available() else "cpu")
    bank = load_experts(experts_dir, backbone)
    folded: dict[tuple[str, ...], FoldedLayers] = {}
    targets = {}
    for name, directory in adapter_dirs.items():
        adapter = load_target(directory, name, backbone, bank)
        sources = tuple(adapter.description.sources)
        if sources not in folded:
            folded[sources] = fold_experts(backbone.model, bank.select(sources))
        model = restore_target(backbone.model, adapter, bank, folded[sources])
        model.detach()
        task = load_task_description(task_dirs[name], name)
        targets[name] = TrainedTarget(task, conversions[name], adapter, model)
    return Predictor(backbone, targets, batch_size=batch_size)


def _load_backbone(directory: Path, adapter_dirs: Mapping[str, Path]) -> Backbone:
    if not Path(directory).is_dir():
        raise ArtifactError(
            f"{directory}: no such folder; {', '.join(adapter_dirs)} cannot answer without the backbone that it was "
            "trained on. `dvc pull backbone` or `dvc repro backbone` restores it"
        )
    return load_backbone(directory)
