"""Gather everything that the report of a finished comparison shows."""

import logging
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from pemt_core.artifacts.cost import load_cost
from pemt_core.artifacts.description import (
    LonePromptDescription,
    SourceDescription,
    load_description,
    load_training_record,
    lone_prompt_folder,
)
from pemt_core.artifacts.result import CellResult
from pemt_core.backbone.description import recorded_parameters
from pemt_core.backbone.store import load_backbone
from pemt_core.comparison.compared import CellCost, CellSearch, Compared, SourceCost, SourcePart
from pemt_core.comparison.folders import Folders
from pemt_core.comparison.inference import added_flops
from pemt_core.comparison.plan import ComparisonPlan, VariantPlan
from pemt_core.comparison.source_seconds import SourceSeconds
from pemt_core.errors import ArtifactError
from pemt_core.tasks import known_tasks

logger = logging.getLogger(__name__)


def gather(plan: ComparisonPlan, folders: Folders) -> Compared:
    """Read the results and the costs of every cell. Raises ArtifactError if one is missing."""
    columns, results, scores, cells, costs, searches = plan.columns, [], {}, {}, {}, {}
    for variant, cell in plan.cells:
        scored = folders.scores(variant.name) / cell.task / cell.name
        trained = folders.targets(variant.name) / cell.task / cell.name
        result = replace(CellResult.load(scored), method=plan.column(variant, cell.method))
        results.append(result)
        scores[result.cell], cells[result.cell] = scored, trained
        costs[result.cell] = _cost(trained, folders.costs(variant.name) / cell.task)
        record = load_training_record(trained)
        searches[result.cell] = CellSearch(record.best_step, record.trials)
    sources_of = _sources_of_columns(plan)
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
        on_lone_prompts=[column for column, (_, alone) in sources_of.items() if alone],
        candidates={column: sources for column, (sources, _) in sources_of.items()},
        scores=scores,
        cells=cells,
        costs=costs,
        searches=searches,
        added_flops=_added_flops(plan, folders),
        sources={variant.name: _sources(variant, folders) for variant in plan.variants},
        backbones=_backbones(plan, folders),
        chance=_chance(plan),
        data_dir=folders.data,
    )


def _backbones(plan: ComparisonPlan, folders: Folders) -> dict[str, int]:
    """The parameters of every backbone, by what it is."""
    return {
        variant.settings.backbone.title: recorded_parameters(folders.backbone(variant.own_backbone))
        for variant in plan.backbones
    }


def _added_flops(plan: ComparisonPlan, folders: Folders) -> dict[str, int]:
    found = {}
    for folder, variants in groupby(plan.variants, key=lambda variant: folders.backbone(variant.own_backbone)):
        backbone = load_backbone(folder).model
        for variant in variants:
            methods = dict.fromkeys(cell.method for cell in variant.cells)
            of_variant = added_flops(variant.settings, methods, backbone)
            found.update({plan.column(variant, name): flops for name, flops in of_variant.items()})
    return found


def _cost(trained: Path, costs_dir: Path) -> CellCost:
    """What a cell took. Warns if that is lost: the trials in training.json do not tell how long each of them was."""
    size = _size(trained)
    try:
        cost = load_cost(costs_dir, trained)
    except ArtifactError as error:
        lost = (
            "The report shows no steps, time and memory of its method: to measure again, remove %s and run this again"
        )
        logger.warning(f"%s. {lost}", error, trained)
        return CellCost(max(1, len(load_training_record(trained).trials)), None, None, None, size)
    return CellCost(cost.configurations, cost.steps, cost.seconds, cost.peak_memory_mib, size)


def _sources(variant: VariantPlan, folders: Folders) -> dict[str, SourceCost]:
    known, found = SourceSeconds(folders.source_seconds), {}
    for name in variant.train_source:
        folder = folders.sources(variant.name) / name
        prompt = lone_prompt_folder(folder)
        adapter = _part(folder, SourceDescription, known)
        alone = _part(prompt, LonePromptDescription, known) if prompt.is_dir() else None
        found[name] = SourceCost(adapter, alone, _size(folder))
    return found


def _part(
    folder: Path, kind: type[SourceDescription] | type[LonePromptDescription], known: SourceSeconds
) -> SourcePart:
    record, (_, artifact) = load_training_record(folder), load_description(folder, kind)
    return SourcePart(record.trained_parameters, record.steps, known.of(artifact))


def _sources_of_columns(plan: ComparisonPlan) -> dict[str, tuple[list[str], bool]]:
    """The sources of every column, and whether it reads their prompts that were trained alone."""
    found = {}
    for variant in plan.variants:
        for name in dict.fromkeys(cell.method for cell in variant.cells):
            method = variant.settings.method(name)
            sources = variant.settings.sources_of(name, method)
            found[plan.column(variant, name)] = sources, method.needs_lone_prompts
    return found


def _chance(plan: ComparisonPlan) -> dict[str, float]:
    """What guessing scores, by the tasks' records."""
    settings = plan.experiment.settings
    tasks = known_tasks(settings.own_tasks, Path())
    chance = {target: tasks[target].chance for target in settings.tasks.targets}
    return {target: score for target, score in chance.items() if score is not None}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
