"""Write results/report.html: the whole report on one page, which needs no other file, no script and no network.

It may contain times and host names, since no later step reads it.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib.figure import Figure

from pemt_core.report import cost, origin, palette
from pemt_core.report.expert_table import expert_tables, heat_colours, shade_of
from pemt_core.report.headline import headline
from pemt_core.report.published import Comparable, comparable_with
from pemt_core.report.shared_settings import in_words, settings_of_results, share_settings
from pemt_core.report.svg import inline_svg, panel_svgs
from pemt_core.report.table import ALL, Tables, rows_of
from pemt_core.report.targets import rows_by_suite, track_of
from pemt_core.settings.dotted import flatten

FOLDER = Path(__file__).parent


def render_page(tables: Tables, found: origin.Origin, figures: Mapping[str, Figure]) -> str:
    """Return the page, which shows the `figures` "parameters" and "curves". The same input gives the same text."""
    methods = tables.names.ordered(result.method for result in tables.results)
    weighted = tables.with_experts
    page = {
        "results": tables.results,
        "tables": tables,
        "found": found,
        "series": tables.series,
        "only_k": next(iter(tables.series))[1] if len({k for _, k in tables.series}) == 1 else "",
        "seeds": sorted({result.seed for result in tables.results}),
        "about": {method: tables.names.about[method] for method in methods if method in tables.names.about},
        "headline": headline(tables),
        "weights": expert_tables(weighted),
        "weighted": tables.names.title(weighted[0].method) if weighted else "",
        "parameters": inline_svg(figures["parameters"], "parameters"),
        "panels": panel_svgs(figures["curves"], "curves"),
        "prepare": flatten(found.prepare.model_dump(), in_words),
        "settings": settings_of_results(tables.results, tables.names),
        **_scores(tables, comparable_with(tables.results, found.backbone, found.prepare)),
        **_costs(found),
    }
    return new_environment().get_template("page.html").render(page)


def _scores(tables: Tables, comparable: Comparable) -> dict[str, Any]:
    """Return what the page shows of the tables: means, targets by suite, sizes, and comparable published numbers."""
    suites = rows_by_suite(tables, comparable)
    groups = {ALL: tables.targets, **{name: [row.target for row in rows] for name, rows in suites.items()}}
    sizes = tables.cells.groupby(["method", "k"], as_index=False)["trained_parameters"].agg(["min", "max"])
    return {
        "suites": suites,
        "columns": list(groups),
        "means": {(row["method"], row["k"], row["suite"]): row for row in rows_of(tables.means)},
        "has_mean": tables.means.groupby(["method", "k"])["seeds"].any().to_dict(),
        "track": track_of(tables),
        "sizes": {(row["method"], row["k"]): (row["min"], row["max"]) for row in rows_of(sizes)},
        "comparable": comparable,
        "published_means": {
            row.method: {group: comparable.mean(row, targets) for group, targets in groups.items()}
            for row in comparable.rows
        },
    }


def _costs(found: origin.Origin) -> dict[str, Any]:
    """Return what the page shows of the steps: cost, the parts whose energy was measured, and the sources."""
    sources = origin.read_sources(found.source_dirs)
    energies = {part: [process.watt_hours(part) for process in found.processes] for part in ("cpu", "gpu")}
    names = {"Sources": [source.description.task for source in sources]}
    return {
        "costs": cost.by_step(found.processes),
        "elapsed": cost.elapsed(found.processes),
        "parts": [part for part, hours in energies.items() if any(each is not None for each in hours)],
        "sources": sources,
        "source_settings": share_settings([source.description.settings for source in sources], names),
    }


def new_environment(*folders: Path) -> Environment:
    """Make the templates of `folders`, and those beside this file, with the formats of numbers and the palette."""
    environment = Environment(
        loader=FileSystemLoader([*folders, FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "points": lambda value: "–" if value is None or math.isnan(value) else f"{value:.1f}".replace("-", "−"),
        "count": lambda value: f"{value:,}",
        "duration": cost.duration,
        "isnan": math.isnan,
        "percent": lambda share: f"{100 * share:.2f} %" if share < 0.1 else f"{100 * share:.0f} %",
        "shade": shade_of,
    }
    environment.globals |= {
        "ALL": ALL,
        "STEPS": cost.STEPS,
        "CHANGED": origin.CHANGED,
        "heat": heat_colours(),
        "palette": palette,
    }
    return environment
