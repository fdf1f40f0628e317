"""Estimate an experiment in the paper's setting (T5-base, all data, a GPU) by the model of docs/scale.md.

Operations are counted and divided by a share of a GPU's peak; nothing is measured.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from pemt_core.artifacts.cell import Cell
from pemt_core.backbone.shapes import backbone_of_shapes
from pemt_core.comparison.plan import ComparisonPlan, VariantPlan
from pemt_core.comparison.scale import (
    STEP_OPERATORS,
    TOKENS,
    Attached,
    Gpu,
    Lengths,
    Shape,
    forward,
    generation,
    rows_of,
    source_rows,
    training,
)
from pemt_core.comparison.work import CellWork, TargetRows
from pemt_core.methods import Method
from pemt_core.methods.count import trained_parameters
from pemt_core.tasks import TASKS

BACKBONE = "t5-base"
SHARE, LAUNCH = 0.35, 10e-6  # of a GPU's peak that is sustained, and seconds per operator: assumptions, as in scale.md
PEAKS = {
    "H200 bfloat16": 989e12,
    "A100 bfloat16": 312e12,
    "H200 float32": 67e12,
    "A100 float32": 19.5e12,
}  # data sheets


@dataclass(frozen=True)
class PaperForecast:
    """Hours on one GPU, by device."""

    cells: int
    configurations: int  # over all cells
    sources: Mapping[str, float]  # hours of stage 1, by device
    columns: Mapping[str, Mapping[str, float]]  # hours of all cells of a column, by device


def paper_forecast(plan: ComparisonPlan) -> PaperForecast:
    """Estimate every cell and source adapter of an experiment; tasks of the user's files are left out."""
    devices = {name: Gpu(SHARE * peak, LAUNCH) for name, peak in PEAKS.items()}
    columns: dict[str, dict[str, float]] = {}
    configurations = 0
    for variant in plan.variants:
        methods = {name: _Parts.of(method, variant) for name, method in _methods(variant).items()}
        for cell in variant.cells:
            if cell.task not in TOKENS:
                continue
            work = _work(variant, cell)
            configurations += work.configurations
            hours = columns.setdefault(plan.column(variant, cell.method), dict.fromkeys(devices, 0.0))
            for device, gpu in devices.items():
                hours[device] += methods[cell.method].seconds(gpu, cell.task, work, variant) / 3600
    sources = {name: sum(_source_seconds(gpu, each) for each in plan.variants) / 3600 for name, gpu in devices.items()}
    return PaperForecast(len(plan.cells), configurations, sources, columns)


@dataclass(frozen=True)
class _Parts:
    """What of a method decides its operations."""

    attached: Attached
    prompt: int | None  # its vectors before the text; None: one per token of the description
    trains_backbone: bool

    @classmethod
    def of(cls, method: Method, variant: VariantPlan) -> "_Parts":
        sources, stage_1, model = variant.settings.sources, variant.settings.train_source, _backbone()
        option = method.options(sources)[0]
        count = trained_parameters(option, model, sources, stage_1.rank, stage_1.prompt.length)
        values = option.model_dump()
        reduction = values.get("reduction_factor")
        bottleneck = Shape().d_model // reduction if reduction else 0
        length = values.get("length")
        prompt = None if count.per_prompt_token and length is None else int(length or 0)
        attached = Attached(len(option.draws_on(sources)), stage_1.rank, bottleneck)
        return cls(attached, prompt, count.fixed > model.num_parameters() / 2)

    def seconds(self, gpu: Gpu, task: str, work: CellWork, variant: VariantPlan) -> float:
        """Training, selection and test of one cell."""
        lengths, rows = self._lengths(task), rows_of(task)
        batch, shape = variant.settings.transfer_for(task).training.batch_size, Shape()
        frozen, both = forward(shape, self.attached, lengths.source + lengths.prompt, lengths.target, sparsity=True)
        step = batch * ((3 if self.trains_backbone else 2) * frozen + 3 * both)
        trained = work.steps * gpu.seconds(step, STEP_OPERATORS["transfer"])
        answers = generation(gpu, self.attached, lengths, work.answers, batch).seconds
        tested = generation(gpu, self.attached, lengths, rows["test"], variant.settings.evaluate.batch_size).seconds
        return trained + answers + tested

    def _lengths(self, task: str) -> Lengths:
        prompt, source, target = TOKENS[task]
        return Lengths(source, target, prompt if self.prompt is None else self.prompt, 0.0)


@cache
def _backbone() -> Any:
    return backbone_of_shapes(BACKBONE)


def _methods(variant: VariantPlan) -> dict[str, Method]:
    return {cell.method: variant.settings.method(cell.method) for cell in variant.cells}


def _work(variant: VariantPlan, cell: Cell) -> CellWork:
    method, rows = variant.transfers[cell.task].method(cell.method), rows_of(cell.task)
    classes = len(TASKS[cell.task].labels or [""])
    return CellWork.of(method, variant.settings.sources, cell.k, TargetRows(rows["train"], rows["validation"], classes))


def _source_seconds(gpu: Gpu, variant: VariantPlan) -> float:
    """Stage 1 of a variant. `joint` has equally many rows of every source, of that source's lengths."""
    settings, total = variant.settings, 0.0
    for name in variant.train_source:
        for part, rows in source_rows(name, settings.tasks.sources).items():
            prompt, source, target = TOKENS[part]
            work = training(
                gpu, "train_source", Attached(1, settings.train_source.rank), Lengths(source, target, prompt, 0.0),
                rows, settings.train_source_for(name),
            )  # fmt: skip
            total += work.seconds * (1 + (variant.train_source[name].prompt is not None))
    return total
