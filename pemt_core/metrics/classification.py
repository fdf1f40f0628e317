"""Metrics over classes: accuracy, F1, Matthews' correlation, and MultiRC's exact match per question.

Classes are numbered in the order of the task's label words; an unreadable prediction is the extra class
`len(labels)`. All results are points from 0 to 100 (Matthews: -100 to 100).
"""

from collections import defaultdict

from pemt_core.errors import DataError
from pemt_core.metrics.scored import Scored, plain


def accuracy(scored: Scored) -> float:
    """Share of rows whose prediction equals a reference; works for free text too (WinoGrande's target is an option)."""
    hits = _right(scored)
    return 100.0 * sum(hits) / len(hits)


def binary_f1(scored: Scored) -> float:
    """F1 of the second label word. An unreadable prediction counts as the label that the row does not have.

    Zero if neither a row nor a prediction is positive.
    """
    from sklearn.metrics import f1_score

    labels = _labels(scored)
    if len(labels) != 2:
        raise DataError(f"f1 needs a task with two label words, but this one has {len(labels)}: {', '.join(labels)}")
    truth, predicted = _classes(scored)
    predicted = [1 - true if guess == 2 else guess for true, guess in zip(truth, predicted, strict=True)]
    return 100.0 * float(f1_score(truth, predicted, pos_label=1, zero_division=0.0))


def macro_f1(scored: Scored) -> float:
    """Mean F1 over the label words; an unreadable prediction is a miss of the true one.

    Label words that occur in neither references nor predictions are left out, as in scikit-learn:
    a capped test set may lack a rare class.
    """
    from sklearn.metrics import f1_score

    truth, predicted = _classes(scored)
    unreadable = len(_labels(scored))
    present = sorted(set(truth) | set(predicted) - {unreadable})
    return 100.0 * float(f1_score(truth, predicted, labels=present, average="macro", zero_division=0.0))


def matthews(scored: Scored) -> float:
    """Matthews' correlation x 100 (for several classes: Gorodkin's R_K); unreadable predictions form one more class.

    Zero if all references or all predictions are the same, as in scikit-learn.
    """
    from sklearn.metrics import matthews_corrcoef

    truth, predicted = _classes(scored)
    if len(set(truth)) == 1 or len(set(predicted)) == 1:
        return 0.0
    return 100.0 * float(matthews_corrcoef(truth, predicted))


def group_exact_match(scored: Scored) -> float:
    """Share of groups (MultiRC: questions) whose rows are all right."""
    whole: dict[str, bool] = defaultdict(lambda: True)
    for group, hit in zip(scored.groups, _right(scored), strict=True):
        whole[group] &= hit
    return 100.0 * sum(whole.values()) / len(whole)


def _right(scored: Scored) -> list[bool]:
    """Whether each row's prediction is one of its references."""
    return [
        plain(prediction) in map(plain, references)
        for prediction, references in zip(scored.predictions, scored.references, strict=True)
    ]


def _labels(scored: Scored) -> list[str]:
    if scored.labels is None:
        raise DataError("this metric counts classes, but the task has no label words; use accuracy")
    return scored.labels


def _classes(scored: Scored) -> tuple[list[int], list[int]]:
    """True and predicted class of every row; `len(labels)` if the prediction is unreadable."""
    labels = _labels(scored)
    number = {label: index for index, label in enumerate(labels)}
    truth = [number[references[0]] for references in scored.references]
    return truth, [number.get(plain(prediction), len(labels)) for prediction in scored.predictions]
