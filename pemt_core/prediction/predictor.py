"""Several trained targets on one frozen backbone in memory.

The rows of a call are answered together, each with the modules of its target, as `pemt_core.model.grouped` explains;
targets that cannot be computed together take turns. Targets that mix the same experts share them. Targets may be added,
replaced and removed at any time: rows that were read before are still answered by the target that they were read for.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
import torch

from pemt_core.answering.answers import Answerer, answer_read
from pemt_core.artifacts.experts import load_experts
from pemt_core.artifacts.target import load_target
from pemt_core.backbone.store import Backbone, load_backbone
from pemt_core.data.batches import length_batches
from pemt_core.data.prepared import load_task_description
from pemt_core.data.tokenized import Ragged, TokenizedTexts
from pemt_core.errors import ArtifactError, DataError, nearest, shown
from pemt_core.model.grouped.member import partition
from pemt_core.model.grouped.model import GroupedModel, build_grouped_model
from pemt_core.model.prompted import PromptedModel
from pemt_core.prediction.rows import TASK, Row, text_of_row
from pemt_core.prediction.trained import MixedExperts, Prediction, ReadRow, TrainedTarget, predictions
from pemt_core.tasks.pairs import RowConversion
from pemt_core.tasks.values import RowError, is_absent


@dataclass(frozen=True)
class _Together:
    """Targets whose rows are computed in one pass, detached from the backbone."""

    model: GroupedModel | PromptedModel
    answerers: dict[TrainedTarget, Answerer]  # in the order of the group

    @property
    def prompted(self) -> PromptedModel:
        return self.model.model if isinstance(self.model, GroupedModel) else self.model


class Predictor:
    """Predicts for rows of all its targets; calls from several threads take turns on the backbone."""

    def __init__(self, backbone: Backbone, targets: Mapping[str, TrainedTarget], *, batch_size: int) -> None:
        self.backbone, self.targets, self.batch_size = backbone, dict(targets), batch_size
        self._lock = Lock()  # of the backbone
        self._tokenizer_lock = Lock()  # the tokenizer's last truncation is shared state
        self._together: list[_Together] = []  # all targets, once rows are to be answered

    def add(self, name: str, target: TrainedTarget) -> None:
        """Add a target, or replace the one of this name. Calls that run are not affected."""
        self.targets, self._together = {**self.targets, name: target}, []

    def remove(self, name: str) -> None:
        """Remove a target. Calls that run are not affected. Raises KeyError if there is none of this name."""
        if name not in self.targets:
            raise KeyError(name)
        self.targets = {other: target for other, target in self.targets.items() if other != name}
        self._together = []

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
        self,
        rows: Sequence[Row],
        task: str | None = None,
        *,
        places: Sequence[str] | None = None,
        targets: Mapping[str, TrainedTarget] | None = None,
    ) -> list[ReadRow]:
        """Check and tokenize rows, as `predict` does, without the backbone. Raises DataError like `predict`.

        `targets` are those of an earlier moment, by which the caller has judged the rows; without it, those of now.
        """
        targets, texts = self.targets if targets is None else targets, dict[str, dict[int, str]]()
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
        found: dict[int, Prediction] = {}
        with self._lock:
            for together in self._of_targets({row.target for row in rows}):
                places = [place for place, row in enumerate(rows) if row.target in together.answerers]
                with together.prompted.attached():
                    for batch in self._batches(together, rows, places):
                        own = [rows[place] for place in batch]
                        found.update(zip(batch, self._answered(together, own), strict=True))
        return [found[place] for place in range(len(rows))]

    def _of_targets(self, targets: set[TrainedTarget]) -> list[_Together]:
        """What computes these targets, which may have been replaced since their rows were read."""
        found = self._together  # another thread may replace it by an empty one at any time
        if not targets <= {target for together in found for target in together.answerers}:
            found = self._together = list(self._made(dict.fromkeys([*self.targets.values(), *targets])))
        return [together for together in found if targets & together.answerers.keys()]

    def _made(self, targets: Mapping[TrainedTarget, None]) -> Iterator[_Together]:
        with self._tokenizer_lock:
            answerers = {
                each: Answerer(self.backbone.tokenizer, each.task, each.adapter.description.answer) for each in targets
            }
        members = {each: each.member for each in targets if each.member is not None}
        for group in partition(list(members.values())):
            own = [[*members][place] for place in group]
            folded = next((each.mixed.folded for each in own if each.mixed.experts), None)
            model = build_grouped_model(self.backbone.model, [members[each] for each in own], folded)
            model.model.detach()
            yield _Together(model, {each: answerers[each] for each in own})
        yield from (_Together(each.model, {each: answerers[each]}) for each in targets if each.model is not None)

    def _batches(self, together: _Together, rows: Sequence[ReadRow], places: Sequence[int]) -> Iterator[list[int]]:
        """The places of rows that are computed at a time: of one rule and similar length, labels apart from text."""
        kinds: dict[tuple[str, bool], list[int]] = {}
        for place in places:
            answerer = together.answerers[rows[place].target]
            kinds.setdefault((answerer.rule, answerer.task.labels is not None), []).append(place)
        for of_kind in kinds.values():
            lengths = np.array([len(rows[place].ids) + rows[place].target.prompt_length for place in of_kind])
            yield from ([of_kind[each] for each in batch] for batch in length_batches(lengths, self.batch_size))

    def _answered(self, together: _Together, rows: Sequence[ReadRow]) -> Iterator[Prediction]:
        """Yield the answers of one batch."""
        model, device = together.prompted.eval(), self.backbone.model.device
        truncated, numbers = np.array([row.truncated for row in rows]), np.arange(len(rows))
        texts = TokenizedTexts(Ragged.of([row.ids for row in rows]), truncated, self.backbone.tokenizer.pad_token_id)
        ids, mask = (part.to(device) for part in texts.batch(numbers))
        answerers = [together.answerers[row.target] for row in rows]
        if isinstance(together.model, GroupedModel):
            places = {target: place for place, target in enumerate(together.answerers)}
            opened = together.model.encoded(ids, mask, [places[row.target] for row in rows])
        else:
            opened = together.model.encoded(ids, mask)
        with opened as encoded:
            batch = answer_read(model.signal, encoded, numbers, answerers, probabilities=True)
        yield from predictions(rows, answerers[0].rule, batch)


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
    mixed: dict[tuple[str, ...], MixedExperts] = {}
    targets = {}
    for name, directory in adapter_dirs.items():
        adapter = load_target(directory, name, backbone, bank)
        sources = tuple(adapter.description.sources)
        if sources not in mixed:
            mixed[sources] = MixedExperts.of(backbone.model, bank.select(sources))
        task = load_task_description(task_dirs[name], name)
        targets[name] = TrainedTarget.make(backbone.model, adapter, mixed[sources], task, conversions[name])
    return Predictor(backbone, targets, batch_size=batch_size)


def _load_backbone(directory: Path, adapter_dirs: Mapping[str, Path]) -> Backbone:
    if not Path(directory).is_dir():
        raise ArtifactError(
            f"{directory}: no such folder; {', '.join(adapter_dirs)} cannot answer without the backbone that it was "
            "trained on. `dvc pull backbone` or `dvc repro backbone` restores it"
        )
    return load_backbone(directory)
