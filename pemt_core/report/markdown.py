"""The report's tables as Markdown: the whole report, an overview, and the pages of a method and of a cell."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from pemt_core.artifacts.result import CellResult
from pemt_core.report.table import ALL, Tables

NOTHING = "-"  # shown if there is no number, such as the interval of one seed
_NO_MEANS = "No method has a seed with every target of a suite."
_MEANS_HEADER = ["Method", "k", "Over", "Targets", "Mean", "±", "Seeds"]
_CELLS_HEADER = [
    "Target", "Metric", "Method", "k", "Mean", "±", "Seeds", "Test rows", "Trained parameters", "Unreadable",
]  # fmt: skip


def write_tables(tables: Tables) -> str:
    """Return the text of table.md."""
    groups = tables.cells.groupby("suite", sort=False)
    suites = [part for suite, rows in groups for part in (f"## {suite}", _cells_table(rows))]
    return _join(["# Results", *_overview(tables), *suites, *_missing(tables.gaps)])


def write_overview(tables: Tables) -> str:
    """Return the text without the tables of suites, below one line with the means."""
    return _join([_mean_line(tables.means), *_overview(tables), *_missing(tables.gaps)])


def write_method_page(cells: pd.DataFrame, means: pd.DataFrame, confidence: float) -> str:
    """Return the page of one method and k from its rows of both frames."""
    formed = [row[2:] for row in _means_rows(means)]
    return _join(
        [
            _mean_line(means),
            pipe_table(_MEANS_HEADER[2:], formed) if formed else _NO_MEANS,
            _what_is_shown(confidence),
            _capped_note(cells),
            pipe_table([*_CELLS_HEADER[:2], *_CELLS_HEADER[4:]], [[*row[:2], *row[4:]] for row in _cells_rows(cells)]),
        ]
    )


def write_cell_page(result: CellResult) -> str:
    """Return the page of one cell: its scores by metric."""
    names = list(dict.fromkeys([result.main_metric, *result.test]))
    rows = [[name, _points(result.test[name]), _points(result.validation.get(name, math.nan))] for name in names]
    scored = _test_rows({"test_rows": result.test_rows, "test_rows_available": result.test_rows_available})
    return _join(
        [
            f"{result.task} ({result.suite}), {result.method}, k = {result.k}, seed {result.seed}: "
            f"{result.main_metric} **{result.score:.1f}** on {scored} test rows, {result.unreadable} unreadable.",
            pipe_table(["Metric", "Test", "Validation"], rows),
        ]
    )


def write_sources_page(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Return the page of the sources with their validation metrics; `metrics` has those of each source's run."""
    rows = []
    for source, of_run in metrics.items():
        names = sorted(name for name in of_run if name.startswith("validation/"))
        on_validation = {name.partition("/")[2]: of_run[name] for name in names}
        main = _points(on_validation.pop("main"))
        rows.append([source, main, ", ".join(f"{name} {_points(value)}" for name, value in on_validation.items())])
    return _join(["Source adapters on validation, in points.", pipe_table(["Source", "Main metric", "All"], rows)])


def _overview(tables: Tables) -> list[str]:
    return [
        _what_is_shown(tables.confidence),
        "## All targets",
        _means_table(tables.means),
        _capped_note(tables.cells),
        *(["## Methods", _methods_table(tables.cells)] if tables.cells["method"].nunique() > 1 else []),
    ]


def _mean_line(means: pd.DataFrame) -> str:
    """Return a line with the mean over all targets of each method that has one, best first."""
    overall = means[(means["suite"] == ALL) & (means["seeds"] > 0)].sort_values("mean", ascending=False)
    shown = [f"{row['method']} k={row['k']}: **{row['mean']:.1f}**" for row in overall.to_dict("records")]
    return f"Mean over all targets: {', '.join(shown)}" if shown else _NO_MEANS


def _what_is_shown(confidence: float) -> str:
    return (
        f"Main metric of each target on its test split, in points, mean over seeds. ± is half of Student's t interval "
        f"over seeds at confidence {confidence:.4g}; `{NOTHING}` with one seed."
    )


def _missing(sentences: Sequence[str]) -> list[str]:
    return ["## Missing", "\n".join(f"- {sentence}" for sentence in sentences) or "Nothing."]


def _join(parts: Sequence[str]) -> str:
    return "\n\n".join(part for part in parts if part) + "\n"


def _means_table(means: pd.DataFrame) -> str:
    rows = _means_rows(means)
    return pipe_table(_MEANS_HEADER, rows) if rows else _NO_MEANS


def _means_rows(means: pd.DataFrame) -> list[list[Any]]:
    return [
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
        if row["seeds"]  # a method without some targets has no mean, which the section "Missing" explains
    ]


def _all_first(means: pd.DataFrame) -> list[dict[Any, Any]]:
    """Return the rows over all targets first, so that methods are easy to compare, then those of each suite."""
    rows = means.to_dict("records")
    suites = [ALL, *dict.fromkeys(row["suite"] for row in rows if row["suite"] != ALL)]
    return sorted(rows, key=lambda row: suites.index(row["suite"]))


def _methods_table(cells: pd.DataFrame) -> str:
    """Return a table with a row per target and k and a column per method; blank if the method was not trained."""
    methods = sorted(cells["method"].unique())
    points = {(r["target"], r["k"], r["method"]): _points(r["mean"]) for r in cells.to_dict("records")}
    rows = dict.fromkeys((target, k) for target, k, _ in points)
    lines = [[*row, *(points.get((*row, method), "") for method in methods)] for row in rows]
    return pipe_table(["Target", "k", *methods], lines)


def _cells_table(cells: pd.DataFrame) -> str:
    return pipe_table(_CELLS_HEADER, _cells_rows(cells))


def _cells_rows(cells: pd.DataFrame) -> list[list[Any]]:
    return [
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


def _points(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{value:.1f}"


def _test_rows(row: dict[Any, Any]) -> str:
    """Format the number of test rows: "28", or "400 of 8,000" if the test split was capped."""
    scored, available = row["test_rows"], row["test_rows_available"]
    return f"{scored:,}" if scored == available else f"{scored:,} of {available:,}"


def _unreadable(row: dict[Any, Any]) -> str:
    """Format the unreadable predictions among all predictions of all seeds: "3 of 84"."""
    return f"{row['unreadable']:,} of {row['predictions']:,}" if row["unreadable"] else "0"


def _capped_note(cells: pd.DataFrame) -> str:
    capped = cells.loc[cells["test_rows"] < cells["test_rows_available"], "target"].nunique()
    if not capped:
        return ""
    return f"{capped} of {cells['target'].nunique()} targets were scored on part of their test split, as marked below."


def pipe_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
