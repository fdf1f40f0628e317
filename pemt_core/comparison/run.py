"""Run an experiment: everything that is not there, in the order of data flow."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pemt_core.comparison.cells import VariantCells
from pemt_core.comparison.folders import Folders
from pemt_core.comparison.gather import gather
from pemt_core.comparison.made import Stage
from pemt_core.comparison.plan import ComparisonPlan, VariantPlan
from pemt_core.comparison.presence import missing_cells
from pemt_core.comparison.progress import CellBar
from pemt_core.comparison.rates import scores_of, write_rates
from pemt_core.comparison.recording import TrackerOf, record_cells, record_report
from pemt_core.comparison.shared import Shared
from pemt_core.comparison.sources import train_in_workers
from pemt_core.comparison_report.write import write_comparison
from pemt_core.errors import TrainingError
from pemt_core.report.files import write_files
from pemt_core.training.run import OpenRun

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """A run of an experiment. It may be stopped at any moment and goes on when it is run again."""

    plan: ComparisonPlan
    folders: Folders
    project: Path  # the folder of params.yaml
    checkpoints: Path
    workers: int | None  # parallel trainings; None: what suits the machine
    tracker_of: TrackerOf

    def run(self) -> Iterator[str]:
        """Do all that is left and write the report; yields the paragraph that sums it up, and the paths.

        Raises as `train` does. A development experiment ends with its learning rates, and reads no test split.
        """
        folder = self.folders.report(self.plan.experiment.name, self.plan.is_whole)
        self.plan.write(folder / "plan")
        self.train()
        if self.plan.experiment.definition.development:
            size = len(self.plan.variants[0].settings.transfer.learning_rates)
            table = write_rates(scores_of(self.plan, self.folders), size)
            write_files(folder, {"learning_rates.md": table})
            yield table
            yield f"{folder / 'learning_rates.md'}"
            return
        self.score()
        compared = gather(self.plan, self.folders)
        studies = write_comparison(compared, folder)
        paragraph = (folder / "paragraph.md").read_text(encoding="utf-8")
        record_cells(self.plan, self.folders, self.tracker_of)
        if self.plan.is_whole:
            record_report(studies, paragraph, folder, self.tracker_of(self.plan.variants[0].name))
        yield paragraph
        yield f"Report: {folder / 'report.html'}. Tables: {folder / 'table.md'}. Rows: {folder / 'rows.csv'}"

    def train(self) -> None:
        """Make data, backbone, source adapters and all cells.

        Raises TrainingError, once everything else is trained, if cells failed; see `transfer` for other errors.
        """
        variants, failed = self.plan.variants, list[TrainingError]()
        shared = Shared(self.plan, self.folders, self.project, self.checkpoints)
        _make("data", shared.data())
        for variant in self.plan.backbones:
            _make(_named("backbone", variant.own_backbone), shared.backbone(variant, self._open_run(variant)))
        for variant in variants:
            self._make_experts(shared, variant)
        missing = {variant.name: missing_cells(variant, self.folders, self.checkpoints) for variant in variants}
        count, number = len(self.plan.cells), sum(map(len, missing.values()))
        logger.info("cells: %d of %d to train", number, count)
        with CellBar.over(number, self.plan.experiment.name) as bar:
            for variant in variants:
                cells = VariantCells(variant, self.folders, self.checkpoints, self.workers)
                cells.train(missing[variant.name], bar.watched(self._open_run(variant)))
                failed += cells.failed
        if failed:
            raise TrainingError("; ".join(map(str, failed)))

    def score(self) -> None:
        """Score all cells on their test splits."""
        for variant in self.plan.variants:
            VariantCells(variant, self.folders, self.checkpoints, self.workers).score()

    def _open_run(self, variant: VariantPlan) -> OpenRun:
        return self.tracker_of(variant.name).open_run

    def _make_experts(self, shared: Shared, variant: VariantPlan) -> None:
        names, missing = list(variant.train_source), shared.missing_sources(variant)
        train_in_workers(shared, variant, missing, self.workers)  # before the run of any source is open
        open_run = self._open_run(variant)
        for number, name in enumerate(names, start=1):
            what = f"sources of {variant.name} {number}/{len(names)}: {name}"
            if name in missing:
                _make(what, shared.source(variant, name, open_run))
            else:
                logger.info("%s: as before", what)
        _make(f"experts of {variant.name}", shared.experts(variant))


def _named(what: str, own: str | None) -> str:
    return what if own is None else f"{what} of {own}"


def _make(what: str, stage: Stage) -> None:
    logger.info("%s: %s", what, "made" if stage.make() else "as before")
