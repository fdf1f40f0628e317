"""One k of a comparison as a report shows it: a line per method, best first, and the analysis of all of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean

from pemt_core.artifacts.result import CellResult
from pemt_core.comparison.compared import Compared
from pemt_core.comparison_report.costs import MethodCost, cost_of, pscp_of
from pemt_core.comparison_report.groups import GroupStyle, group_of
from pemt_core.report.names import MethodNames
from pemt_core.report.table import ALL, Tables, rows_of
from pemt_core.statistics.analysis import Analysis, CellSummary, Contrasts
from pemt_core.statistics.comparison import MethodComparison
from pemt_core.statistics.floor import Floor

UNREADABLE = 0.2  # a method with a larger share of unreadable answers is marked


@dataclass(frozen=True)
class Line:
    """One method at one k."""

    column: str
    title: str
    group: GroupStyle
    mean: float  # points, over targets and seeds; NaN if no seed has every target
    half_width: float  # of Student's interval over seeds, of the means over targets; NaN for one seed
    above_floor: float  # the mean over the targets above the floor; NaN if it lacks one or none is there
    targets: int  # that it has results for
    seeds: int
    unreadable: float  # share of its test answers that are no answer of the task
    rank: float  # average over all targets; NaN if it lacks one or there is no ranking
    comparison: MethodComparison | None  # the reference minus this method; None if it is not tested
    cost: MethodCost
    pscp: float  # points; NaN without a mean, below 0, or if memory was not measured

    @property
    def is_marked(self) -> bool:
        """Whether so many answers are unreadable that the mean says little about what was learned."""
        return self.unreadable > UNREADABLE

    @property
    def mean_interval(self) -> tuple[float, float]:
        """The ends of Student's interval; infinite for one seed."""
        half = math.inf if math.isnan(self.half_width) else self.half_width
        return self.mean - half, self.mean + half


@dataclass(frozen=True)
class Study:
    """A comparison at one k."""

    compared: Compared
    k: str
    results: Sequence[CellResult]
    analysis: Analysis
    lines: Sequence[Line]  # by mean, best first, those without one last

    @property
    def reference(self) -> Line:
        return next(line for line in self.lines if line.column == self.compared.reference)

    @property
    def others(self) -> list[Line]:
        """All lines but the reference's, best first."""
        return [line for line in self.lines if line.column != self.compared.reference]

    @property
    def without_results(self) -> list[str]:
        """Columns of the family that have no cell yet."""
        found = {line.column for line in self.lines}
        return [name for name in self.analysis.rules.references if name not in found]

    @property
    def apart(self) -> list[str]:
        """Columns of the family with results, but none of a target and seed that the reference has as well."""
        tested = {each.reference for each in self.analysis.contrasts.comparisons}
        return [name for name in self.analysis.rules.references if name not in {*tested, *self.without_results}]

    def title(self, column: str) -> str:
        """The title of a column; its name if it has no cell."""
        naming = self.compared.columns.get(column)
        return naming.title if naming else column

    @property
    def drawn(self) -> str:
        """What the bootstrap draws anew: a single seed says nothing about others."""
        has_seeds = any(len(cell.seeds) > 1 for cell in self.analysis.cells)
        return "seeds and test rows" if has_seeds else "test rows alone, as there is one seed"

    @property
    def confidence(self) -> float:
        return self.analysis.rules.confidence

    @cached_property
    def targets(self) -> list[str]:
        return list(dict.fromkeys(result.task for result in self.results))

    @cached_property
    def cells(self) -> Mapping[tuple[str, str], CellSummary]:
        """Summaries by column and target."""
        return {(cell.method, cell.target): cell for cell in self.analysis.cells}

    @cached_property
    def floors(self) -> Mapping[str, Floor]:
        """The targets where every method scores like a constant answer or a guess."""
        return {floor.target: floor for floor in self.analysis.floors if floor.at_floor}

    def difference(self, column: str, target: str) -> float | None:
        """A column minus the reference on one target, in points, over the seeds that both have; None without such."""
        one, other = self.cells.get((column, target)), self.cells.get((self.compared.reference, target))
        if one is None or other is None:
            return None
        scores = dict(zip(other.seeds, other.scores, strict=True))
        both = [score - scores[seed] for seed, score in zip(one.seeds, one.scores, strict=True) if seed in scores]
        return fmean(both) if both else None


def study_of(compared: Compared, results: Sequence[CellResult], analysis: Analysis) -> Study:
    """Put together what a report shows of `results`, which have one k, and their analysis."""
    tables = Tables.of(list(results), MethodNames.of(compared.columns), analysis.rules.confidence)
    means = {row["method"]: row for row in rows_of(tables.means[tables.means["suite"] == ALL])}
    ranking = analysis.contrasts.ranking
    ranks = dict(zip(ranking.methods, ranking.average_ranks, strict=True)) if ranking else {}
    tested = {comparison.reference: comparison for comparison in analysis.contrasts.comparisons}
    above = above_floor_means(analysis)
    by_column = {column: [each for each in results if each.method == column] for column in compared.columns}
    costs = {column: cost_of(compared, column, own) for column, own in by_column.items() if own}
    scores = pscp_of({column: (means[column]["mean"], cost) for column, cost in costs.items()})
    lines = []
    for column, cost in costs.items():
        own = by_column[column]
        lines.append(
            Line(
                column=column,
                title=compared.columns[column].title,
                group=group_of(compared, column, own),
                mean=means[column]["mean"],
                half_width=means[column]["half_width"],
                above_floor=above.get(column, math.nan),
                targets=len({result.task for result in own}),
                seeds=means[column]["seeds"],
                unreadable=sum(result.unreadable for result in own) / max(1, sum(result.test_rows for result in own)),
                rank=ranks.get(column, math.nan),
                comparison=tested.get(column),
                cost=cost,
                pscp=scores[column],
            )
        )
    lines.sort(key=lambda line: -math.inf if math.isnan(line.mean) else line.mean, reverse=True)
    return Study(compared, str(results[0].k), results, analysis, lines)


def above_floor_means(analysis: Analysis) -> dict[str, float]:
    """The mean of each method that has all targets above the floor; empty if no target is at the floor."""
    contrasts: Contrasts | None = analysis.above_floor
    if contrasts is None:
        return {}
    means: dict[str, list[float]] = {}
    for cell in analysis.cells:
        if cell.target in contrasts.targets:
            means.setdefault(cell.method, []).append(cell.mean)
    return {method: fmean(values) for method, values in means.items() if len(values) == len(contrasts.targets)}
