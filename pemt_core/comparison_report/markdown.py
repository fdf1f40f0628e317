"""The tables of a comparison as Markdown, for documents and the tracking store."""

import math
from collections.abc import Sequence
from typing import Any

from pemt_core.answering.gates import ONE_HOT
from pemt_core.comparison_report.claims import TIED, difference, marked_title, p_value, paragraph, points, unreadable
from pemt_core.comparison_report.costs import MethodCost
from pemt_core.comparison_report.gates import gates_of
from pemt_core.comparison_report.matrix import FLOOR_MARK, matrix_of
from pemt_core.comparison_report.study import Line, Study
from pemt_core.errors import counted
from pemt_core.report.cost import duration
from pemt_core.report.markdown import NOTHING, pipe_table

_METHODS = [
    "Method", "Mean", "Difference", "Holm p", "Verdict", "Rank", "Trained", "Of sources", "Sources", "Stage 1",
    "Configurations", "Steps", "Time", "Memory", "Disk", "Inference", "PSCP",
]  # fmt: skip


COST_NOTES = (
    "Steps, time and size on disk are per cell, over all configurations that were tried; time is on one core.",
    "Of sources: the frozen parameters that a cell uses from stage 1, of adapters with prompts or of prompts alone.",
    "Sources: how many a cell uses and, if it chose them, from how many. Stage 1 trains them once for all targets.",
    "Stage 1 has no time where it was not measured: a source from checkpoints/finished was trained by another command.",
    "Inference: the operations per row that a method adds to those of the bare backbone, for a text and an answer of "
    "the suite's usual lengths, counted by torch.",
    "PSCP weighs the mean against trained parameters, inference and peak memory, whose constants are the medians over "
    "the methods here; compare it within this table alone.",
)

GATE_NOTE = (
    "Gates, means over targets, layers, rows and seeds. Entropy is 0 if one expert has all the weight, and 1 if all "
    f"weigh the same; a row is one-hot if its largest weight is above {ONE_HOT}; deviation is that of a weight over "
    "the rows of a target, 0 if the gate ignores the row; agreement is how often two seeds give the most weight to "
    "the same source."
)


def write_table(studies: Sequence[Study]) -> str:
    """Return table.md: for each k, the methods with their costs, then every target."""
    parts = []
    for study in studies:
        parts += [f"### {title_of(study)}", *_study(study)] if len(studies) > 1 else _study(study)
    return "\n\n".join(parts) + "\n"


def write_paragraph(studies: Sequence[Study]) -> str:
    """Return paragraph.md: for each k, the finding, then a list of the claims."""
    parts = []
    for study in studies:
        first, *others = paragraph(study)
        parts += [f"### {title_of(study)}"] if len(studies) > 1 else []
        parts += [first, "\n".join(f"- {sentence}" for sentence in others)] if others else [first]
        parts += [TIED] if study.analysis.contrasts.comparisons else []
    return "\n\n".join(parts) + "\n"


def title_of(study: Study) -> str:
    """Return the heading of one k."""
    return "All training data" if study.k == "full" else f"k = {study.k}"


def _study(study: Study) -> list[str]:
    reference, rules, targets = study.reference.title, study.analysis.rules, counted(len(study.targets), "target")
    shown = (
        f"Mean of the main metric in points over {targets} and the seeds, ± half of Student's "
        f"interval over seeds at confidence {study.confidence:.4g}. Difference: minus {reference}, with the two-way "
        f"bootstrap interval over {study.drawn}; the verdict is on the claim that {reference} is better, from "
        f"Wilcoxon's test over targets with Holm's correction in a family of {len(rules.references)}; a difference "
        f"within ±{rules.margin:g} points does not matter. The bootstrap has {rules.draws:,} draws and the "
        f"seed {rules.seed}."
    )
    table = pipe_table(_METHODS, [_row(line) for line in study.lines])
    marked = [note] if (note := unreadable(study)) else []
    return [shown, table, *marked, " ".join(COST_NOTES), *_targets(study), *_gates(study)]


def _gates(study: Study) -> list[str]:
    """The methods that have gates; empty if none has."""
    digits = {"entropy": 2, "one_hot": 2, "deviation": 4, "agreement": 2}
    rows = []
    for gates in gates_of(study):
        means = {name: gates.mean(name) for name in digits}
        shown = [NOTHING if math.isnan(mean) else f"{mean:.{digits[name]}f}" for name, mean in means.items()]
        rows.append([gates.title, *shown])
    heads = ["Gates", "Entropy", "One-hot rows", "Deviation", "Agreement"]
    return [GATE_NOTE, pipe_table(heads, rows)] if rows else []


def _row(line: Line) -> list[Any]:
    cost, each = line.cost, line.comparison
    return [
        marked_title(line),
        NOTHING if math.isnan(line.mean) else points(line),
        NOTHING if each is None else difference(each),
        NOTHING if each is None else p_value(each.p_holm).removeprefix("= "),
        NOTHING if each is None else each.verdict.decision,
        NOTHING if math.isnan(line.rank) else f"{line.rank:.2f}",
        f"{cost.most_parameters:,}",
        NOTHING if cost.source_parameters is None else f"{cost.source_parameters:,}",
        sources_of(cost),
        stage_1_time(cost) or NOTHING,
        f"{cost.configurations:g}",
        NOTHING if cost.steps is None else f"{cost.steps:,.0f}",
        NOTHING if cost.seconds is None else duration(cost.seconds),
        NOTHING if cost.peak_memory_mib is None else f"{cost.peak_memory_mib:,} MiB",
        size(cost.stored_bytes),
        flops(cost.added_flops),
        NOTHING if math.isnan(line.pscp) else f"{line.pscp:.1f}",
    ]


def _targets(study: Study) -> list[str]:
    """Each target's scores by method, the reference first; its marked targets are explained."""
    matrix = matrix_of(study)
    rows = []
    for target in matrix.targets:
        cells = [study.cells.get((column, target)) for column in matrix.rows]
        scores = [NOTHING if cell is None else f"{cell.mean:.1f}" for cell in cells]
        rows.append([f"{target} {FLOOR_MARK}" if target in study.floors else target, *scores])
    table = pipe_table(["Target", *matrix.titles], rows)
    notes = [f"- {FLOOR_MARK} {floor.target}: {floor.reason}." for floor in study.floors.values()]
    return [table, *(["\n".join(notes)] if notes else [])]


def sources_of(cost: MethodCost) -> str:
    """Format the sources of a cell: "6", "1 of 6" if it chooses among them, or "0"."""
    return f"{cost.sources} of {cost.candidates}" if cost.candidates > cost.sources else f"{cost.sources}"


def stage_1_time(cost: MethodCost) -> str:
    """Format what stage 1 took for a method; empty if it draws on no source, or its time is unknown."""
    return duration(cost.source_seconds) if cost.candidates and cost.source_seconds is not None else ""


def size(num_bytes: float) -> str:
    """Format a size on disk: "512 B", "12.3 kB", "8.5 MB"."""
    return _with_unit(num_bytes, (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)), "B")


def flops(operations: int) -> str:
    """Format a number of floating-point operations: "0 FLOP", "1.2 MFLOP", "3.4 GFLOP"."""
    return _with_unit(operations, (("TFLOP", 1e12), ("GFLOP", 1e9), ("MFLOP", 1e6), ("kFLOP", 1e3)), "FLOP")


def _with_unit(number: float, units: Sequence[tuple[str, float]], smallest: str) -> str:
    for unit, scale in units:
        shown = float(f"{number / scale:.3g}")  # 999.9 of a unit are shown as 1 of the next
        if shown >= 1:
            return f"{shown:,.0f} {unit}" if shown >= 1000 else f"{shown:.3g} {unit}"
    return f"{number:.0f} {smallest}"
