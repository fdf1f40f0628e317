"""Few-shot samples: k rows per class if the task has labels, otherwise k rows in all."""

from collections.abc import Mapping, Sequence
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
    shown: Mapping[str, str] | None = None,
) -> NDArray[np.int64]:
    """Draw a sample of training rows with `seed` and return their indices in ascending order.

    `targets` are those of the training split alone, so the sample is disjoint from validation and test. If a class
    (or the whole split) has fewer than k rows, `rare_class` "all" takes all of them, and "error" raises DataError,
    which names the class as in `shown`.
    """
    generator = np.random.default_rng(seed)
    words = np.asarray(targets)
    pools = {"all rows": np.arange(len(words))} if labels is None else {w: np.flatnonzero(words == w) for w in labels}
    chosen = []
    for name, pool in pools.items():
        if len(pool) < k and rare_class == "error":
            label = (shown or {}).get(name, name)
            raise DataError(
                f"{task}: k={k} rows of '{label}' are needed, but the training split has {len(pool)}; "
                "choose a smaller k, or set transfer.rare_class to 'all' to use what it has"
            )
        chosen.append(generator.permutation(pool)[:k])
    return np.sort(np.concatenate(chosen))
