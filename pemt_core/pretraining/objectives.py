"""What a scratch backbone learns from plain text, as T5 did: to fill spans, and to go on with a text.

Span corruption (Raffel et al. 2020, section 3.1.4): spans of the text are replaced by sentinels, the target is what
they hide; noise density 0.15, mean span length 3, spans do not touch. A text may say itself what to hide (as salient
spans are hidden in Guu et al. 2020, section 3.4). Continuation (Raffel et al., section 3.2.3, prefix
language modelling): the source is how a text begins, the target is its rest. A backbone that has only filled spans
expects every target to begin with a sentinel:
Lester et al. 2021 (section 3.3) train T5 on continuation for this reason.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

IntArray = NDArray[np.int32]


def noise_counts(length: int, density: float, mean_span_length: float) -> tuple[int, int]:
    """How many of `length` tokens are noise, and in how many spans they lie."""
    num_noise = min(max(round(length * density), 1), length - 1)
    return num_noise, min(max(round(num_noise / mean_span_length), 1), num_noise, length - num_noise)


def noise_mask(
    length: int, density: float, mean_span_length: float, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """Which of `length` tokens are noise: about `density` of them, in spans of random length, text first."""
    num_noise, num_spans = noise_counts(length, density, mean_span_length)
    noise = _random_parts(num_noise, num_spans, generator)
    text = _random_parts(length - num_noise, num_spans, generator)
    parts = np.stack([text, noise], axis=1).ravel()
    return np.repeat(np.tile([False, True], num_spans), parts)


def corrupt(ids: IntArray, mask: NDArray[np.bool_], sentinels: IntArray, eos_id: int) -> tuple[IntArray, IntArray]:
    """Source and target ids: in the source each noise span is one sentinel, which opens what it hides in the target.

    Where text follows the last noise span, the target closes with the next sentinel.
    """
    text_first = np.append(ids[:1], ids), np.append(True, ~mask)
    return _replaced(ids, mask, sentinels, eos_id), _replaced(*text_first, sentinels, eos_id)


def continuation(ids: IntArray, cut: int, eos_id: int) -> tuple[IntArray, IntArray]:
    """Source and target ids: the text up to `cut`, and what follows."""
    return np.append(ids[:cut], eos_id).astype(np.int32), np.append(ids[cut:], eos_id).astype(np.int32)


def middle(length: int, generator: np.random.Generator) -> int:
    """A random place in the middle half of `length` tokens."""
    return min(int(generator.integers(max(1, length // 4), max(1, 3 * length // 4) + 1)), length - 1)


def chunks(rows: Iterable[IntArray], length: int) -> list[IntArray]:
    """All rows laid end to end and cut into pieces of `length` tokens; a short rest is kept if it can be corrupted."""
    joined = np.concatenate(list(rows))
    pieces = [joined[start : start + length] for start in range(0, len(joined), length)]
    return [piece for piece in pieces if len(piece) >= 2]


def _random_parts(total: int, parts: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """`total` as a sum of `parts` random positive numbers."""
    cuts = np.sort(generator.permutation(total - 1)[: parts - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def _replaced(ids: IntArray, mask: NDArray[np.bool_], sentinels: IntArray, eos_id: int) -> IntArray:
    """`ids` with each run where `mask` holds replaced by the next sentinel, and the closing token."""
    starts = mask & ~np.concatenate([[False], mask[:-1]])
    run = (starts.cumsum() - 1).clip(0)
    replaced = np.where(starts, sentinels[run], ids)[~mask | starts]
    return np.concatenate([replaced, [eos_id]]).astype(np.int32)
