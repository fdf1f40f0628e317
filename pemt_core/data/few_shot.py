"""Few-shot samples: k rows per class where labels are fixed, k rows in all otherwise (tasks.md's rule)."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pemt_core.errors import DataError


def few_shot_rows(
    targets: Sequence[str],
    labels: Sequence[str] | None,
    k: int,
    seed: int,
    *,
    rare_class: Literal["error", "all"],
    task: str,
) -> NDArray[np.int64]:
    """The indices of a sample of training rows that follows `seed`, in ascending order.

    Drawn from the training split alone, so disjoint from validation and test. Raises DataError where a class (or the
    whole split) has fewer than k rows, unless `rare_class` is "all": then all there are are taken.
    """
    generator = np.random.default_rng(seed)
    words = np.asarray(targets)
    pools = {"all rows": np.arange(len(words))} if labels is None else {w: np.flatnonzero(words == w) for w in labels}
    chosen = []
    for name, pool in pools.items():
        if len(pool) < k and rare_class == "error":
            raise DataError(
                f"{task}: k={k} rows of '{name}' were asked for, the training split has {len(pool)}; "
                "choose a smaller k, or set transfer.rare_class to 'all' to take what there is"
            )
        chosen.append(generator.permutation(pool)[:k])
    return np.sort(np.concatenate(chosen))
