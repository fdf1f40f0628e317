"""Holm's correction for a family of tests."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def holm(p: Sequence[float]) -> Float[np.ndarray, " tests"]:
    """Holm's step-down adjusted p (1979), in the order given: p_(i) becomes max over j <= i of min(1, (m-j+1) p_(j)).

    Raises ValueError on a value that is no probability.
    """
    values = np.asarray(p, dtype=float)
    if not np.all((values >= 0) & (values <= 1)):
        raise ValueError(f"p must be from 0 to 1, found {[float(v) for v in values]}")
    order = np.argsort(values, kind="stable")
    factors = np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * values[order]))
    return adjusted
