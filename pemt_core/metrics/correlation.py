"""Correlations for STS-B, where the model writes a score as text ("3.8"). Results are x 100, from -100 to 100."""

import re
from collections.abc import Callable
from typing import Any

from pemt_core.errors import DataError
from pemt_core.metrics.scored import Scored

LOWEST, HIGHEST = 0.0, 5.0  # the range of STS-B's scores
SCORE = f"a number from {LOWEST:g} to {HIGHEST:g}"
_DECIMAL = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
UNREADABLE = -1.0  # the value in published evaluations for a text that is not a score


def pearson(scored: Scored) -> float:
    """Pearson's correlation of predicted and true scores."""
    from scipy.stats import pearsonr

    return _correlation(pearsonr, scored)


def spearman(scored: Scored) -> float:
    """Spearman's rank correlation of predicted and true scores."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, scored)


def readable_as_score(prediction: str, scored: Scored) -> bool:
    """Whether a prediction is a number within STS-B's range."""
    return is_score(prediction)


def is_score(text: str) -> bool:
    """Whether a text is a number within STS-B's range."""
    return _parse(text) != UNREADABLE


def _correlation(function: Callable[..., Any], scored: Scored) -> float:
    """Apply `function` to all rows; zero if either side is constant, where scipy returns NaN."""
    predicted = [_parse(prediction) for prediction in scored.predictions]
    truth = [_parse(references[0]) for references in scored.references]
    if UNREADABLE in truth:
        text = scored.references[truth.index(UNREADABLE)][0]
        raise DataError(f"the reference '{text}' is not {SCORE}")
    if len(set(predicted)) == 1 or len(set(truth)) == 1:
        return 0.0
    return 100.0 * float(function(predicted, truth).statistic)


def _parse(text: str) -> float:
    """Return the score in `text`, or UNREADABLE if it is no decimal number in range; Python's `float` takes others."""
    number = text.strip()
    if not _DECIMAL.fullmatch(number):
        return UNREADABLE
    value = float(number)
    return value if LOWEST <= value <= HIGHEST else UNREADABLE
