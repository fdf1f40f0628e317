"""Targets that say nothing about methods: every one of them scores like a constant answer or a guess.

Accuracy, F1 and exact match: the mean over seeds of every method is at most one standard error above the best constant
answer (the majority class; a frequent answer for free text), or above chance where that is higher. The error is that
of the constant answer: binomial for accuracy, otherwise from a bootstrap of rows.
Correlations (Matthews, Pearson, Spearman), where a constant answer scores 0: the two-way interval of every method
reaches down to 0.
The rule reads test references, so it marks targets in a report and chooses no model.
"""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from pemt_core.errors import cut
from pemt_core.metrics import Scored, get_metric
from pemt_core.metrics.scored import plain
from pemt_core.statistics.bootstrap import TargetDraws, row_draws
from pemt_core.statistics.intervals import binomial_standard_error, percentile_interval
from pemt_core.statistics.runs import TargetRuns
from pemt_core.statistics.weighted import score_of_draws

CORRELATIONS = ("matthews", "pearson", "spearman")
_MOST_ANSWERS = 20  # frequent free-text answers that are tried as the constant one
_DRAWS = 2_000  # for a standard error


@dataclass(frozen=True)
class Floor:
    """How far the methods of a target are above an answer that never reads the text."""

    target: str
    metric: str
    constant_answer: str | None  # None for a correlation, and where chance is higher
    constant_score: float  # points
    band: float  # points above `constant_score` that still count as equal, for the best method
    best_method: str  # the one that is farthest above the band
    best_score: float  # points, its mean over seeds
    at_floor: bool

    @property
    def reason(self) -> str:
        """What was found, as a clause for a table or a sentence."""
        if self.metric in CORRELATIONS:  # each method has a band of its own, so that of the best bounds no other
            relation = "no method's interval is" if self.at_floor else f"the interval of {self.best_method} is"
            return f"{relation} above a guess, which scores {self.constant_score:.1f}"
        what = f"the answer '{cut(plain(self.constant_answer))}'" if self.constant_answer is not None else "a guess"
        relation = "no method is" if self.at_floor else f"{self.best_method} is"
        return f"{relation} more than {self.band:.1f} points above {what}, which scores {self.constant_score:.1f}"


def find_floor(runs: TargetRuns, draws: TargetDraws, confidence: float) -> Floor:
    """Apply the rule to all methods of a target; `draws` are its bootstrap."""
    answer, constant, error = _constant(runs)
    bands: Mapping[str, float] = dict.fromkeys(runs.runs, error)
    means = {method: runs.mean(method, sorted(seeds)) for method, seeds in runs.runs.items()}
    if runs.metric in CORRELATIONS:
        bands = {
            method: means[method] - percentile_interval(draws.two_way(method, sorted(seeds)), confidence).low
            for method, seeds in runs.runs.items()
        }
    if runs.metric in CORRELATIONS and runs.num_clusters == 1:  # which bounds no error
        bands = dict.fromkeys(runs.runs, math.inf)
    best = max(means, key=lambda method: means[method] - bands[method])
    return Floor(
        target=runs.target,
        metric=runs.metric,
        constant_answer=answer,
        constant_score=constant,
        band=bands[best],
        best_method=best,
        best_score=means[best],
        at_floor=means[best] - bands[best] <= constant,
    )


def _constant(runs: TargetRuns) -> tuple[str | None, float, float]:
    """The best constant answer, its score and its standard error, in points."""
    if runs.metric in CORRELATIONS:
        return None, 0.0, 0.0
    rows = len(runs.any_run.groups)
    answer, score = best_constant(runs.metric, runs.any_run)
    if runs.chance > score:
        return None, runs.chance, binomial_standard_error(runs.chance, rows)
    if runs.metric == "accuracy":
        return answer, score, binomial_standard_error(score, rows)
    formula = score_of_draws(runs.metric, _constantly(answer, runs.any_run))
    counts = row_draws(np.random.default_rng(0), _DRAWS, runs.cluster_of_row)
    return answer, score, float(formula(counts).std(ddof=1))


def best_constant(metric: str, scored: Scored) -> tuple[str, float]:
    """The single answer to all rows that scores best, and its score in points."""
    frequent = Counter(references[0] for references in scored.references).most_common(_MOST_ANSWERS)
    answers = scored.labels or [answer for answer, _ in frequent]
    function = get_metric(metric).function
    scores = {answer: function(_constantly(answer, scored)) for answer in answers}
    best = max(scores, key=scores.__getitem__)
    return best, scores[best]


def _constantly(answer: str, scored: Scored) -> Scored:
    return replace(scored, predictions=[answer] * len(scored.groups))
