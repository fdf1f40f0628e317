"""Answer rows by a rule, batch by batch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from pemt_core.answering.rule import AnswerRule, rule_for
from pemt_core.backbone.text_ids import answer_ids
from pemt_core.data.prepared import TaskDescription
from pemt_core.data.tokenized import IGNORED_LABEL, TokenizedTexts, answer_length, padded
from pemt_core.model.prompted import PromptedModel, ReadRows
from pemt_core.model.signal import ForwardSignal


@dataclass(frozen=True)
class Probabilities:
    """How sure a model is of its answers to a batch."""

    answers: list[float]  # of the generated text as a whole, or of the label word among all
    labels: list[dict[str, float] | None]  # of every label word of a row's task, adding up to 1; None for free text


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
        self.length = answer_length(task, tokenizer)
        words = [np.asarray(ids, dtype=np.int32) for ids in answer_ids(tokenizer, task.labels or [])]
        self.label_ids = padded(words, IGNORED_LABEL) if words else torch.empty(0, 0, dtype=torch.long)  # (C, L)

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
                yield answer_read(model.signal, encoded, rows, [self] * len(rows), probabilities=probabilities)


def answer_read(
    signal: ForwardSignal,
    encoded: ReadRows,
    rows: NDArray[np.int64],
    answerers: Sequence[Answerer],
    *,
    probabilities: bool,
) -> AnsweredBatch:
    """Answer the `rows` that are read, each by its own answerer. All of these have the same rule."""
    if answerers[0].rule == "score":
        labels = [found or {} for found in _label_probabilities(encoded, answerers)]
        texts = [max(row, key=row.__getitem__) for row in labels]
        scores = [row[text] for row, text in zip(labels, texts, strict=True)]
        return AnsweredBatch(rows, texts, _of_rows(signal, len(rows)), Probabilities(scores, [*labels]))
    lengths = [each.length for each in answerers]
    ids = encoded.generate(max_new_tokens=max(lengths), do_sample=False, num_beams=1)
    weights = _of_rows(signal, len(rows))  # before the candidates pass through the decoder
    tokenizer = answerers[0].tokenizer
    answers = _up_to_end(ids[:, encoded.num_start_tokens :], lengths, tokenizer.eos_token_id)
    read = answers.masked_fill(answers == IGNORED_LABEL, tokenizer.pad_token_id)
    written = [text.strip() for text in tokenizer.batch_decode(read, skip_special_tokens=True)]
    if not probabilities:
        return AnsweredBatch(rows, written, weights, None)
    scores = _text_probabilities(encoded, answers)
    return AnsweredBatch(rows, written, weights, Probabilities(scores, _label_probabilities(encoded, answerers)))


def _of_rows(signal: ForwardSignal, num_rows: int) -> dict[str, Tensor]:
    """The expert weights of every layer, a row for each row that is read: in the decoder, candidates are several."""
    return {name: layer[:: len(layer) // num_rows] for name, layer in signal.expert_weights.items()}


def _label_probabilities(encoded: ReadRows, answerers: Sequence[Answerer]) -> list[dict[str, float] | None]:
    """The probability of each label word of each row's task; None if its answers are free text."""
    own = [each.label_ids for each in answerers]
    if all(ids.numel() == 0 for ids in own):
        return [None] * len(answerers)
    size = [max(ids.shape[side] for ids in own) for side in (0, 1)]
    candidates = torch.stack([_filled(ids, size) for ids in own]).to(encoded.device)
    found = encoded.log_probabilities(candidates).double()
    found = found.masked_fill((candidates == IGNORED_LABEL).all(-1), -torch.inf)
    rows = found.softmax(dim=-1).tolist()
    return [
        None if each.task.labels is None else dict(zip(each.task.labels, row, strict=False))
        for each, row in zip(answerers, rows, strict=True)
    ]


def _filled(ids: Int[Tensor, "C L"], size: Sequence[int]) -> Int[Tensor, "M N"]:
    return F.pad(ids, (0, size[1] - ids.shape[1], 0, size[0] - len(ids)), value=IGNORED_LABEL)


def _text_probabilities(encoded: ReadRows, answers: Int[Tensor, "B L"]) -> list[float]:
    """The probability of each generated text, its closing token included if it has one; -100 is what follows it."""
    found: list[float] = encoded.log_probabilities(answers.unsqueeze(1)).double().exp().flatten().tolist()
    return found


def _up_to_end(ids: Int[Tensor, "B L"], lengths: Sequence[int], end: int) -> Int[Tensor, "B L"]:
    """Generated ids with -100 behind each row's closing token, or behind its length."""
    ends = ids == end  # in some families, padding is the same token
    behind = torch.arange(ids.shape[1], device=ids.device) >= torch.tensor(lengths, device=ids.device).unsqueeze(1)
    return ids.masked_fill((ends.long().cumsum(1) - ends.long() > 0) | behind, IGNORED_LABEL)
