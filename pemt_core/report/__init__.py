"""Tables, figures and a page from a folder of results; nothing here reads a model or a tracking server.

Importing this package loads neither pandas nor matplotlib: `write_report` does when it is called.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pemt_core.report.origin import Origin

__all__ = ["write_report"]


def write_report(
    results_dir: Path,
    output_dir: Path,
    *,
    confidence: float,
    layer_groups: int,
    origin: "Origin",
    targets: Sequence[str] = (),
    failed: Sequence[str] = (),
) -> None:
    """Write every table and figure of the results below `results_dir` into `output_dir`.

    `confidence` is that of the intervals over seeds, `layer_groups` how many groups of layers per stack the expert
    weights are averaged over, `origin` where the results come from, `targets` the targets that were asked for: those
    without any result are stated, and what `failed`.
    Writes table.csv, means.csv, table.md, summary.json, curves.csv, curves.png, parameters.png, expert_weights.png, for
    which the same results give the same bytes, and report.html, which shows `origin` too.
    Raises ArtifactError where there is no result or one is unreadable.
    """
    from pemt_core.artifacts.files import write_json
    from pemt_core.artifacts.result import load_results
    from pemt_core.report import curves, heat_map, markdown, page, parameters, table
    from pemt_core.report.files import write_csv, write_figure, write_text
    from pemt_core.report.palette import series_of

    results = load_results(results_dir)
    output_dir = Path(output_dir)
    seeds = table.seed_frame(results)
    cells = table.cell_frame(seeds, confidence)
    series = series_of(results)
    means = table.mean_frame(seeds, confidence)
    write_csv(output_dir / "table.csv", cells)
    write_csv(output_dir / "means.csv", means)
    gaps = [*failed, *table.gaps(seeds, targets)]
    write_text(output_dir / "table.md", markdown.write_tables(cells, means, gaps, confidence))
    write_json(output_dir / "summary.json", table.summary(cells, means))
    write_csv(output_dir / "curves.csv", curves.curve_frame(results))
    write_figure(output_dir / "curves.png", curves.draw_curves(results, series, most_columns=5))
    write_figure(output_dir / "parameters.png", parameters.draw_parameters(cells, means, series))
    write_figure(output_dir / "expert_weights.png", heat_map.draw_expert_weights(results, layer_groups))
    tables = page.Tables(seeds, cells, means, gaps, confidence)
    page.write_page(output_dir / "report.html", results, tables, origin)
