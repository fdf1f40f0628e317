"""Statistics of a comparison of methods over seeds, test rows and targets. All scores and differences are points.

From results and their test answers to everything that a report shows, for one k:

    runs = target_runs((result, scored) for ...)      # Scored: predictions, references, groups and labels of a cell
    rules = Rules(method="pemt", references=("lora", "uniform"), confidence=0.95, margin=2.0, draws=10_000, seed=1)
    analysis = analyse(runs, rules)
    analysis.cells             # mean, Student interval, test-size error and two-way bootstrap of every cell
    analysis.floors            # which targets are at the majority class or at chance
    analysis.contrasts         # comparisons (Wilcoxon, Holm, Hodges-Lehmann, verdict) and ranking over all targets
    analysis.above_floor       # the same without the targets at the floor

`pscp` weighs a score against costs.
"""

from pemt_core.statistics.analysis import Analysis, CellSummary, Contrasts, Rules, analyse, summarise
from pemt_core.statistics.bootstrap import TargetDraws, draw_scores, mean_over_targets
from pemt_core.statistics.comparison import McNemar, MethodComparison, compare, mcnemar, superiority
from pemt_core.statistics.floor import Floor, best_constant, find_floor
from pemt_core.statistics.holm import holm
from pemt_core.statistics.intervals import (
    Interval,
    binomial_standard_error,
    percentile_interval,
    student_interval,
)
from pemt_core.statistics.pscp import PUBLISHED_CONSTANTS, Cost, median_constants, penalties, pscp
from pemt_core.statistics.ranks import Ranking, cliques, nemenyi_difference, rank_methods
from pemt_core.statistics.runs import TargetRuns, target_runs
from pemt_core.statistics.signed_rank import hodges_lehmann, signed_rank_p, smallest_p
from pemt_core.statistics.verdict import Decision, Verdict, decide

__all__ = [
    "PUBLISHED_CONSTANTS", "Analysis", "CellSummary", "Contrasts", "Cost", "Decision", "Floor", "Interval",
    "McNemar", "MethodComparison", "Ranking", "Rules", "TargetDraws", "TargetRuns", "Verdict", "analyse",
    "best_constant", "binomial_standard_error", "cliques", "compare", "decide", "draw_scores", "find_floor",
    "hodges_lehmann", "holm", "mcnemar", "mean_over_targets", "median_constants", "nemenyi_difference",
    "penalties", "percentile_interval", "pscp", "rank_methods", "signed_rank_p", "smallest_p",
    "student_interval", "summarise", "superiority", "target_runs",
]  # fmt: skip
