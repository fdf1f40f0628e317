"""A split as token ids: flat arrays with offsets, padded only when a batch is made."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pemt_core.backbone.text_ids import answer_ids, cut_input_ids, input_ids
from pemt_core.data.prepared import TaskDescription

IGNORED_LABEL = -100
CHUNK = 10_000  # rows tokenized at a time: bounds the memory of the tokenizer's Python lists


@dataclass(frozen=True)
class Ragged:
    """Rows of different lengths in one flat array."""

    flat: NDArray[np.int32]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, rows: Sequence[NDArray[np.int32]]) -> "Ragged":
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        flat = np.concatenate(rows) if rows else np.empty(0, dtype=np.int32)
        return cls(flat.astype(np.int32), np.concatenate([[0], lengths.cumsum()]))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        return self.flat[self.offsets[index] : self.offsets[index + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)


@dataclass(frozen=True)
class TokenizedTexts:
    """Texts to be read, each with its closing token if it has one; `truncated` marks those that were cut."""

    texts: Ragged
    truncated: NDArray[np.bool_]
    pad_id: int

    @classmethod
    def of(cls, texts: Sequence[str], tokenizer: Any, max_length: int) -> "TokenizedTexts":
        """Tokenize texts, each cut to `max_length` tokens including the closing one."""
        rows: list[NDArray[np.int32]] = []
        truncated: list[bool] = []
        for start in range(0, len(texts), CHUNK):
            ids, cut = cut_input_ids(tokenizer, texts[start : start + CHUNK], max_length)
            rows += [np.asarray(row, dtype=np.int32) for row in ids]
            truncated += cut
        return cls(Ragged.of(rows), np.array(truncated, dtype=np.bool_), tokenizer.pad_token_id)

    def batch(self, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Ids and attention mask (B, T), padded to the longest row."""
        return _padded_with_mask(self.texts, rows, self.pad_id)


@dataclass(frozen=True)
class TokenizedSplit:
    """Source and target ids of a split's rows, each with its closing token; some tokenizers close no source."""

    sources: Ragged
    targets: Ragged
    pad_id: int

    def __len__(self) -> int:
        return len(self.sources)

    def batch(self, rows: NDArray[np.int64], multiple_of: int = 1) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask` (B, T) and `labels` (B, L, -100 at padding), padded to the longest row.

        T and L are multiples of `multiple_of`, so that a few lengths repeat.
        """
        input_ids, mask = _padded_with_mask(self.sources, rows, self.pad_id, multiple_of)
        labels = padded([self.targets[row] for row in rows], IGNORED_LABEL, multiple_of)
        return {"input_ids": input_ids, "attention_mask": mask, "labels": labels}


def tokenize(
    sources: Sequence[str], targets: Sequence[str], tokenizer: Any, *, source_length: int, target_length: int
) -> TokenizedSplit:
    """Tokenize a split, with each text cut to the given length including the closing token."""
    return TokenizedSplit(
        _ragged(input_ids, tokenizer, sources, source_length),
        _ragged(answer_ids, tokenizer, targets, target_length),
        tokenizer.pad_token_id,
    )


def answer_length(task: TaskDescription, tokenizer: Any) -> int:
    """The most tokens of an answer: the task's, or those of its longest label, which ByT5 writes byte by byte."""
    return max([task.generation_length, *map(len, answer_ids(tokenizer, task.labels or []))])


def _ragged(
    ids_of: Callable[[Any, Sequence[str], int], list[list[int]]], tokenizer: Any, texts: Sequence[str], max_length: int
) -> Ragged:
    rows: list[NDArray[np.int32]] = []
    for start in range(0, len(texts), CHUNK):
        ids = ids_of(tokenizer, texts[start : start + CHUNK], max_length)
        rows += [np.asarray(row, dtype=np.int32) for row in ids]
    return Ragged.of(rows)


def _padded_with_mask(
    texts: Ragged, rows: NDArray[np.int64], pad_id: int, multiple_of: int = 1
) -> tuple[Tensor, Tensor]:
    input_ids = padded([texts[row] for row in rows], pad_id, multiple_of)
    lengths = torch.from_numpy(texts.lengths[rows])
    return input_ids, (torch.arange(input_ids.shape[1]) < lengths.unsqueeze(1)).long()


def padded(rows: Sequence[NDArray[np.int32]], value: int, multiple_of: int = 1) -> Tensor:
    """Return rows of different lengths as one int64 tensor, padded with `value`."""
    width = -(-max(len(row) for row in rows) // multiple_of) * multiple_of
    padded = np.full((len(rows), width), value, dtype=np.int64)
    for line, row in zip(padded, rows, strict=True):
        line[: len(row)] = row
    return torch.from_numpy(padded)
