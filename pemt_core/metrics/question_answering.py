"""SQuAD's token F1 and exact match (Rajpurkar et al., 2016; the v1.1 evaluation script), in points from 0 to 100.

The script deletes punctuation; here a space replaces it. The texts of these tasks have spaces around punctuation
("well - known"), as in T5's preprocessing, so the result is the same, and a model's "well-known" still matches.
"""

import re
import string
from collections import Counter
from collections.abc import Callable

from pemt_core.metrics.scored import Scored

_SPACES_FOR_PUNCTUATION = str.maketrans(string.punctuation, " " * len(string.punctuation))
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def f1(scored: Scored) -> float:
    """Token F1 with the best reference of each row."""
    return _mean_of_best(_token_f1, scored.predictions, scored.references)


def exact_match(scored: Scored) -> float:
    """Share of rows that equal one of their references after normalisation."""
    return _mean_of_best(_equal, scored.predictions, scored.references)


def f1_first(scored: Scored) -> float:
    """Token F1 with the first reference alone, as in the published results."""
    return _mean_of_best(_token_f1, scored.predictions, [references[:1] for references in scored.references])


def exact_match_first(scored: Scored) -> float:
    """Exact match with the first reference alone."""
    return _mean_of_best(_equal, scored.predictions, [references[:1] for references in scored.references])


def normalise(text: str) -> str:
    """Lower-case a text, and remove punctuation, articles and repeated spaces.

    A text of nothing else ("The", "?") is only lower-cased; otherwise the empty prediction would match it.
    """
    lowered = text.lower()
    bare = " ".join(_ARTICLES.sub(" ", lowered.translate(_SPACES_FOR_PUNCTUATION)).split())
    return bare or " ".join(lowered.split())


def _mean_of_best(compare: Callable[[str, str], float], predictions: list[str], references: list[list[str]]) -> float:
    best = [
        max(compare(normalise(prediction), normalise(answer)) for answer in answers)
        for prediction, answers in zip(predictions, references, strict=True)
    ]
    return 100.0 * sum(best) / len(best)


def _equal(prediction: str, answer: str) -> float:
    """1 if the two normalised texts are equal; the empty prediction is always wrong."""
    return float(prediction == answer != "")


def _token_f1(prediction: str, answer: str) -> float:
    """Harmonic mean of precision and recall over the tokens of two normalised texts, as multisets."""
    predicted, true = prediction.split(), answer.split()
    shared = sum((Counter(predicted) & Counter(true)).values())
    return 2.0 * shared / (len(predicted) + len(true)) if shared else 0.0
