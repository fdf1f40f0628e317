"""Train and score the cells of an experiment, those alone that are not there."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pemt_core.artifacts.cell import Cell
from pemt_core.comparison.folders import Folders
from pemt_core.comparison.plan import VariantPlan
from pemt_core.errors import TrainingError
from pemt_core.steps.evaluate import evaluate
from pemt_core.steps.transfer import TargetTransfer, transfer
from pemt_core.training.run import OpenRun

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VariantCells:
    """The cells of one variant."""

    variant: VariantPlan
    folders: Folders
    checkpoints: Path
    workers: int | None
    failed: list[TrainingError] = field(default_factory=list)

    def train(self, missing: Sequence[Cell], open_run: OpenRun) -> None:
        """Train the targets of the `missing` cells, beside cells of other experiments; what fails is in `failed`."""
        variant, names = self.variant, {cell.task for cell in missing}
        targets = [
            TargetTransfer(
                settings,
                self.folders.data / name,
                self.folders.targets(variant.name) / name,
                self.folders.costs(variant.name) / name,
            )
            for name, settings in variant.transfers.items()
            if name in names
        ]
        if not targets:
            return
        try:
            transfer(
                targets,
                self.folders.backbone(variant.own_backbone),
                self.folders.experts(variant.name),
                checkpoint_dir=self.checkpoints,
                open_run=open_run,
                workers=self.workers,
                keep_others=True,
            )
        except TrainingError as error:
            self.failed.append(error)
            logger.warning("%s", error)

    def score(self) -> None:
        """Score all cells on their test splits."""
        transfers = self.variant.transfers
        evaluate(
            {name: self.folders.targets(self.variant.name) / name for name in transfers},
            self.folders.data,
            self.folders.backbone(self.variant.own_backbone),
            self.folders.experts(self.variant.name),
            self.variant.steps.evaluate.evaluate,
            output_dir=self.folders.scores(self.variant.name),
            cells=self.variant.cells,
            keep_others=True,
            workers=self.workers,
        )
