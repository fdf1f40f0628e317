"""Each method and k as a tracking store shows it: metrics under names that all methods share, a page, figures."""

import math
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure

from pemt_core.artifacts.result import CellResult
from pemt_core.report import curves, heat_map, markdown
from pemt_core.report.palette import Style
from pemt_core.report.table import ALL, Tables


@dataclass(frozen=True)
class MethodSummary:
    """One method at one k over its targets and seeds."""

    method: str
    title: str
    k: str
    results: list[CellResult]
    style: Style  # the same in all figures
    metrics: dict[str, float]  # see `_metrics`
    page: str  # Markdown
    layer_groups: int

    @property
    def name(self) -> str:
        """The name of method and k, such as "pemt k=32"."""
        return f"{self.method} k={self.k}"

    def draw(self) -> dict[str, Figure]:
        """Draw its figures, by name, for a narrow page; expert weights only if it has experts."""
        series = {(self.method, self.k): self.style}
        figures = {"learning_curves": curves.draw_curves(self.results, series, most_columns=3)}
        if any(result.expert_weights is not None for result in self.results):
            figures["expert_weights"] = heat_map.draw_expert_weights(self.results, self.layer_groups, self.title)
        return figures


@dataclass(frozen=True)
class Comparison:
    """All methods of a report."""

    methods: list[MethodSummary]  # lowest mean first, before them those without a mean
    overview: str  # Markdown: methods side by side


def compare_methods(tables: Tables, layer_groups: int) -> Comparison:
    """Summarize each method and k, and compare them all.

    `layer_groups` is the number of groups of layers per stack over which the expert weights are averaged.
    """
    methods, cells, means = [], tables.cells, tables.means
    for (method, k), style in tables.series.items():
        cell_rows = cells[(cells["method"] == method) & (cells["k"] == k)]
        mean_rows = means[(means["method"] == method) & (means["k"] == k)]
        methods.append(
            MethodSummary(
                method=method,
                title=tables.names.title(method),
                k=k,
                results=[result for result in tables.results if (result.method, str(result.k)) == (method, k)],
                style=style,
                metrics=_metrics(cell_rows, mean_rows),
                page=markdown.write_method_page(cell_rows, mean_rows, tables.confidence),
                layer_groups=layer_groups,
            )
        )
    methods.sort(key=lambda summary: summary.metrics.get("mean/All", -math.inf))
    return Comparison(methods, markdown.write_overview(tables))


def _metrics(cells: pd.DataFrame, means: pd.DataFrame) -> dict[str, float]:
    """Return mean/All, mean/<suite>, target/<target> in points, their intervals as half_width, and the parameters.

    MLflow draws a section of charts per prefix and sorts them, capitals first; its page of two runs begins with the
    first metric. Values that could not be computed are absent.
    """
    all_first = means.sort_values("suite", key=lambda suite: suite != ALL, kind="stable").to_dict("records")
    named = [("mean", "All" if row["suite"] == ALL else row["suite"], row) for row in all_first]
    named += [("target", row["target"], row) for row in cells.to_dict("records")]
    values = {f"{prefix}/{name}": row["mean"] for prefix, name, row in named}
    values |= {f"{prefix}_half_width/{name}": row["half_width"] for prefix, name, row in named}
    values["trained_parameters"] = float(cells["trained_parameters"].max())
    return {name: round(float(value), 4) for name, value in values.items() if not math.isnan(value)}
