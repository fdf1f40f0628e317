"""Metrics by name: one registry, one value per metric, all in points (a correlation is x 100).

`score` computes a task's metrics; `count_unreadable` counts the predictions that are not an answer at all. Such a
prediction is wrong for accuracy, -1 for STS-B, the opposite label for binary F1, and an extra class for Matthews and
macro-F1. The functions import scikit-learn and scipy when they are called, so importing this package is cheap.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pemt_core.errors import DataError, nearest
from pemt_core.metrics import classification, correlation, question_answering
from pemt_core.metrics.scored import ANY_REFERENCE, Scored, always_readable, any_reference, readable_as_label

__all__ = ["METRICS", "Metric", "Scored", "count_unreadable", "get_metric", "score"]


@dataclass(frozen=True)
class Metric:
    """A metric's name, its function (points), which predictions it can read, and which references."""

    name: str
    function: Callable[[Scored], float]
    readable: Callable[[str, Scored], bool] = readable_as_label
    can_score: Callable[[str], bool] = any_reference
    expects: str = ANY_REFERENCE  # of a reference


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", classification.accuracy),
        Metric("f1", classification.binary_f1),
        Metric("macro_f1", classification.macro_f1),
        Metric("matthews", classification.matthews),
        Metric("multirc_f1", classification.binary_f1),  # over answers
        Metric("multirc_em", classification.group_exact_match),  # per question
        Metric("pearson", correlation.pearson, correlation.readable_as_score, correlation.is_score, correlation.SCORE),
        Metric(
            "spearman", correlation.spearman, correlation.readable_as_score, correlation.is_score, correlation.SCORE
        ),
        Metric("qa_f1", question_answering.f1, always_readable),  # the best over all references
        Metric("qa_em", question_answering.exact_match, always_readable),
        Metric("qa_f1_first", question_answering.f1_first, always_readable),  # the first reference alone
        Metric("qa_em_first", question_answering.exact_match_first, always_readable),
    )
}


def get_metric(name: str) -> Metric:
    """Look up a metric. Raises DataError with the nearest name if it does not exist."""
    if name not in METRICS:
        raise DataError(f"there is no metric '{name}'; {nearest(name, METRICS)}")
    return METRICS[name]


def score(names: Iterable[str], scored: Scored) -> dict[str, float]:
    """Compute each named metric over the rows of `scored`, in points and in the order of `names`."""
    return {name: get_metric(name).function(scored) for name in names}


def count_unreadable(names: Iterable[str], scored: Scored) -> int:
    """Count the predictions that at least one of the named metrics cannot read."""
    metrics = [get_metric(name) for name in names]
    return sum(not all(metric.readable(text, scored) for metric in metrics) for text in scored.predictions)
