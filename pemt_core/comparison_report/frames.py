"""The tables of a comparison as frames: method by target, every cell with its facts, and the family of tests."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from pemt_core.comparison.compared import Compared
from pemt_core.comparison_report.study import Study
from pemt_core.statistics.analysis import Contrasts


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
            }
            for study in studies
            for line in study.lines
            for target in study.targets
            if (cell := study.cells.get((line.column, target))) is not None
        ]
    )


def row_frame(compared: Compared) -> pd.DataFrame:
    """Return a row per cell with all facts, as recorded."""
    rows = []
    for result in compared.results:
        cost = compared.costs[result.cell]
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
                "steps": cost.steps,
                "configurations": cost.configurations,
                "seconds": cost.seconds,
                "peak_memory_mib": cost.peak_memory_mib,
                "stored_bytes": cost.stored_bytes,
                "trained_parameters": result.trained_parameters,
                "sources": " ".join(result.sources),
                "key": result.key,
                "artifact": result.artifact,
                "data": result.data,
                "backbone": result.backbone,
            }
        )
    return pd.DataFrame(rows)


def comparison_frame(studies: Sequence[Study]) -> pd.DataFrame:
    """Return a row per k, set of targets and test of the family: the reference minus a method, in points."""
    rows = []
    for study in studies:
        sets = {"all": study.analysis.contrasts, "above the floor": study.analysis.above_floor}
        rows += [row for name, contrasts in sets.items() for row in _rows(study.k, name, contrasts)]
    columns = [
        "k", "over", "method", "against", "targets", "mean", "mean_low", "mean_high", "median", "hodges_lehmann", "low",
        "high", "p", "p_holm", "family", "wins", "ties", "losses", "superiority", "verdict", "reason",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


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
