"""Metrics of resampled rows, for many draws at once: a draw is a count for every row (0 if it was not drawn).

Accuracy, F1 and exact match are ratios of sums over rows, Matthews and macro-F1 functions of class counts, Pearson of
moments, and Spearman of ranks among the drawn rows. Each equals `pemt_core.metrics` on the rows written out, and a
metric without a formula here is computed that way (`written_out`), one draw after the other.
"""

from collections import defaultdict
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from pemt_core.metrics import Scored, get_metric
from pemt_core.metrics.correlation import UNREADABLE, is_score
from pemt_core.metrics.scored import plain

OfDraws = Callable[[Float[np.ndarray, "draws rows"]], Float[np.ndarray, " draws"]]

_CONSTANT = 1e-12  # a variance below this share of the largest square is rounding


def score_of_draws(metric: str, scored: Scored) -> OfDraws:
    """Return a function from the counts of all rows in each draw to the metric of each draw, in points.

    Rows of one group must have equal counts. Raises DataError if the metric does not exist.
    """
    get_metric(metric)
    make = _FORMULAS.get(metric)
    return make(metric, scored) if make else written_out(metric, scored)


def written_out(metric: str, scored: Scored) -> OfDraws:
    """The same for any metric, by computing it on the rows of each draw; copies of a group are different groups."""
    function = get_metric(metric).function

    def of_draws(counts: Float[np.ndarray, "draws rows"]) -> Float[np.ndarray, " draws"]:
        return np.array([function(_drawn(scored, draw.astype(int))) for draw in counts])

    return of_draws


def _drawn(scored: Scored, counts: Int[np.ndarray, " rows"]) -> Scored:
    rows = [(row, copy) for row, count in enumerate(counts) for copy in range(count)]
    return Scored(
        [scored.predictions[row] for row, _ in rows],
        [scored.references[row] for row, _ in rows],
        [f"{scored.groups[row]} copy {copy}" for row, copy in rows],
        scored.labels,
    )


def row_scores(metric: str, scored: Scored) -> Float[np.ndarray, " rows"]:
    """The metric of every row alone, in points; their mean is the metric if it is a mean over rows."""
    function = get_metric(metric).function
    columns = zip(scored.predictions, scored.references, scored.groups, strict=True)
    return np.array([function(Scored([text], [answers], [group], scored.labels)) for text, answers, group in columns])


def _mean(metric: str, scored: Scored) -> OfDraws:
    values = row_scores(metric, scored)
    return lambda counts: counts @ values / counts.sum(1)


def _whole_groups(metric: str, scored: Scored) -> OfDraws:
    """Each row carries its share of its group, so that a drawn group counts as one."""
    right: dict[str, list[bool]] = defaultdict(list)
    for group, value in zip(scored.groups, row_scores("accuracy", scored), strict=True):
        right[group].append(value > 0)
    share = np.array([1 / len(right[group]) for group in scored.groups])
    whole = share * np.array([all(right[group]) for group in scored.groups])
    return lambda counts: 100 * (counts @ whole) / (counts @ share)


def _classes(scored: Scored) -> tuple[Float[np.ndarray, "rows classes"], Float[np.ndarray, "rows classes"]]:
    """True and predicted class as indicators; the last class is the unreadable prediction."""
    labels = scored.labels or []
    number = {label: index for index, label in enumerate(labels)}
    identity = np.eye(len(labels) + 1)
    truth = [number[references[0]] for references in scored.references]
    return identity[truth], identity[[number.get(plain(text), len(labels)) for text in scored.predictions]]


def _binary_f1(metric: str, scored: Scored) -> OfDraws:
    truth, predicted = _classes(scored)
    positive = np.where(predicted[:, 2] == 1, 1 - truth[:, 1], predicted[:, 1])  # unreadable: the opposite label
    hits, listed = truth[:, 1] * positive, truth[:, 1] + positive
    return lambda counts: 100 * _ratio(2 * counts @ hits, counts @ listed)


def _macro_f1(metric: str, scored: Scored) -> OfDraws:
    truth, predicted = (indicators[:, :-1] for indicators in _classes(scored))

    def of_draws(counts: Float[np.ndarray, "draws rows"]) -> Float[np.ndarray, " draws"]:
        listed = counts @ (truth + predicted)
        f1 = _ratio(2 * counts @ (truth * predicted), listed)
        return 100 * f1.sum(1) / (listed > 0).sum(1)

    return of_draws


def _matthews(metric: str, scored: Scored) -> OfDraws:
    """Gorodkin's R_K (2004) from the class counts of each draw."""
    truth, predicted = _classes(scored)
    hits = (truth * predicted).sum(1)

    def of_draws(counts: Float[np.ndarray, "draws rows"]) -> Float[np.ndarray, " draws"]:
        true, guessed, rows = counts @ truth, counts @ predicted, counts.sum(1)
        covariance = rows * (counts @ hits) - (true * guessed).sum(1)
        spread = (rows**2 - (true**2).sum(1)) * (rows**2 - (guessed**2).sum(1))
        return 100 * _ratio(covariance, np.sqrt(spread))

    return of_draws


def _values(scored: Scored) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """Predicted and true scores of a similarity task."""
    predicted = [float(text.strip()) if is_score(text) else UNREADABLE for text in scored.predictions]
    return np.array(predicted), np.array([float(references[0]) for references in scored.references])


def _pearson(metric: str, scored: Scored) -> OfDraws:
    x, y = (values - values.mean() for values in _values(scored))  # centred: sums of squares lose fewer digits

    def of_draws(counts: Float[np.ndarray, "draws rows"]) -> Float[np.ndarray, " draws"]:
        rows = counts.sum(1)
        mean_x, mean_y = counts @ x / rows, counts @ y / rows
        covariance = counts @ (x * y) / rows - mean_x * mean_y
        variances = [counts @ v**2 / rows - mean**2 for v, mean in ((x, mean_x), (y, mean_y))]
        spread = [np.where(v > _CONSTANT * (u**2).max(), v, 0) for v, u in zip(variances, (x, y), strict=True)]
        return 100 * np.clip(_ratio(covariance, np.sqrt(spread[0] * spread[1])), -1, 1)

    return of_draws


def _spearman(metric: str, scored: Scored) -> OfDraws:
    """Pearson's correlation of the average ranks among the drawn rows."""
    groups = [np.unique(values, return_inverse=True) for values in _values(scored)]

    def of_draws(counts: Float[np.ndarray, "draws rows"]) -> Float[np.ndarray, " draws"]:
        middle = (counts.sum(1, keepdims=True) + 1) / 2
        x, y = (_ranks(counts, index, len(values)) - middle for values, index in groups)
        spread = (counts * x**2).sum(1) * (counts * y**2).sum(1)
        return 100 * _ratio((counts * x * y).sum(1), np.sqrt(spread))

    return of_draws


def _ranks(
    counts: Float[np.ndarray, "draws rows"], index: Int[np.ndarray, " rows"], num_values: int
) -> Float[np.ndarray, "draws rows"]:
    """The average rank of every row's value among the drawn rows; `index` numbers the values in rising order."""
    of_value = counts @ np.eye(num_values)[index]
    return (of_value.cumsum(1) - (of_value - 1) / 2)[:, index]


def _ratio(above: Float[np.ndarray, " *shape"], below: Float[np.ndarray, " *shape"]) -> Float[np.ndarray, " *shape"]:
    """Divide; 0 where `below` is 0."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)


_FORMULAS: dict[str, Callable[[str, Scored], OfDraws]] = {
    "f1": _binary_f1,
    "macro_f1": _macro_f1,
    "matthews": _matthews,
    "multirc_f1": _binary_f1,
    "multirc_em": _whole_groups,
    "pearson": _pearson,
    "spearman": _spearman,
    **dict.fromkeys(("accuracy", "qa_f1", "qa_em", "qa_f1_first", "qa_em_first"), _mean),
}
