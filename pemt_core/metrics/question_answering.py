"""SQuAD's token F1 and exact match (Rajpurkar et al., 2016; the v1.1 evaluation script), in points from 0 to 100.

Questions, contexts, answers and references had their punctuation set apart ("well - known") before training, as T5
does. Punctuation is therefore replaced by a space: on such text that equals the script's deletion, and it lets
"well-known" match "well - known" where a model closes the gap.
"""

import re
import string
from collections import Counter
from collections.abc import Callable

from pemt_core.metrics.scored import Scored

_SPACES_FOR_PUNCTUATION = str.maketrans(string.punctuation, " " * len(string.punctuation))
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def f1(scored: Scored) -> float:
    """Token F1, for each row the best over its references."""
    return _mean_of_best(_token_f1, scored.predictions, scored.references)


def exact_match(scored: Scored) -> float:
    """Share of rows that equal one of their references after normalisation."""
    return _mean_of_best(_equal, scored.predictions, scored.references)


def f1_first(scored: Scored) -> float:
    """Token F1 against the first reference alone, as rows published for these tasks have it."""
    return _mean_of_best(_token_f1, scored.predictions, [references[:1] for references in scored.references])


def exact_match_first(scored: Scored) -> float:
    """Exact match with the first reference alone."""
    return _mean_of_best(_equal, scored.predictions, [references[:1] for references in scored.references])


def normalise(text: str) -> str:
    """Lower case, no punctuation, no articles, single spaces.

    A text of nothing but these ("The", "?") stays as it is in lower case, or the empty prediction would match it.
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
    """1 where the two normalised texts are equal; the empty prediction is always wrong."""
    return float(prediction == answer != "")


def _token_f1(prediction: str, answer: str) -> float:
    """Harmonic mean of precision and recall over the tokens of two normalised texts, as multisets."""
    predicted, true = prediction.split(), answer.split()
    shared = sum((Counter(predicted) & Counter(true)).values())
    return 2.0 * shared / (len(predicted) + len(true)) if shared else 0.0
