"""Which cells of an experiment are trained, from the same settings, data, backbone, experts and code."""

from pathlib import Path

from pemt_core.artifacts.cell import Cell
from pemt_core.artifacts.experts import load_experts
from pemt_core.artifacts.target import holds_cell
from pemt_core.backbone.store import load_backbone
from pemt_core.comparison.folders import Folders
from pemt_core.comparison.plan import VariantPlan
from pemt_core.data.prepared import PreparedTask
from pemt_core.steps import transfer
from pemt_core.training.target import Target


def missing_cells(variant: VariantPlan, folders: Folders, checkpoints: Path) -> list[Cell]:
    """The cells that are to be trained, once data, backbone and experts are made."""
    backbone = load_backbone(folders.backbone(variant.own_backbone))
    bank, missing = load_experts(folders.experts(variant.name), backbone), []
    for name, settings in variant.transfers.items():
        prepared, output = PreparedTask.load(folders.data / name, name), folders.targets(variant.name) / name
        target = Target(prepared, backbone, bank, settings.answer, checkpoints, transfer.__name__)
        for training in target.trainings({cell: settings.method(cell.method) for cell in settings.cells}):
            cell = training.cell
            if not holds_cell(output / cell.name, training.description, backbone, bank):
                missing.append(cell)
    return missing
