"""Write report.html of a comparison: the whole report on one page, which needs no other file and no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from pemt_core.comparison.compared import Compared
from pemt_core.comparison_report import claims
from pemt_core.comparison_report.gates import gates_of
from pemt_core.comparison_report.markdown import COST_NOTES, GATE_NOTE, flops, size, sources_of, stage_1_time, title_of
from pemt_core.comparison_report.matrix import FLOOR_MARK, colours, matrix_of
from pemt_core.comparison_report.study import Study
from pemt_core.report.page import new_environment
from pemt_core.report.svg import inline_svg

FOLDER = Path(__file__).parent
SECTIONS = {
    "claims": "Claims",
    "points": "Points against trained parameters",
    "matrix": "Methods by targets",
    "ranks": "Ranks",
    "gates": "Gates",
}
INLINE = ("points", "ranks", "ranks_above_floor")  # figures that the page shows; the others are tables there


def render_page(compared: Compared, studies: Sequence[Study], figures: Mapping[str, Figure]) -> str:
    """Return the page. `figures` are those of `draw_figures`, which has "by_k" if there are several k."""
    environment = new_environment(FOLDER)
    environment.filters |= {
        "signed": claims.signed,
        "ends": claims.interval,
        "flipped": lambda ends: claims.interval(ends, minus=True),
        "p": lambda p: claims.p_value(p).removeprefix("= "),
        "size": size,
        "flops": flops,
        "sources": sources_of,
        "stage_1": stage_1_time,
        "marked": claims.marked_title,
    }
    environment.globals |= {"diverging": colours(), "mark": FLOOR_MARK, "sections": SECTIONS}
    page = {
        "compared": compared,
        "cost_notes": COST_NOTES,
        "gate_note": GATE_NOTE,
        "parts": [_part(study, figures, suffix_of(study, studies)) for study in studies],
        "by_k": inline_svg(figures["by_k"], "by_k") if "by_k" in figures else "",
        "seeds": sorted({result.seed for result in compared.results}),
        "targets": list(dict.fromkeys(result.task for result in compared.results)),
    }
    return environment.get_template("comparison.html").render(page)


def suffix_of(study: Study, studies: Sequence[Study]) -> str:
    """What the names of a study's figures and sections end in, if there are several k: "-k16"."""
    return "" if len(studies) == 1 else f"-k{study.k}"


def _part(study: Study, figures: Mapping[str, Figure], suffix: str) -> dict[str, Any]:
    """What the page shows of one k."""
    matrix = matrix_of(study)
    drawn = {name: inline_svg(figures[f"{name}{suffix}"], f"{name}{suffix}") for name in INLINE
             if f"{name}{suffix}" in figures}  # fmt: skip
    return {
        "study": study,
        "suffix": suffix,
        "title": title_of(study),
        "at": f", {title_of(study)}" if suffix else "",
        "headline": claims.headline(study).replace(" ± ", "\N{NO-BREAK SPACE}±\N{NO-BREAK SPACE}"),
        "controls": " ".join(claims.controls(study)),
        "unreadable": claims.unreadable(study),
        "certainty": " ".join(claims.certainty(study)),
        "remarks": claims.remarks(study),
        "above_floor": claims.without_floors(study),
        "matrix": matrix,
        "rows": list(zip(matrix.titles, matrix.values, strict=True)),
        "gates": gates_of(study),
        **drawn,
    }
