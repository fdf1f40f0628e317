"""report: write tables, figures and a page of all results."""

import logging
from pathlib import Path

from pemt_core.artifacts.files import json_bytes
from pemt_core.report.curves import curve_frame, draw_curves
from pemt_core.report.files import csv, png, write_files
from pemt_core.report.heat_map import draw_expert_weights
from pemt_core.report.markdown import write_tables
from pemt_core.report.origin import Origin
from pemt_core.report.page import render_page
from pemt_core.report.parameters import draw_parameters
from pemt_core.report.published import comparable_with
from pemt_core.report.table import ALL, Tables, summary

logger = logging.getLogger(__name__)


def report(tables: Tables, origin: Origin, layer_groups: int, output_dir: Path) -> dict[str, float]:
    """Write all tables and figures of the results to `output_dir`; returns the means over all targets by method and k.

    `layer_groups` is the number of groups of layers per stack over which the expert weights are averaged. The files are
    table.csv, means.csv, table.md, summary.json, curves.csv, curves.png, parameters.png and expert_weights.png, whose
    bytes depend only on results and settings, and report.html, which shows all of `origin`. All are written or none.
    """
    published = comparable_with(tables.results, origin.backbone, origin.prepare).over(tables.targets)
    shown = tables.with_experts
    title = tables.names.title(shown[0].method) if shown else ""
    figures = {
        "curves": draw_curves(tables.results, tables.series, most_columns=5),
        "parameters": draw_parameters(tables, published),
        "expert_weights": draw_expert_weights(shown, layer_groups, title),
    }
    means = summary(tables.cells, tables.means)
    files: dict[str, str | bytes] = {
        "table.csv": csv(tables.cells),
        "means.csv": csv(tables.means),
        "curves.csv": csv(curve_frame(tables.results)),
        "table.md": write_tables(tables),
        "summary.json": json_bytes(means),
        **{f"{name}.png": png(figure) for name, figure in figures.items()},
        "report.html": render_page(tables, origin, figures),
    }
    write_files(output_dir, files)
    logger.info("report: %s written", output_dir)
    return {method: points[ALL] for method, points in means.items() if ALL in points}
