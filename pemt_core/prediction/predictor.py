"""Several trained targets on one frozen backbone in memory.

Each target's modules are attached for its own rows of a batch and detached again, so answers do not depend on which
other targets' rows came along. Targets that mix the same experts hold them once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pemt_core.artifacts.adapter import Adapter, load_adapter
from pemt_core.artifacts.experts import load_experts, select_experts
from pemt_core.artifacts.target import restore_target
from pemt_core.backbone.store import Backbone, load_backbone
from pemt_core.data.batches import length_batches
from pemt_core.data.prepared import TaskDescription, load_task_description
from pemt_core.data.tokenized import IGNORED_LABEL, TokenizedTexts, padded
from pemt_core.errors import ArtifactError, DataError, nearest
from pemt_core.model.assemble import FoldedLayers, fold_experts
from pemt_core.model.prompted import PromptedT5
from pemt_core.prediction.rows import TASK, Row, is_absent, text_of_row
from pemt_core.tasks.pairs import RowConversion


@dataclass(frozen=True)
class Prediction:
    """The answer for one row."""

    task: str
    prediction: str  # the most probable label word, or the text that was generated
    score: float  # its probability: among the label words, or of the text as a whole
    scores: dict[str, float] | None  # of every label word, adding up to 1; None for free text
    expert_weights: dict[str, float]  # of every source, the mean over all layers; empty without experts
    truncated: bool  # the text was longer than what the target was trained on, and cut
    layers: dict[str, list[float]] = field(repr=False)  # expert weights by layer, "encoder.0" to (E,)


@dataclass(frozen=True)
class Target:
    """One trained target, detached from the backbone."""

    task: TaskDescription
    conversion: RowConversion
    adapter: Adapter
    model: PromptedT5

    @property
    def source_length(self) -> int:
        """Tokens of a text at most, as in training."""
        length: int = self.adapter.description.settings["source_length"]
        return length


class Predictor:
    """Predicts for rows of all its targets; calls from several threads wait for one another."""

    def __init__(self, backbone: Backbone, targets: Mapping[str, Target], *, batch_size: int) -> None:
        self.backbone, self.targets, self.batch_size = backbone, dict(targets), batch_size
        self._lock = Lock()

    def predict(
        self, rows: Sequence[Row], task: str | None = None, *, places: Sequence[str] | None = None
    ) -> list[Prediction]:
        """Answers in the order of the rows.

        A row is a finished text, or the columns of its task; `task` is the target of all, or each row names its own in
        the column "task". With a single target neither is needed. DataError, with the row's place (`places`, or its
        number), where a row is not what its task expects.
        """
        texts: dict[str, dict[int, str]] = {}
        for number, row in enumerate(rows):
            place = places[number] if places else f"row {number}"
            name = self._task_of(row, task, place)
            text = text_of_row(row, self.targets[name].conversion, f"{place}, task {name}")
            texts.setdefault(name, {})[number] = text
        found: dict[int, Prediction] = {}
        for name, own in texts.items():
            found.update(zip(own, self._predict_for(self.targets[name], list(own.values())), strict=True))
        return [found[number] for number in range(len(rows))]

    def _task_of(self, row: Row, task: str | None, place: str) -> str:
        named = None if isinstance(row, str) else row.get(TASK)
        name = task or (next(iter(self.targets)) if len(self.targets) == 1 else named)
        if is_absent(name):
            raise DataError(f"{place}: its column '{TASK}' must say which target it is for: {', '.join(self.targets)}")
        if name not in self.targets:
            raise DataError(f"{place}: there is no target '{name}' here; {nearest(str(name), self.targets)}")
        return str(name)

    def _predict_for(self, target: Target, texts: Sequence[str]) -> list[Prediction]:
        tokenized = TokenizedTexts.of(texts, self.backbone.tokenizer, target.source_length)
        candidates = None if target.task.labels is None else self._tokens(target.task.labels, target.task)
        found: list[Prediction | None] = [None] * len(texts)
        with self._lock, target.model.attached() as model:
            model.eval()
            for rows in length_batches(tokenized.texts.lengths, self.batch_size):
                input_ids, mask = (part.to(model.backbone.device) for part in tokenized.batch(rows))
                answers = self._answers(model, target.task, candidates, input_ids, mask)
                weights = {
                    name: weights.cpu().double().numpy() for name, weights in model.signal.expert_weights.items()
                }
                for place, row in enumerate(rows):
                    own = {name: layer[len(layer) // len(rows) * place] for name, layer in weights.items()}
                    found[row] = _prediction(target, answers[place], own, bool(tokenized.truncated[row]))
        return [prediction for prediction in found if prediction is not None]

    def _answers(
        self, model: PromptedT5, task: TaskDescription, candidates: Tensor | None, input_ids: Tensor, mask: Tensor
    ) -> list["_Answer"]:
        """The most probable label word of the `candidates`, or the text that is generated greedily where none are."""
        if task.labels is not None and candidates is not None:
            of_rows = candidates.to(input_ids.device).expand(len(input_ids), -1, -1)
            logs = model.log_probabilities(input_ids, mask, of_rows)
            probabilities = logs.double().softmax(dim=-1).tolist()
            return [_most_probable(dict(zip(task.labels, row, strict=True))) for row in probabilities]
        ids = model.generate(input_ids, mask, max_new_tokens=task.generation_length, do_sample=False, num_beams=1)
        texts = self.backbone.tokenizer.batch_decode(ids, skip_special_tokens=True)
        written = ids[:, 1:].masked_fill(ids[:, 1:] == self.backbone.tokenizer.pad_token_id, IGNORED_LABEL)
        probabilities = model.log_probabilities(input_ids, mask, written.unsqueeze(1)).double().exp().flatten().tolist()
        return [_Answer(text.strip(), p, None) for text, p in zip(texts, probabilities, strict=True)]

    def _tokens(self, labels: Sequence[str], task: TaskDescription) -> Tensor:
        """(1, C, L), cut as training's targets are, -100 at padding."""
        rows = self.backbone.tokenizer(list(labels), truncation=True, max_length=task.generation_length)["input_ids"]
        return padded([np.asarray(row, dtype=np.int32) for row in rows], IGNORED_LABEL).unsqueeze(0)


@dataclass(frozen=True)
class _Answer:
    text: str
    score: float
    scores: dict[str, float] | None


def _most_probable(scores: dict[str, float]) -> _Answer:
    label = max(scores, key=scores.__getitem__)
    return _Answer(label, scores[label], scores)


def _prediction(target: Target, answer: _Answer, weights: Mapping[str, NDArray[np.float64]], cut: bool) -> Prediction:
    sources = target.adapter.description.sources
    means = np.mean(list(weights.values()), axis=0).tolist() if weights else []
    return Prediction(
        task=target.task.name,
        prediction=answer.text,
        score=answer.score,
        scores=answer.scores,
        expert_weights=dict(zip(sources, means, strict=True)),
        truncated=cut,
        layers={name: layer.tolist() for name, layer in weights.items()},
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
    """A predictor for every target in `adapter_dirs`, on the GPU where there is one.

    Args:
        adapter_dirs: the trained cell of each target, as `transfer` wrote it.
        task_dirs: the folder of each target that has its task.json.
        conversions: how raw rows of each target become text.

    Raises:
        ArtifactError: a folder is missing, altered, or belongs to another backbone or other experts.
    """
    backbone = _load_backbone(backbone_dir, adapter_dirs)
    backbone.model.to("cuda" if torch.cuda.is_available() else "cpu")
    experts, experts_hash = load_experts(experts_dir, backbone.fingerprint)
    folded: dict[tuple[str, ...], FoldedLayers] = {}
    targets = {}
    for name, directory in adapter_dirs.items():
        adapter = load_adapter(directory, backbone.fingerprint)
        adapter.check_experts(directory, experts_hash)
        sources = tuple(adapter.description.sources)
        if sources not in folded:
            folded[sources] = fold_experts(backbone.model, select_experts(experts, sources))
        model = restore_target(backbone.model, adapter, experts, folded[sources])
        model.detach()
        targets[name] = Target(load_task_description(task_dirs[name]), conversions[name], adapter, model)
    return Predictor(backbone, targets, batch_size=batch_size)


def _load_backbone(directory: Path, adapter_dirs: Mapping[str, Path]) -> Backbone:
    if not Path(directory).is_dir():
        raise ArtifactError(
            f"{directory}: no such folder; {', '.join(adapter_dirs)} cannot answer without the backbone that it was "
            "trained on. `dvc pull backbone` or `dvc repro backbone` brings it back"
        )
    return load_backbone(directory)
