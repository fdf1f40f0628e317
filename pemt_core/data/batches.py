"""Batches of rows: shuffled by seed and epoch, with rows of similar length together to reduce padding."""

import numpy as np
from numpy.typing import NDArray

SHUFFLED_BATCHES = 50  # lengths are sorted within this many batches, as transformers' length-grouped sampler does


def epoch_batches(lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Return the batches of an epoch as arrays of row indices; each row occurs once, and one batch may be smaller."""
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
    """Return all rows in batches, longest first: for generation, the order is free and memory peaks at the start."""
    order = np.argsort(-lengths, kind="stable")
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
