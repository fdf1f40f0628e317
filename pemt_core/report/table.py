"""The numbers of a report as frames: one row per target, method and k, and means over suites and over all targets.

On test sets of 28 to 750 rows, one standard error is 2 to 7 points, so every mean over seeds comes with its interval.
Means over targets use only seeds that have every target: without a hard target, a mean would be too high.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import pandas as pd

from pemt_core.artifacts.result import CellResult
from pemt_core.report.names import MethodNames
from pemt_core.report.palette import Series, series_of

CELL = ["suite", "target", "method", "k"]
ALL = "all"  # names the mean over all targets, as suites name theirs


@dataclass(frozen=True)
class Tables:
    """Results and everything computed from them, once, for files, page and tracking store."""

    results: list[CellResult]
    names: MethodNames
    confidence: float  # of intervals over seeds
    seeds: pd.DataFrame  # see `seed_frame`
    cells: pd.DataFrame
    means: pd.DataFrame
    gaps: list[str]  # sentences on what is missing or unequal
    series: Series

    @classmethod
    def of(
        cls,
        results: list[CellResult],
        names: MethodNames,
        confidence: float,
        targets: Sequence[str] = (),
        failed: Sequence[str] = (),
    ) -> "Tables":
        """Compute the tables of `results`, in their order; `gaps` lists `failed` and the `targets` without a result."""
        seeds = seed_frame(results)
        return cls(
            results=results,
            names=names,
            confidence=confidence,
            seeds=seeds,
            cells=cell_frame(seeds, confidence),
            means=mean_frame(seeds, confidence),
            gaps=[*failed, *gaps(seeds, targets)],
            series=series_of(results, names),
        )

    @property
    def targets(self) -> list[str]:
        """The targets that have a result, in the results' order."""
        return list(dict.fromkeys(result.task for result in self.results))

    @property
    def overall(self) -> list[dict[str, Any]]:
        """The means over all targets that could be formed, in the order of `series`."""
        formed = rows_of(self.means[(self.means["suite"] == ALL) & self.means["mean"].notna()])
        return sorted(formed, key=lambda row: list(self.series).index((row["method"], row["k"])))

    @property
    def with_experts(self) -> list[CellResult]:
        """The results whose expert weights a report shows: those of the first method that has any.

        One method is enough: without a source, the weights of the others just rise together.
        """
        weighted = [result for result in self.results if result.expert_weights is not None]
        first = self.names.ordered(result.method for result in weighted)[:1]
        return [result for result in weighted if result.method in first]


def half_width(values: Sequence[float], confidence: float) -> float:
    """Return half the width of Student's t interval for the mean of `values`, with n - 1 degrees of freedom.

    It is NaN for a single value: one seed says nothing about the spread over seeds.
    """
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return math.nan
    return float(t.ppf((1 + confidence) / 2, n - 1)) * stdev(values) / math.sqrt(n)


def seed_frame(results: Sequence[CellResult]) -> pd.DataFrame:
    """Return one row per result, in order: the columns of CELL, seed, metric, score, and facts about the score."""
    return pd.DataFrame(
        [
            {
                "suite": result.suite,
                "target": result.task,
                "method": result.method,
                "k": str(result.k),
                "seed": result.seed,
                "metric": result.main_metric,
                "score": result.score,
                "test_rows": result.test_rows,
                "test_rows_available": result.test_rows_available,
                "trained_parameters": result.trained_parameters,
                "unreadable": result.unreadable,
                "backbone": result.backbone,
            }
            for result in results
        ]
    )


def cell_frame(seeds: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Return one row per suite, target, method and k of a `seed_frame`: mean and interval over its seeds, in points.

    `unreadable` and `predictions` are sums over seeds. `test_rows` is the smallest number over seeds.
    """
    rows = []
    for key, group in seeds.groupby(CELL, sort=False):
        scores = list(group["score"])
        rows.append(
            {
                **dict(zip(CELL, key, strict=True)),
                "metric": group["metric"].iloc[0],
                "mean": fmean(scores),
                "half_width": half_width(scores, confidence),
                "seeds": len(scores),
                "test_rows": group["test_rows"].min(),
                "test_rows_available": group["test_rows_available"].max(),
                "trained_parameters": group["trained_parameters"].max(),
                "unreadable": group["unreadable"].sum(),
                "predictions": group["test_rows"].sum(),
            }
        )
    return pd.DataFrame(rows)


def mean_frame(seeds: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """Return one row per method, k and suite, and one for all targets: the mean of the per-seed means over targets.

    A seed counts if it has every target that any method has in this suite; without such seeds, mean is NaN and seeds 0.
    """
    rows = []
    suites = list(dict.fromkeys(seeds["suite"]))
    for (method, k), group in seeds.groupby(["method", "k"], sort=False):
        for suite in [*suites, ALL]:
            needed = _targets(seeds, suite)
            per_seed = _per_seed_means(group[group["target"].isin(needed)], len(needed))
            rows.append(
                {
                    "method": method,
                    "k": k,
                    "suite": suite,
                    "targets": len(needed),
                    "mean": fmean(per_seed) if per_seed else math.nan,
                    "half_width": half_width(per_seed, confidence),
                    "seeds": len(per_seed),
                }
            )
    return pd.DataFrame(rows)


def _targets(seeds: pd.DataFrame, suite: str) -> list[str]:
    return list(dict.fromkeys(seeds["target"] if suite == ALL else seeds.loc[seeds["suite"] == suite, "target"]))


def _per_seed_means(seeds: pd.DataFrame, num_targets: int) -> list[float]:
    """Return the mean over targets of each seed that has all of them."""
    return [fmean(group["score"]) for _, group in seeds.groupby("seed") if len(group) == num_targets]


def rows_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame as dicts by column name."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def gaps(seeds: pd.DataFrame, targets: Sequence[str]) -> list[str]:
    """Return a sentence for each gap or difference in the tables: targets, seeds, backbones."""
    found = list(dict.fromkeys(seeds["target"]))
    sentences = [f"{target}: no result; means leave it out." for target in targets if target not in found]
    for (method, k), group in seeds.groupby(["method", "k"], sort=False):
        absent = [target for target in found if target not in set(group["target"])]
        if absent:
            sentences.append(f"{method}, k={k}: no result for {', '.join(absent)}; means that need one are not shown.")
        for target, present in group.groupby("target", sort=False)["seed"]:
            if missing := sorted(set(group["seed"]) - set(present)):
                numbers = ", ".join(map(str, missing))
                sentences.append(f"{method}, k={k}: {target} lacks seed {numbers}; means leave such seeds out.")
    if seeds["backbone"].nunique() > 1:
        sentences.append(f"The results come from {seeds['backbone'].nunique()} different backbones.")
    return sentences


def summary(cells: pd.DataFrame, means: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Return {method: {"all": mean, suite: mean, target: mean}} in points, with few-shot methods as "<method>-k<k>".

    Means that could not be computed are absent.
    """
    flat: dict[str, dict[str, float]] = {}
    rows = [*means.sort_values("suite", key=lambda s: s != ALL, kind="stable").to_dict("records")]
    rows += [{**row, "suite": row["target"]} for row in cells.to_dict("records")]
    for row in rows:
        if not math.isnan(row["mean"]):
            name = row["method"] if row["k"] == "full" else f"{row['method']}-k{row['k']}"
            flat.setdefault(name, {})[row["suite"]] = round(row["mean"], 4)
    return flat
