"""The tables of a comparison as frames: method by target, every cell with its facts, and the family of tests."""

import json
from collections.abc import Sequence
from typing import Any

import pandas as pd

from pemt_core.comparison.compared import Compared
from pemt_core.comparison.definition import Statistics
from pemt_core.comparison_report.study import Study
from pemt_core.statistics.analysis import Contrasts

RULES = ("margin", "draws", "draws_seed")  # the statistics of the experiment's file, in every row


def table_frame(studies: Sequence[Study]) -> pd.DataFrame:
    """Return a row per k, method and target: mean and intervals over seeds and test rows, and the floor."""
    return pd.DataFrame(
        [
            {
                "k": study.k,
                "method": line.column,
                "title": line.title,
                "target": target,
                "metric": cell.metric,
                "mean": cell.mean,
                "low": cell.interval.low,
                "high": cell.interval.high,
                "seeds": len(cell.seeds),
                "test_size_se": cell.se_test,
                "bootstrap_low": cell.bootstrap.low,
                "bootstrap_high": cell.bootstrap.high,
                "test_rows": cell.test_rows,
                "clusters": cell.clusters,
                "difference": study.difference(line.column, target),
                "at_floor": target in study.floors,
                **_rules(study.compared.definition.statistics),
            }
            for study in studies
            for line in study.lines
            for target in study.targets
            if (cell := study.cells.get((line.column, target))) is not None
        ]
    )


def row_frame(compared: Compared) -> pd.DataFrame:
    """Return a row per cell with all facts, as recorded; `trials` maps configurations to validation scores, as JSON."""
    rows = []
    for result in compared.results:
        cost, search = compared.costs[result.cell], compared.searches[result.cell]
        rows.append(
            {
                "suite": result.suite,
                "target": result.task,
                "method": result.method,
                "variant": compared.variants[result.method],
                "k": result.k,
                "seed": result.seed,
                "metric": result.main_metric,
                "score": result.score,
                "validation": result.validation.get(result.main_metric),
                "unreadable": result.unreadable,
                "test_rows": result.test_rows,
                "learning_rate": result.learning_rate,
                "best_step": search.best_step,
                "configurations": cost.configurations,
                "trials": json.dumps(dict(search.trials)),
                "steps": cost.steps,
                "seconds": cost.seconds,
                "peak_memory_mib": cost.peak_memory_mib,
                "stored_bytes": cost.stored_bytes,
                "added_flops": compared.added_flops[result.method],
                "trained_parameters": result.trained_parameters,
                "sources": " ".join(result.sources),
                "key": result.key,
                "artifact": result.artifact,
                "data": result.data,
                "backbone": result.backbone,
                **_rules(compared.definition.statistics),
            }
        )
    return pd.DataFrame(rows)


def comparison_frame(studies: Sequence[Study]) -> pd.DataFrame:
    """Return a row per k, set of targets and test of the family: the reference minus a method, in points."""
    rows = []
    for study in studies:
        sets = {"all": study.analysis.contrasts, "above the floor": study.analysis.above_floor}
        rules = {"confidence": study.confidence, **_rules(study.compared.definition.statistics)}
        rows += [{**row, **rules} for name, contrasts in sets.items() for row in _rows(study.k, name, contrasts)]
    columns = [
        "k", "over", "method", "against", "targets", "mean", "mean_low", "mean_high", "median", "hodges_lehmann", "low",
        "high", "p", "p_holm", "family", "wins", "ties", "losses", "superiority", "verdict", "reason",
        "confidence", *RULES,
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _rules(statistics: Statistics) -> dict[str, Any]:
    return dict(zip(RULES, (statistics.margin, statistics.draws, statistics.seed), strict=True))


def _rows(k: str, name: str, contrasts: Contrasts | None) -> list[dict[str, Any]]:
    return [
        {
            "k": k,
            "over": name,
            "method": each.method,
            "against": each.reference,
            "targets": each.n_targets,
            "mean": each.mean,
            "mean_low": each.mean_interval.low,
            "mean_high": each.mean_interval.high,
            "median": each.median,
            "hodges_lehmann": each.hodges_lehmann,
            "low": each.interval.low,
            "high": each.interval.high,
            "p": each.p,
            "p_holm": each.p_holm,
            "family": each.family_size,
            "wins": each.wins,
            "ties": each.ties,
            "losses": each.losses,
            "superiority": each.superiority,
            "verdict": each.verdict.decision,
            "reason": each.verdict.reason,
        }
        for each in (contrasts.comparisons if contrasts else ())
    ]
