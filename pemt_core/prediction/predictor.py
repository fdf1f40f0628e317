"""Several trained targets on one frozen backbone in memory.

Each target's modules are attached only while its rows are answered, so answers do not depend on the rows of other
targets in the call. Targets that mix the same experts share them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import cast

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
from pemt_core.data.tokenized import TokenizedTexts
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


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class TokenizedRows:
    """Rows as their targets read them: by target, the rows' numbers and their token ids."""

    of_target: dict[str, tuple[list[int], TokenizedTexts]]

    def __len__(self) -> int:
        return sum(len(numbers) for numbers, _ in self.of_target.values())


class Predictor:
    """Predicts for rows of all its targets; calls from several threads take turns.

    `predict` is `answer` of what `tokenize` returns: one thread can tokenize the next rows while another one answers.
    """

    def __init__(self, backbone: Backbone, targets: Mapping[str, TrainedTarget], *, batch_size: int) -> None:
        self.backbone, self.targets, self.batch_size = backbone, dict(targets), batch_size
        self._lock = Lock()
        self._tokenizing = Lock()  # the tokenizer's last truncation is shared state

    def predict(
        self, rows: Sequence[Row], task: str | None = None, *, places: Sequence[str] | None = None
    ) -> list[Prediction]:
        """Answer rows, in their order.

        A row is a finished text, or the columns of its task. `task` is the target of all rows; without it, each row
        names its target in the column "task", which a single target makes unnecessary. Raises DataError, with the row's
        place (`places`, or its number), if a row is not what its task expects.
        """
        return self.answer(self.tokenize(rows, task, places=places))

    def tokenize(
        self, rows: Sequence[Row], task: str | None = None, *, places: Sequence[str] | None = None
    ) -> TokenizedRows:
        """The token ids of rows, as `predict` takes them; raises as it does."""
        texts: dict[str, dict[int, str]] = {}
        for number, row in enumerate(rows):
            place = places[number] if places else f"row {number}"
            name = self._task_of(row, task, place)
            text = text_of_row(row, self.targets[name].conversion, f"{place}, task {name}")
            texts.setdefault(name, {})[number] = text
        return TokenizedRows(
            {name: (list(of_target), self._ids(name, list(of_target.values()))) for name, of_target in texts.items()}
        )

    def answer(self, rows: TokenizedRows) -> list[Prediction]:
        """Answer tokenized rows, in their order."""
        found: dict[int, Prediction] = {}
        for name, (numbers, texts) in rows.of_target.items():
            found.update(zip(numbers, self._answers(self.targets[name], texts), strict=True))
        return [found[number] for number in range(len(rows))]

    def _ids(self, target: str, texts: Sequence[str]) -> TokenizedTexts:
        with self._tokenizing:
            return TokenizedTexts.of(texts, self.backbone.tokenizer, self.targets[target].source_length)

    def _task_of(self, row: Row, task: str | None, place: str) -> str:
        if not isinstance(row, str | Mapping):
            raise DataError(f"{place}: is {shown(row)}: expected the columns of a task, or a finished text")
        named = None if isinstance(row, str) else row.get(TASK)
        name = task or (next(iter(self.targets)) if len(self.targets) == 1 else named)
        if is_absent(name):
            raise DataError(f"{place}: the column '{TASK}' must name its target: {', '.join(self.targets)}")
        if not isinstance(name, str):
            known = ", ".join(self.targets)
            raise DataError(f"{place}: {RowError(TASK, name, f'the name of its target: {known}')}")
        if name not in self.targets:
            raise DataError(f"{place}: there is no target {name!r} here; {nearest(name, self.targets)}")
        return name

    def _answers(self, target: TrainedTarget, tokenized: TokenizedTexts) -> list[Prediction]:
        found: dict[int, Prediction] = {}
        with self._tokenizing:
            answerer = Answerer(self.backbone.tokenizer, target.task, target.adapter.description.answer)
        with self._lock, target.model.attached() as model:
            batches = length_batches(tokenized.texts.lengths, self.batch_size)
            for batch in answerer.answer(model, tokenized, batches, probabilities=True):
                answers = _predictions(target, answerer.rule, batch, tokenized.truncated[batch.rows])
                found.update(zip(map(int, batch.rows), answers, strict=True))
        return [found[row] for row in range(len(tokenized.texts))]


def _predictions(
    target: TrainedTarget, rule: AnswerRule, batch: AnsweredBatch, truncated: NDArray[np.bool_]
) -> Iterator[Prediction]:
    """Yield the prediction of each row of a batch."""
    weights = {name: layer.cpu().double().numpy() for name, layer in batch.expert_weights.items()}
    probabilities, shown = cast("Probabilities", batch.probabilities), target.task.shown_as  # asked for above
    for place, text in enumerate(batch.texts):
        layers = {name: layer[place] for name, layer in weights.items()}
        means = np.mean(list(layers.values()), axis=0).tolist() if layers else []
        yield Prediction(
            task=target.task.name,
            prediction=shown(text),
            answer=rule,
            score=probabilities.answers[place],
            scores={shown(word): p for word, p in probabilities.labels[place].items()}
            if probabilities.labels
            else None,
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
