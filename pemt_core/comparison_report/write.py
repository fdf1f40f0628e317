"""Analyse a comparison and write its page, tables, paragraph and figures."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from pemt_core.artifacts.result import CellResult
from pemt_core.comparison.compared import Compared
from pemt_core.comparison_report.answers import read_answers, read_clusters
from pemt_core.comparison_report.by_k import draw_by_k
from pemt_core.comparison_report.frames import comparison_frame, row_frame, table_frame
from pemt_core.comparison_report.gate_figure import draw_gates
from pemt_core.comparison_report.gates import gates_of
from pemt_core.comparison_report.markdown import write_paragraph, write_table
from pemt_core.comparison_report.matrix import draw_matrix, matrix_of
from pemt_core.comparison_report.page import render_page, suffix_of
from pemt_core.comparison_report.points import draw_points
from pemt_core.comparison_report.ranks import draw_ranks
from pemt_core.comparison_report.study import Study, study_of
from pemt_core.metrics import Scored
from pemt_core.report.files import csv, png, write_files
from pemt_core.report.palette import in_order_of_k
from pemt_core.report.svg import svg_file
from pemt_core.statistics import Rules, analyse, target_runs

FIGURE = re.compile(r"((points|matrix|ranks|ranks_above_floor|gates)(-k(full|\d+))?|by_k)\.(svg|png)")

logger = logging.getLogger(__name__)


def write_comparison(compared: Compared, output_dir: Path) -> list[Study]:
    """Write the report of a comparison to `output_dir`, all files or none; returns the studies, one per k.

    The files are report.html, table.csv, rows.csv, comparisons.csv, table.md, paragraph.md, and each figure as SVG and
    PNG: points, matrix, ranks, ranks_above_floor (if a target is at the floor), gates (if the reference has some), each
    with "-k<k>" if there are several k, and by_k. Their bytes depend only on `compared`. Figures of an earlier report
    that this one lacks, as of a k that is no longer compared, are removed.

    Raises ArtifactError if predictions or prepared rows are missing or do not fit each other.
    """
    studies = studies_of(compared)
    figures = draw_figures(studies)
    files: dict[str, str | bytes] = {
        "report.html": render_page(compared, studies, figures),
        "table.csv": csv(table_frame(studies)),
        "rows.csv": csv(row_frame(compared)),
        "comparisons.csv": csv(comparison_frame(studies)),
        "table.md": write_table(studies),
        "paragraph.md": write_paragraph(studies),
        **{f"{name}.svg": svg_file(figure, name) for name, figure in figures.items()},
        **{f"{name}.png": png(figure) for name, figure in figures.items()},
    }
    write_files(output_dir, files)
    for path in Path(output_dir).iterdir():
        if FIGURE.fullmatch(path.name) and path.name not in files:
            path.unlink(missing_ok=True)
    logger.info("comparison %s: %s written", compared.name, output_dir)
    return studies


def studies_of(compared: Compared) -> list[Study]:
    """Analyse each k separately; each has a family of tests of its own, which counts columns without results."""
    by_k: dict[str, list[tuple[CellResult, Scored]]] = {}
    for result, answers in read_answers(compared):
        by_k.setdefault(str(result.k), []).append((result, answers))
    statistics, clusters, studies = compared.definition.statistics, read_clusters(compared), []
    for k in sorted(by_k, key=in_order_of_k):
        rules = Rules(
            method=compared.reference,
            references=tuple(compared.family),
            confidence=compared.settings.report.confidence,
            margin=statistics.margin,
            draws=statistics.draws,
            seed=statistics.seed,
        )
        analysis = analyse(target_runs(by_k[k], compared.chance, clusters), rules)
        studies.append(study_of(compared, [result for result, _ in by_k[k]], analysis))
    return studies


def draw_figures(studies: list[Study]) -> Mapping[str, Figure]:
    """Draw every figure, by the name of its file."""
    figures = {}
    for study in studies:
        suffix, above = suffix_of(study, studies), study.analysis.above_floor
        reference = [gates for gates in gates_of(study) if gates.column == study.compared.reference]
        figures[f"points{suffix}"] = draw_points(study)
        figures[f"matrix{suffix}"] = draw_matrix(study, matrix_of(study))
        figures[f"ranks{suffix}"] = draw_ranks(study, study.analysis.contrasts.ranking)
        if above is not None:
            figures[f"ranks_above_floor{suffix}"] = draw_ranks(study, above.ranking)
        if reference:
            figures[f"gates{suffix}"] = draw_gates(reference[0])
    if len([study for study in studies if study.k != "full"]) > 1:
        figures["by_k"] = draw_by_k(studies)
    return figures
