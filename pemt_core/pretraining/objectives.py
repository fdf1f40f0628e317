"""What a scratch backbone learns from plain text, as T5 did: to fill spans, and to continue a text.

An encoder-decoder reads the source and writes the target; a decoder-only model continues the source with the target.

Span corruption (Raffel et al. 2020, section 3.1.4): sentinels replace spans of the text, and the target is the hidden
text; noise density 0.15, mean span length 3, spans do not touch. A text may annotate the spans to hide, as Guu et al.
2020 (section 3.4) hide salient spans. Continuation (Raffel et al., section 3.2.3, prefix language modelling): the
source is the beginning of a text, the target is the rest. A backbone that has only filled spans expects every target to
begin with a sentinel; for this reason Lester et al. 2021 (section 3.3) train T5 on continuation.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pemt_core.data.tokenized import IGNORED_LABEL

IntArray = NDArray[np.int32]


def noise_counts(length: int, density: float, mean_span_length: float) -> tuple[int, int]:
    """The number of noise tokens among `length` tokens, and of the spans that they form."""
    num_noise = min(max(round(length * density), 1), length - 1)
    return num_noise, min(max(round(num_noise / mean_span_length), 1), num_noise, length - num_noise)


def noise_mask(
    length: int, density: float, mean_span_length: float, generator: np.random.Generator
) -> NDArray[np.bool_]:
    """A mask of the noise among `length` tokens: a share of about `density`, in spans of random length, text first."""
    num_noise, num_spans = noise_counts(length, density, mean_span_length)
    noise = _random_parts(num_noise, num_spans, generator)
    text = _random_parts(length - num_noise, num_spans, generator)
    parts = np.stack([text, noise], axis=1).ravel()
    return np.repeat(np.tile([False, True], num_spans), parts)


def corrupt(ids: IntArray, mask: NDArray[np.bool_], sentinels: IntArray, eos_id: int) -> tuple[IntArray, IntArray]:
    """Source and target ids: a sentinel replaces each noise span in the source, and precedes it in the target.

    If text follows the last noise span, the target ends with the next sentinel.
    """
    text_first = np.append(ids[:1], ids), np.append(True, ~mask)
    return _replaced(ids, mask, sentinels, eos_id), _replaced(*text_first, sentinels, eos_id)


def continuation(ids: IntArray, cut: int, eos_id: int) -> tuple[IntArray, IntArray]:
    """Source and target ids: the text up to `cut`, and the rest."""
    return np.append(ids[:cut], eos_id).astype(np.int32), np.append(ids[cut:], eos_id).astype(np.int32)


def followed(source: IntArray, target: IntArray, bos_id: int) -> tuple[IntArray, IntArray]:
    """Ids and labels of a decoder-only model: [BOS ; source ; target], of which only the target is learned."""
    ids = np.concatenate([[bos_id], source, target]).astype(np.int32)
    labels = np.where(np.arange(len(ids)) > len(source), ids, IGNORED_LABEL).astype(np.int32)
    return ids, labels


def middle(length: int, generator: np.random.Generator) -> int:
    """A random position in the middle half of `length` tokens."""
    return min(int(generator.integers(max(1, length // 4), max(1, 3 * length // 4) + 1)), length - 1)


def chunks(rows: Iterable[IntArray], length: int) -> list[IntArray]:
    """Concatenate all rows and cut them into pieces of `length` tokens; a rest is kept if it can be corrupted."""
    joined = np.concatenate(list(rows))
    pieces = [joined[start : start + length] for start in range(0, len(joined), length)]
    return [piece for piece in pieces if len(piece) >= 2]


def _random_parts(total: int, parts: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """`total` as a sum of `parts` random positive numbers."""
    cuts = np.sort(generator.permutation(total - 1)[: parts - 1]) + 1
    return np.diff(np.concatenate([[0], cuts, [total]]))


def _replaced(ids: IntArray, mask: NDArray[np.bool_], sentinels: IntArray, eos_id: int) -> IntArray:
    """Replace each masked run of `ids` with the next sentinel, and append the closing token."""
    starts = mask & ~np.concatenate([[False], mask[:-1]])
    run = (starts.cumsum() - 1).clip(0)
    replaced = np.where(starts, sentinels[run], ids)[~mask | starts]
    return np.concatenate([replaced, [eos_id]]).astype(np.int32)
