"""Answer rows by a rule, batch by batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pemt_core.answering.rule import AnswerRule, rule_for
from pemt_core.backbone.text_ids import answer_ids
from pemt_core.data.prepared import TaskDescription
from pemt_core.data.tokenized import IGNORED_LABEL, TokenizedTexts, answer_length, padded
from pemt_core.model.prompted import PromptedModel, ReadRows


@dataclass(frozen=True)
class Probabilities:
    """How sure a model is of its answers to a batch."""

    answers: list[float]  # of the generated text as a whole, or of the label word among all
    labels: list[dict[str, float]] | None  # of every label word, adding up to 1; None for free text


@dataclass(frozen=True)
class AnsweredBatch:
    """Answers to the rows of one batch."""

    rows: NDArray[np.int64]
    texts: list[str]
    expert_weights: dict[str, Tensor]  # "encoder.0" to (B, E); empty for a model without experts
    probabilities: Probabilities | None  # None unless asked for


class Answerer:
    """Answers rows of one task by a rule.

    generate: the greedily generated text, even if it is not a label word.
    score: the label word with the highest log-probability of its tokens, the closing one included.
    """

    def __init__(self, tokenizer: Any, task: TaskDescription, rule: AnswerRule) -> None:
        self.tokenizer, self.task, self.rule = tokenizer, task, rule_for(task.labels, rule)
        self._length = answer_length(task, tokenizer)
        self._label_ids = None if task.labels is None else self._tokens(task.labels)

    def answer(
        self, model: PromptedModel, texts: TokenizedTexts, batches: Sequence[NDArray[np.int64]], *, probabilities: bool
    ) -> Iterator[AnsweredBatch]:
        """Answer the rows of `texts` batch by batch, encoding each row once.

        Without `probabilities`, they are computed only if the rule needs them.
        """
        model.eval()
        for rows in batches:
            input_ids, mask = (part.to(model.backbone.device) for part in texts.batch(rows))
            with model.encoded(input_ids, mask) as encoded:
                answered, weights, found = self._answer(model, encoded, probabilities)
            of_rows = {name: layer[:: len(layer) // len(rows)] for name, layer in weights.items()}
            yield AnsweredBatch(rows, answered, of_rows, found)

    def _answer(
        self, model: PromptedModel, encoded: ReadRows, probabilities: bool
    ) -> tuple[list[str], dict[str, Tensor], Probabilities | None]:
        """Texts, expert weights (in the decoder a row per candidate) and probabilities."""
        if self.rule == "score":
            labels = self._label_probabilities(encoded) or []
            best = [max(row, key=row.__getitem__) for row in labels]
            found = Probabilities([row[word] for row, word in zip(labels, best, strict=True)], labels)
            return best, dict(model.signal.expert_weights), found
        ids = encoded.generate(max_new_tokens=self._length, do_sample=False, num_beams=1)
        weights = dict(model.signal.expert_weights)  # before the candidates pass through the decoder
        written = [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]
        if not probabilities:
            return written, weights, None
        found = Probabilities(self._text_probabilities(encoded, ids), self._label_probabilities(encoded))
        return written, weights, found

    def _label_probabilities(self, encoded: ReadRows) -> list[dict[str, float]] | None:
        if self._label_ids is None or self.task.labels is None:
            return None
        candidates = self._label_ids.to(encoded.device).expand(encoded.num_rows, -1, -1)
        rows = encoded.log_probabilities(candidates).double().softmax(dim=-1).tolist()
        return [dict(zip(self.task.labels, row, strict=True)) for row in rows]

    def _text_probabilities(self, encoded: ReadRows, ids: Tensor) -> list[float]:
        """The probability of each generated text, its closing token included if it has one."""
        labels = ids[:, encoded.num_start_tokens :]
        ends = labels == self.tokenizer.eos_token_id  # in some families, padding is the same token
        labels = labels.masked_fill(ends.long().cumsum(1) - ends.long() > 0, IGNORED_LABEL)
        found: list[float] = encoded.log_probabilities(labels.unsqueeze(1)).double().exp().flatten().tolist()
        return found

    def _tokens(self, labels: Sequence[str]) -> Tensor:
        """Token ids of the labels (1, C, L); -100 is padding."""
        rows = answer_ids(self.tokenizer, labels)
        return padded([np.asarray(row, dtype=np.int32) for row in rows], IGNORED_LABEL).unsqueeze(0)
