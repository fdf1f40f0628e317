"""Which rows make a batch: shuffled by seed and epoch, rows of like length together so that little is padding."""

import numpy as np
from numpy.typing import NDArray

SHUFFLED_BATCHES = 50  # lengths are sorted within this many batches, as transformers' length-grouped sampler does


def epoch_batches(lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """The batches of an epoch as arrays of row indices; every row once, the last batch may be smaller."""
    if not len(lengths):
        return []
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    pool = batch_size * SHUFFLED_BATCHES
    pools = [order[start : start + pool] for start in range(0, len(order), pool)]
    grouped = np.concatenate([rows[np.argsort(-lengths[rows], kind="stable")] for rows in pools])
    batches = [grouped[start : start + batch_size] for start in range(0, len(grouped), batch_size)]
    return [batches[index] for index in generator.permutation(len(batches))]


def length_batches(lengths: NDArray[np.int64], batch_size: int) -> list[NDArray[np.int64]]:
    """All rows, longest first, in batches: for generation, where order does not matter and memory peaks at once."""
    order = np.argsort(-lengths, kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
