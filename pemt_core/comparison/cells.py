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
from pemt_core.steps.transfer import transfer
from pemt_core.training.run import OpenRun

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VariantCells:
    """The cells of one variant. A target whose cells fail does not keep the other targets from being trained."""

    variant: VariantPlan
    folders: Folders
    checkpoints: Path
    workers: int | None
    failed: list[TrainingError] = field(default_factory=list)

    def train(self, missing: Sequence[Cell], open_run: OpenRun) -> None:
        """Train the `missing` cells, target by target, beside those of other experiments."""
        targets = {cell.task for cell in missing}
        for name, settings in self.variant.transfers.items():
            if name not in targets:
                continue
            try:
                transfer(
                    self.folders.data / name,
                    self.folders.backbone(self.variant.own_backbone),
                    self.folders.experts(self.variant.name),
                    settings,
                    output_dir=self.folders.targets(self.variant.name) / name,
                    checkpoint_dir=self.checkpoints,
                    open_run=open_run,
                    workers=self.workers,
                    costs_dir=self.folders.costs(self.variant.name) / name,
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
        )
