"""Gather everything that the report of a finished comparison shows."""

from dataclasses import replace
from pathlib import Path

from pemt_core.artifacts.cost import load_cost
from pemt_core.artifacts.description import load_training_record, lone_prompt_folder
from pemt_core.artifacts.result import CellResult
from pemt_core.backbone.shapes import outline
from pemt_core.comparison.compared import CellCost, Compared, SourceCost
from pemt_core.comparison.folders import Folders
from pemt_core.comparison.plan import ComparisonPlan, VariantPlan
from pemt_core.errors import ArtifactError


def gather(plan: ComparisonPlan, folders: Folders) -> Compared:
    """Read the results and the costs of every cell. Raises ArtifactError if one is missing."""
    columns, results, scores, cells, costs = plan.columns, [], {}, {}, {}
    for variant, cell in plan.cells:
        scored = folders.scores(variant.name) / cell.task / cell.name
        trained = folders.targets(variant.name) / cell.task / cell.name
        result = replace(CellResult.load(scored), method=plan.column(variant, cell.method))
        results.append(result)
        scores[result.cell], cells[result.cell] = scored, trained
        costs[result.cell] = _cost(trained, folders.costs(variant.name) / cell.task)
    targets = {target: place for place, target in enumerate(plan.experiment.settings.tasks.targets)}
    places = {column: place for place, column in enumerate(columns)}
    results.sort(key=lambda result: (targets[result.task], places[result.method], str(result.k), result.seed))
    return Compared(
        name=plan.experiment.name,
        definition=plan.experiment.definition,
        settings=plan.experiment.settings,
        results=results,
        columns=columns,
        variants={plan.column(variant, cell.method): variant.name for variant, cell in plan.cells},
        on_lone_prompts=_on_lone_prompts(plan),
        scores=scores,
        cells=cells,
        costs=costs,
        sources={variant.name: _sources(variant, folders) for variant in plan.variants},
        backbone_parameters=outline(folders.backbone).model.num_parameters(),
        data_dir=folders.data,
    )


def _cost(trained: Path, costs_dir: Path) -> CellCost:
    """What a cell took; the part that training.json tells if its measurement was removed."""
    size = _size(trained)
    try:
        cost = load_cost(costs_dir, trained)
    except ArtifactError:
        record = load_training_record(trained)
        tried = max(1, len(record.trials))
        return CellCost(tried, tried * record.steps, None, None, size)
    return CellCost(cost.configurations, cost.steps, cost.seconds, cost.peak_memory_mib, size)


def _sources(variant: VariantPlan, folders: Folders) -> dict[str, SourceCost]:
    found = {}
    for name in variant.train_source:
        folder = folders.sources(variant.name) / name
        record = load_training_record(folder)
        parameters, steps, prompt = record.trained_parameters, record.steps, lone_prompt_folder(folder)
        alone = load_training_record(prompt).trained_parameters if prompt.is_dir() else 0
        found[name] = SourceCost(parameters, steps, None, _size(folder), alone)
    return found


def _on_lone_prompts(plan: ComparisonPlan) -> list[str]:
    return [
        plan.column(variant, method)
        for variant in plan.variants
        for method in dict.fromkeys(cell.method for cell in variant.cells)
        if variant.settings.method(method).needs_lone_prompts
    ]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
