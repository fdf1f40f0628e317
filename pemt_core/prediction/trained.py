"""A trained target in memory: what answers its rows, and what an answer has."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pemt_core.answering.answers import AnsweredBatch
from pemt_core.answering.rule import AnswerRule
from pemt_core.artifacts.adapter import Adapter
from pemt_core.artifacts.description import TargetDescription
from pemt_core.artifacts.target import method_of_cell
from pemt_core.data.prepared import TaskDescription
from pemt_core.model.assemble import Expert, FoldedLayers, fold_experts
from pemt_core.model.grouped.member import Member
from pemt_core.model.prompted import PromptedModel
from pemt_core.tasks.pairs import RowConversion


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


class MixedExperts(NamedTuple):
    """The experts that targets mix, and these folded: in memory once for all targets that mix the same."""

    experts: Sequence[Expert]
    folded: FoldedLayers

    @classmethod
    def of(cls, backbone: Any, experts: Sequence[Expert]) -> "MixedExperts":
        return cls(experts, fold_experts(backbone, experts))


@dataclass(frozen=True, eq=False)
class TrainedTarget:
    """One trained target, detached from the backbone."""

    task: TaskDescription
    conversion: RowConversion
    adapter: Adapter[TargetDescription]
    mixed: MixedExperts
    member: Member | None  # by which it is computed together with others
    model: PromptedModel | None  # by which it is computed alone, if it cannot be a member

    @classmethod
    def make(
        cls,
        backbone: Any,
        adapter: Adapter[TargetDescription],
        mixed: MixedExperts,
        task: TaskDescription,
        conversion: RowConversion,
    ) -> "TrainedTarget":
        """Make the target of a stored cell; `mixed` are the experts that it names. The backbone must be as loaded."""
        method, model = method_of_cell(adapter.description), None
        member = method.member(adapter.tensors, mixed.experts)
        if member is None:
            model = method.build(backbone, adapter.tensors, mixed.experts, mixed.folded)
            model.detach()
        return cls(task, conversion, adapter, mixed, member, model)

    @property
    def source_length(self) -> int:
        """The most tokens of a text, as in training."""
        length: int = self.adapter.description.settings["source_length"]
        return length

    @property
    def prompt_length(self) -> int:
        """P; 0 if the method has no prompt."""
        return len(self.adapter.tensors.get("prompt", ()))


@dataclass(frozen=True, eq=False)
class ReadRow:
    """A valid row, ready to be answered by the target that it was read for."""

    target: TrainedTarget
    ids: NDArray[np.int32]
    truncated: bool


def predictions(rows: Sequence[ReadRow], rule: AnswerRule, batch: AnsweredBatch) -> Iterator[Prediction]:
    """Yield the prediction of each row of a batch, whose probabilities were asked for."""
    weights = {name: layer.cpu().double().numpy() for name, layer in batch.expert_weights.items()}
    if batch.probabilities is None:
        raise RuntimeError("the batch has no probabilities")
    for place, (row, text) in enumerate(zip(rows, batch.texts, strict=True)):
        shown, sources = row.target.task.shown_as, row.target.adapter.description.sources
        layers = {name: layer[place] for name, layer in weights.items()} if sources else {}
        means = np.mean(list(layers.values()), axis=0).tolist() if layers else []
        labels = batch.probabilities.labels[place]
        yield Prediction(
            task=row.target.task.name,
            prediction=shown(text),
            answer=rule,
            score=batch.probabilities.answers[place],
            scores=None if labels is None else {shown(word): p for word, p in labels.items()},
            expert_weights=dict(zip(sources, means, strict=True)) if layers else {},
            truncated=row.truncated,
            layers={name: layer.tolist() for name, layer in layers.items()},
        )
