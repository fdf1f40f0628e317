"""results/report.html: everything of a report on one page that needs no other file, no script and no network.

It may hold times and hosts: no later step reads it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pemt_core.artifacts.cell import methods_over
from pemt_core.artifacts.result import CellResult
from pemt_core.report import cost, origin
from pemt_core.report.expert_table import expert_tables, heat_colours, step_of
from pemt_core.report.figures import Name, Scale, curve_panels, parameter_figure
from pemt_core.report.files import write_text
from pemt_core.report.headline import TITLES, headline
from pemt_core.report.heat_map import SHOWN
from pemt_core.report.palette import COLOURS, DASHES, ON_DARK, SHAPES, Series, series_of
from pemt_core.report.published import PUBLISHED, Published, comparable_targets
from pemt_core.report.table import ALL, rows_of

FOLDER = Path(__file__).parent
MEANS_OVER_ROWS = ("accuracy", "qa_f1", "qa_em")  # metrics that are a mean of values from 0 to 100, one per test row


@dataclass(frozen=True)
class Tables:
    """The frames of `pemt_core.report.table`, and the sentences on what is missing."""

    seeds: pd.DataFrame
    cells: pd.DataFrame
    means: pd.DataFrame
    gaps: Sequence[str]
    confidence: float


@dataclass(frozen=True)
class TargetRow:
    """A line of the table of targets: a frame's row for each method and k that was trained, points of others."""

    target: str
    metric: str
    test_rows: int
    available: int
    sampling: float | None  # half the width of the interval that so many test rows give at most
    own: dict[Name, dict[str, Any]]
    worst: float
    best: float
    published: list[float | None]


def write_page(path: Path, results: Sequence[CellResult], tables: Tables, found: origin.Origin) -> None:
    """Write the page. The same results and provenance give the same bytes."""
    series = series_of(results)
    names = sorted(series, key=lambda name: name[0] != SHOWN)  # the others keep their order
    titles = {name: _title(name, series) for name in names}
    page = {
        "results": results,
        "tables": tables,
        "found": found,
        "series": series,
        "names": names,
        "titles": titles,
        "targets": list(dict.fromkeys(result.task for result in results)),
        "seeds": sorted({result.seed for result in results}),
        "only_k": names[0][1] if len({k for _, k in names}) == 1 else "",
        "explained": _explained(results),
        "headline": headline(tables.seeds, tables.cells, tables.means, tables.confidence),
        "weights": expert_tables(results),
        "panels": curve_panels(results, titles),
        "settings": origin.settings_of_targets(results),
        **_scores(results, tables, found, titles),
        **_costs(found),
    }
    write_text(path, _environment().get_template("page.html").render(page))


def _scores(
    results: Sequence[CellResult], tables: Tables, found: origin.Origin, titles: dict[Name, str]
) -> dict[str, Any]:
    """What the page shows of the tables: means, targets by suite, sizes, and published numbers where they compare."""
    comparable, reason = comparable_targets(results, found.backbone, found.prepare)
    published = PUBLISHED if comparable else ()
    suites = _suites(tables, published, comparable)
    targets = {name: [row.target for row in rows] for name, rows in suites.items()}
    groups = {ALL: [target for own in targets.values() for target in own], **targets}
    whole = published if set(groups[ALL]) <= set(comparable) else ()
    return {
        "suites": suites,
        "columns": list(groups),
        "means": {(row["method"], row["k"], row["suite"]): row for row in rows_of(tables.means)},
        "has_mean": tables.means.groupby(["method", "k"])["seeds"].any().to_dict(),
        "track": Scale(min(0.0, float(tables.cells["mean"].min())), 100.0, 0, 100),  # to percent of its width
        "sizes": _sizes(tables.cells),
        "published": published,
        "published_means": {
            row.method: {g: row.mean(own) if set(own) <= set(comparable) else None for g, own in groups.items()}
            for row in published
        },
        "comparable": comparable,
        "reason": reason,
        "figure": parameter_figure(tables.cells, tables.means, titles, whole, groups[ALL]),
    }


def _costs(found: origin.Origin) -> dict[str, Any]:
    """What the page shows of the steps: cost, the parts whose energy was measured, and the sources."""
    sources = origin.read_sources(found.source_dirs)
    return {
        "costs": cost.by_step(found.runs),
        "elapsed": cost.elapsed(found.runs),
        "parts": [part for part in ("cpu", "gpu") if any(run.watt_hours(part) is not None for run in found.runs)],
        "sources": sources,
        "source_settings": origin.compare_settings({s.description.task: s.description.settings for s in sources}),
    }


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "points": lambda value: "–" if value is None or math.isnan(value) else f"{value:.1f}".replace("-", "−"),
        "count": lambda value: f"{value:,}",
        "duration": cost.duration,
        "flatten": origin.flatten,
        "isnan": math.isnan,
        "percent": lambda share: f"{100 * share:.2f} %" if share < 0.1 else f"{100 * share:.0f} %",
        "step": step_of,
    }
    environment.globals |= {
        "ALL": ALL,
        "COLOURS": COLOURS,
        "DASHES": DASHES,
        "ON_DARK": ON_DARK,
        "SHAPES": SHAPES,
        "STEPS": cost.STEPS,
        "CHANGED": origin.CHANGED,
        "heat": heat_colours(),
    }
    return environment


def _title(name: Name, series: Series) -> str:
    """A method's title, with its k where there are several."""
    method, k = name
    title = TITLES.get(method, method)
    return title if len({k for _, k in series}) == 1 else f"{title}, k={k}"


def _explained(results: Sequence[CellResult]) -> dict[str, str]:
    """What the methods that a reader cannot know by name are."""
    sources = list(dict.fromkeys(source for result in results for source in result.sources))
    one_less = {method: own for method, own in methods_over(sources).items() if method.startswith("without_")}
    texts = {
        "control": "stage 2 without sources: target prompt, target adapters and layer norms alone",
        **{method: f"PEMT without the source {(set(sources) - set(own)).pop()}" for method, own in one_less.items()},
    }
    found = dict.fromkeys(result.method for result in results)
    return {method: texts[method] for method in found if method in texts}


def _suites(tables: Tables, published: Sequence[Published], comparable: Sequence[str]) -> dict[str, list[TargetRow]]:
    """The lines of the table of targets by suite, in the frames' order."""
    suites: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for row in rows_of(tables.cells):
        suites.setdefault(row["suite"], {}).setdefault(row["target"], []).append(row)
    return {
        suite: [
            _target_row(rows, tables.confidence, [p.points[name] if name in comparable else None for p in published])
            for name, rows in targets.items()
        ]
        for suite, targets in suites.items()
    }


def _target_row(rows: list[dict[str, Any]], confidence: float, published: list[float | None]) -> TargetRow:
    """The line of one target from its cells."""
    metric, test_rows = rows[0]["metric"], min(row["test_rows"] for row in rows)
    points = [row["mean"] for row in rows]
    return TargetRow(
        target=rows[0]["target"],
        metric=metric,
        test_rows=test_rows,
        available=max(row["test_rows_available"] for row in rows),
        sampling=_sampling(test_rows, confidence) if metric in MEANS_OVER_ROWS else None,
        own={(row["method"], row["k"]): row for row in rows},
        worst=min(points),
        best=max(points),
        published=published,
    )


def _sampling(rows: int, confidence: float) -> float:
    """Half the normal interval of a mean over `rows` test rows at its widest, in points: half of them 0, half 100."""
    return NormalDist().inv_cdf((1 + confidence) / 2) * 50.0 / math.sqrt(rows)


def _sizes(cells: pd.DataFrame) -> dict[Name, tuple[int, int]]:
    """The fewest and the most trained parameters of a target, by method and k."""
    sizes = cells.groupby(["method", "k"], as_index=False)["trained_parameters"].agg(["min", "max"])
    return {(row["method"], row["k"]): (row["min"], row["max"]) for row in rows_of(sizes)}
