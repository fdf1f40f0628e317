"""The report's tables as Markdown: means, methods side by side, one table per suite, then what is missing."""

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from pemt_core.report.table import ALL

NOTHING = "-"  # shown where there is no number: an interval of one seed


def write_tables(cells: pd.DataFrame, means: pd.DataFrame, missing: Sequence[str], confidence: float) -> str:
    """The text of table.md from the frames of `pemt_core.report.table` and the sentences of its `gaps`."""
    parts = [
        "# Results",
        f"Main metric of each target on its test split, in points, mean over seeds. ± is half of Student's t interval "
        f"over seeds at confidence {confidence:.4g}; `{NOTHING}` with one seed.",
        "## All targets",
        _means_table(means),
        _capped_note(cells),
        *(["## Methods", _methods_table(cells)] if cells["method"].nunique() > 1 else []),
    ]
    for suite, rows in cells.groupby("suite", sort=False):
        parts += [f"## {suite}", _cells_table(rows)]
    parts += ["## Missing", "\n".join(f"- {sentence}" for sentence in missing) or "Nothing."]
    return "\n\n".join(part for part in parts if part) + "\n"


def _means_table(means: pd.DataFrame) -> str:
    header = ["Method", "k", "Over", "Targets", "Mean", "±", "Seeds"]
    rows = [
        [
            row["method"],
            row["k"],
            row["suite"],
            row["targets"],
            _points(row["mean"]),
            _points(row["half_width"]),
            row["seeds"],
        ]
        for row in _all_first(means)
        if row[
            "seeds"
        ]  # a method that was trained for a few targets has no mean: the section on what is missing says so
    ]
    return _table(header, rows) if rows else "No method has a seed with every target of a suite."


def _all_first(means: pd.DataFrame) -> list[dict[Any, Any]]:
    """The rows over every target, so that methods stand under one another, then each suite's."""
    rows = means.to_dict("records")
    suites = [ALL, *dict.fromkeys(row["suite"] for row in rows if row["suite"] != ALL)]
    return sorted(rows, key=lambda row: suites.index(row["suite"]))


def _methods_table(cells: pd.DataFrame) -> str:
    """A row per target and k, a column per method; blank where the method was not trained."""
    methods = sorted(cells["method"].unique())
    points = {(r["target"], r["k"], r["method"]): _points(r["mean"]) for r in cells.to_dict("records")}
    rows = dict.fromkeys((target, k) for target, k, _ in points)
    return _table(["Target", "k", *methods], [[*row, *(points.get((*row, m), "") for m in methods)] for row in rows])


def _cells_table(cells: pd.DataFrame) -> str:
    header = [
        "Target", "Metric", "Method", "k", "Mean", "±", "Seeds", "Test rows", "Trained parameters", "Unreadable",
    ]  # fmt: skip
    rows = [
        [
            row["target"],
            row["metric"],
            row["method"],
            row["k"],
            _points(row["mean"]),
            _points(row["half_width"]),
            row["seeds"],
            _test_rows(row),
            f"{row['trained_parameters']:,}",
            _unreadable(row),
        ]
        for row in cells.to_dict("records")
    ]
    return _table(header, rows)


def _points(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{value:.1f}"


def _test_rows(row: dict[Any, Any]) -> str:
    """ "28", or "400 of 8,000" where the test split was capped."""
    scored, available = row["test_rows"], row["test_rows_available"]
    return f"{scored:,}" if scored == available else f"{scored:,} of {available:,}"


def _unreadable(row: dict[Any, Any]) -> str:
    """ "3 of 84": unreadable predictions of all that were made, over every seed."""
    return f"{row['unreadable']:,} of {row['predictions']:,}" if row["unreadable"] else "0"


def _capped_note(cells: pd.DataFrame) -> str:
    capped = cells.loc[cells["test_rows"] < cells["test_rows_available"], "target"].nunique()
    if not capped:
        return ""
    return (
        f"{capped} of {cells['target'].nunique()} targets were scored on a part of their test split, as marked below."
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
