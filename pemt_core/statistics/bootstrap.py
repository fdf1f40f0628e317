"""The two-way bootstrap: new seeds and new test rows, the same for every method.

A draw takes as many clusters of test rows, and as many seeds, as there are, with replacement, and the mean over its
seeds of the metric of its rows. Methods share rows and seeds, so the difference of two methods is paired. The targets
are fixed unless they are drawn as well.

Two errors oppose each other (Owen, 2007, "The pigeonhole bootstrap"). The variance over n seeds comes out (n - 1)/n of
what it should be, a third too small for three: read Student's interval beside it. What is independent for every seed
and row counts about three times, so where seeds err on different rows the interval is too wide: in a simulation of 80
rows, "95 %" covered 96 % with 3 seeds, 98 % with 5 and 99 % with 8.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
from jaxtyping import Float, Int

from pemt_core.statistics.runs import TargetRuns
from pemt_core.statistics.weighted import score_of_draws

_MOST_COUNTS = 4_000_000  # in memory at once, 32 MB


@dataclass(frozen=True, eq=False)
class TargetDraws:
    """The scores of every run of a target in every draw of test rows, in points; draw i has the same rows for all."""

    target: str
    seed: int
    scores: Mapping[tuple[str, int], Float[np.ndarray, " draws"]]  # method and seed

    def new_rows(self, method: str, seeds: Sequence[int]) -> Float[np.ndarray, " draws"]:
        """The mean of a method over `seeds`, in every draw of rows."""
        return self._table(method, seeds).mean(0)

    def two_way(self, method: str, seeds: Sequence[int]) -> Float[np.ndarray, " draws"]:
        """The mean over drawn seeds in every draw of rows; equal `seeds` are drawn alike for every method."""
        table = self._table(method, seeds)
        generator = np.random.default_rng([self.seed, crc32(self.target.encode()), *seeds])
        return (_counts(generator, table.shape[1], len(seeds)).T * table).mean(0)

    def difference(self, method: str, reference: str, seeds: Sequence[int]) -> Float[np.ndarray, " draws"]:
        """Method minus reference, two-way and paired."""
        return self.two_way(method, seeds) - self.two_way(reference, seeds)

    def _table(self, method: str, seeds: Sequence[int]) -> Float[np.ndarray, "seeds draws"]:
        return np.stack([self.scores[method, seed] for seed in seeds])


def draw_scores(runs: TargetRuns, draws: int, seed: int) -> TargetDraws:
    """Score every run of a target in `draws` draws of its test rows.

    The drawn rows depend on `seed`, the target's name and the number of clusters alone.
    """
    index = runs.cluster_of_row
    generator = np.random.default_rng([seed, crc32(runs.target.encode())])
    formulas = {
        (method, number): score_of_draws(runs.metric, scored)
        for method, seeds in runs.runs.items()
        for number, scored in seeds.items()
    }
    scores = {run: np.empty(draws) for run in formulas}
    step = max(1, _MOST_COUNTS // len(index))
    for start in range(0, draws, step):
        part = slice(start, min(start + step, draws))
        counts = row_draws(generator, part.stop - part.start, index)
        for run, formula in formulas.items():
            scores[run][part] = formula(counts)
    return TargetDraws(runs.target, seed, scores)


def row_draws(
    generator: np.random.Generator, draws: int, cluster_of_row: Int[np.ndarray, " rows"]
) -> Float[np.ndarray, "draws rows"]:
    """How often each row occurs if its clusters are drawn with replacement, for every draw."""
    return _counts(generator, draws, int(cluster_of_row.max()) + 1)[:, cluster_of_row]


def mean_over_targets(
    draws: Sequence[Float[np.ndarray, " draws"]], new_targets: np.random.Generator | None = None
) -> Float[np.ndarray, " draws"]:
    """Average the draws of several targets. With a generator, targets are drawn too: what a new target would give."""
    table = np.stack(draws, axis=1)
    if new_targets is None:
        return table.mean(1)
    return (table * _counts(new_targets, *table.shape)).mean(1)


def _counts(generator: np.random.Generator, draws: int, size: int) -> Float[np.ndarray, "draws size"]:
    """How often each of `size` things occurs among `size` drawn with replacement, for every draw."""
    drawn: Int[np.ndarray, "draws size"] = generator.integers(size, size=(draws, size))
    drawn += size * np.arange(draws)[:, None]
    return np.bincount(drawn.ravel(), minlength=draws * size).reshape(draws, size).astype(float)
