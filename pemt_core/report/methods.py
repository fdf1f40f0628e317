"""Each method and k as a whole, as a tracking store shows it: metrics under names that all share, a page, figures."""

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
    style: Style  # that of all figures
    metrics: dict[str, float]  # see `_metrics`
    page: str  # Markdown
    layer_groups: int

    @property
    def name(self) -> str:
        """Such as "pemt k=32"."""
        return f"{self.method} k={self.k}"

    def draw(self) -> dict[str, Figure]:
        """Its figures by name, for a narrow page; expert weights only where it has experts."""
        series = {(self.method, self.k): self.style}
        figures = {"learning_curves": curves.draw_curves(self.results, series, most_columns=3)}
        if any(result.expert_weights is not None for result in self.results):
            figures["expert_weights"] = heat_map.draw_expert_weights(self.results, self.layer_groups, self.title)
        return figures


@dataclass(frozen=True)
class Comparison:
    """All methods of a report."""

    methods: list[MethodSummary]  # the lowest mean first, those without one before them
    overview: str  # Markdown: methods side by side


def compare_methods(tables: Tables, layer_groups: int) -> Comparison:
    """What there is to say of each method and k, and of all of them.

    `layer_groups` is how many groups of layers per stack the expert weights are averaged over.
    """
    methods, cells, means = [], tables.cells, tables.means
    for (method, k), style in tables.series.items():
        own_cells = cells[(cells["method"] == method) & (cells["k"] == k)]
        own_means = means[(means["method"] == method) & (means["k"] == k)]
        methods.append(
            MethodSummary(
                method=method,
                title=tables.names.title(method),
                k=k,
                results=[result for result in tables.results if (result.method, str(result.k)) == (method, k)],
                style=style,
                metrics=_metrics(own_cells, own_means),
                page=markdown.write_method_page(own_cells, own_means, tables.confidence),
                layer_groups=layer_groups,
            )
        )
    methods.sort(key=lambda summary: summary.metrics.get("mean/All", -math.inf))
    return Comparison(methods, markdown.write_overview(tables))


def _metrics(cells: pd.DataFrame, means: pd.DataFrame) -> dict[str, float]:
    """mean/All, mean/<suite>, target/<target> in points, the interval of each below half_width/, and the parameters.

    MLflow draws a section of charts per prefix and sorts them, capitals first; its page of two runs begins with the
    first metric. What could not be formed is absent.
    """
    all_first = means.sort_values("suite", key=lambda suite: suite != ALL, kind="stable").to_dict("records")
    named = [("mean", "All" if row["suite"] == ALL else row["suite"], row) for row in all_first]
    named += [("target", row["target"], row) for row in cells.to_dict("records")]
    values = {f"{prefix}/{name}": row["mean"] for prefix, name, row in named}
    values |= {f"{prefix}_half_width/{name}": row["half_width"] for prefix, name, row in named}
    values["trained_parameters"] = float(cells["trained_parameters"].max())
    return {name: round(float(value), 4) for name, value in values.items() if not math.isnan(value)}
