"""The cells of one target while they are trained: their runs, their adapters, and those that fail."""

import logging
import shutil
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from pemt_core.artifacts.adapter import save_adapter
from pemt_core.artifacts.cell import Cell
from pemt_core.artifacts.cost import save_cost
from pemt_core.artifacts.run_info import ARTIFACT_TAG, target_run
from pemt_core.artifacts.target import holds_cell
from pemt_core.errors import PemtError, TrainingError
from pemt_core.training.checkpoint import TrainingState
from pemt_core.training.configuration import CellTraining, Trial
from pemt_core.training.lock import training_lock
from pemt_core.training.run import OpenRun, Run, run_of
from pemt_core.training.search import Search
from pemt_core.training.target import Target

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TargetCells:
    """The cells of one target, those of them that are still to be trained, and where they go."""

    target: Target
    trainings: Sequence[CellTraining]
    missing: list[CellTraining]
    output_dir: Path
    costs_dir: Path | None
    open_run: OpenRun
    accelerator: Accelerator
    failed: dict[Cell, PemtError] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        target: Target,
        trainings: Sequence[CellTraining],
        output_dir: Path,
        costs_dir: Path | None,
        open_run: OpenRun,
        accelerator: Accelerator,
    ) -> "TargetCells":
        cells = cls(target, trainings, [*trainings], output_dir, costs_dir, open_run, accelerator)
        cells._look()
        return cells

    @property
    def name(self) -> str:
        return self.target.prepared.task.name

    @property
    def is_main(self) -> bool:
        return bool(self.accelerator.is_main_process)

    def lock(self, locks: ExitStack) -> None:
        """Hold the locks of the cells that are still missing, in the first of the processes that share the trainings.

        Raises TrainingError in all of them, holding none, if another program has one.
        """
        refused: list[str | None] = [None]
        with ExitStack() as own:
            try:
                for each in self.missing if self.is_main else ():
                    own.enter_context(training_lock(self.target.folder(each)))
            except TrainingError as error:
                refused = [str(error)]
            if self.accelerator.num_processes > 1:
                broadcast_object_list(refused)
            if refused[0] is not None:
                raise TrainingError(refused[0])
            locks.enter_context(own.pop_all())
        self._look()  # another program may have trained some meanwhile

    def _look(self) -> None:
        """Drop what is there from `missing`."""
        backbone, bank = self.target.backbone, self.target.bank
        self.missing[:] = [
            each
            for each in self.missing
            if not holds_cell(self.output_dir / each.cell.name, each.description, backbone, bank)
        ]

    def train(self) -> None:
        """Train the missing cells in this process, one after another."""
        for training in self.missing:
            search = Search(training)
            try:
                with run_of(target_run(training.description), self.open_run, self.is_main) as run:
                    trials = deque(search.first_trials)
                    while trials:
                        trials += self._tried(search, trials.popleft(), run)
                    self.save(search, run)
            except TrainingError as error:
                self.failed[training.cell] = error

    def _tried(self, search: Search, trial: Trial, run: Run) -> list[Trial]:
        """Train one configuration; returns the trials that follow."""
        try:
            return search.ended(trial, self.target.train(trial, run.log, flush=run.flush))
        except TrainingError as error:
            return search.diverged(trial, error)

    def save(self, search: Search, run: Run) -> None:
        """Write the adapter of the cell's chosen configuration, and what its search took, and link the run to it.

        Raises TrainingError if all configurations diverged; one of several that did is only reported.
        """
        chosen, state = search.chosen
        for error in search.errors.values():
            logger.warning("%s; it is not chosen", error)
        size = chosen.option.num_trained(state.best_tensors)
        record = state.record(chosen.learning_rate, size, search.trials)
        if not self.is_main:
            return
        if self.costs_dir is not None:  # first: a cell that is there is not trained again
            save_cost(self.costs_dir, chosen.description, search.cost)
        folder = self.output_dir / chosen.description.cell.name
        run.tag({ARTIFACT_TAG: save_adapter(folder, chosen.description, state.best_tensors, record)})

    def check_complete(self) -> None:
        """Raise TrainingError, naming the cells, if any failed."""
        if self.failed:
            reasons = "; ".join(str(error) for error in self.failed.values())  # each names its cell
            names = ", ".join(cell.name for cell in self.failed)
            count = (
                f"{len(self.failed)} of {len(self.trainings)} cells failed: {names}; the others are trained and kept. "
            )
            raise TrainingError(f"{count if len(self.failed) < len(self.trainings) else ''}{reasons}")

    def tidy(self, *, keep_others: bool) -> None:
        """Once all cells exist, remove other cells, unless `keep_others`, and the states, which nothing resumes."""
        if not self.is_main:
            return
        if not keep_others:
            kept = [each.cell.name for each in self.trainings]
            for path in self.output_dir.iterdir():
                if path.is_dir() and path.name not in kept:
                    shutil.rmtree(path)
        for each in self.trainings:
            with suppress(PemtError), training_lock(self.target.folder(each)):  # unless another process uses it
                self.target.discard(each)


class OpenCell:
    """One cell's run while workers or a group train it; it ends with the last training."""

    def __init__(self, search: Search, cells: TargetCells) -> None:
        self.search, self.cells = search, cells
        self.logged: set[tuple[int, int, frozenset[str]]] = set()  # configuration, step and metrics of every point
        self.run_context = ExitStack()

    def __enter__(self) -> "OpenCell":
        info = target_run(self.search.training.description)
        self.run = self.run_context.enter_context(run_of(info, self.cells.open_run, self.cells.is_main))
        return self

    def __exit__(self, *raised: object) -> None:
        self.run_context.__exit__(*raised)  # type: ignore[arg-type]

    def log(self, place: int, step: int, metrics: Mapping[str, float]) -> None:
        """Log a point of a configuration's curve, but not again if steps since the last checkpoint are repeated."""
        point = place, step, frozenset(metrics)
        if point not in self.logged:
            self.logged.add(point)
            self.run.log(step, metrics)

    def trial_ended(self, trial: Trial, error: TrainingError | None) -> list[Trial]:
        """Log what is not yet logged of a training's curve, and save the cell after the last training.

        Returns the trials that follow.
        """
        if error is not None:
            following = self.search.diverged(trial, error)
        else:
            following = self.search.ended(trial, self._logged(trial))
        if self.search.is_complete:
            self._save()
        return following

    def _logged(self, trial: Trial) -> TrainingState:
        """The state in which a training was left, once its curve is logged."""
        state = self.cells.target.store(trial.configuration).load()
        for point in state.history:
            self.log(trial.place, int(point["step"]), {name: value for name, value in point.items() if name != "step"})
        return state

    def _save(self) -> None:
        try:
            self.cells.save(self.search, self.run)
            self.run_context.close()
        except TrainingError as error:
            self.cells.failed[self.search.training.cell] = error
            self.run_context.__exit__(type(error), error, error.__traceback__)
