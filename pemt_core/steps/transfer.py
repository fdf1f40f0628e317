"""transfer: run stage 2 for one target task, with all its cells (method, few-shot k, seed) in one program.

The output is kept: a cell that came from the same settings, data, backbone, experts and code is not trained again. A
training is one cell with one learning rate. On a CPU several run at a time in worker processes, and the parent reads
each result from the checkpoint that the worker leaves.
"""

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from pemt_core.artifacts.adapter import save_adapter
from pemt_core.artifacts.cell import Cell
from pemt_core.artifacts.experts import load_experts
from pemt_core.artifacts.run_info import ARTIFACT_TAG, target_run
from pemt_core.artifacts.staging import recover
from pemt_core.artifacts.target import holds_cell
from pemt_core.backbone.store import load_backbone
from pemt_core.data.prepared import PreparedTask
from pemt_core.errors import PemtError, TrainingError
from pemt_core.labels import check_label_words
from pemt_core.settings.steps import Transfer
from pemt_core.training.accelerator import make_accelerator
from pemt_core.training.checkpoint import TrainingState
from pemt_core.training.lock import training_lock, training_locks
from pemt_core.training.run import OpenRun, Run, run_of
from pemt_core.training.target import CellTraining, Target
from pemt_core.training.workers import Schedule, forked_workers

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Transferred:
    """The cells of a transfer, and the resources that it took."""

    cells: list[Cell]  # all that exist now
    trained: list[Cell]  # of these, those trained by this call
    workers: int
    workers_memory_mib: int  # the sum of their peaks, without what they share with this process


def transfer(
    task_dir: Path,
    backbone_dir: Path,
    experts_dir: Path,
    settings: Transfer,
    *,
    output_dir: Path,
    checkpoint_dir: Path,
    open_run: OpenRun,
    workers: int | None = None,
) -> Transferred:
    """Train the cells of one target that `output_dir` lacks, and write the adapter of each to `output_dir`/<cell>.

    Cells that are no longer listed are removed once all others exist. `workers` is how many trainings run at a time
    (None: as many as suit the machine); `pemt_core.training.workers` explains when the numbers do not depend on it.
    An interrupted transfer resumes from its last checkpoints; finished trainings are not repeated.

    Raises:
        SettingsError: the machine cannot run `workers`, or a method names an unknown source.
        ArtifactError: an input is missing or does not fit.
        DataError: a few-shot sample cannot be drawn.
        TrainingError: another process trains some of these cells; then nothing is trained. Or trainings diverged; then
            all other cells are trained and kept, and the next run trains the rest.
    """
    prepared, backbone = PreparedTask.load(task_dir, settings.target), load_backbone(backbone_dir)
    check_label_words(prepared.task, backbone.tokenizer)
    bank = load_experts(experts_dir, backbone)
    target = Target(prepared, backbone, bank, settings.answer, checkpoint_dir, code=__name__)
    data_hash = prepared.content_hash()
    trainings = [target.training(cell, settings.method(cell.method), data_hash) for cell in settings.cells]
    recover(output_dir)
    missing = [t for t in trainings if not holds_cell(output_dir / t.cell.name, t.description, backbone, bank)]
    logger.info("transfer %s: %d of %d cells to train", settings.target, len(missing), len(trainings))
    accelerator = make_accelerator(trainings[0].method.training.precision)
    num_trainings = sum(len(each.rates) for each in missing)
    schedule = Schedule.make(workers, num_trainings, backbone.model.num_parameters(), accelerator)
    is_main = accelerator.is_main_process
    work = _Work(target, output_dir, open_run, is_main)
    memory = 0
    with training_locks(map(target.folder, missing), is_main), schedule.threads():
        target.load_data(missing)
        if schedule.workers > 1:
            memory = work.train_in_workers(missing, schedule.workers)
        else:
            work.train_here(missing)
    work.check_complete(len(trainings))
    if is_main:
        _remove_others(output_dir, [each.cell.name for each in trainings])
        _discard_states(target, trainings)
    return Transferred(settings.cells, [each.cell for each in missing], schedule.workers, memory)


@dataclass(frozen=True)
class _Work:
    """Trains the cells of one target, and collects those that fail."""

    target: Target
    output_dir: Path
    open_run: OpenRun
    is_main: bool
    failed: dict[Cell, PemtError] = field(default_factory=dict)

    def train_here(self, trainings: Sequence[CellTraining]) -> None:
        """Train all cells, one after another."""
        for training in trainings:
            try:
                with run_of(target_run(training.description), self.open_run, self.is_main) as run:
                    states = {rate: self.target.train(training, rate, run.log) for rate in training.rates}
                    self.save(training, states, run)
            except TrainingError as error:
                self.failed[training.cell] = error

    def train_in_workers(self, trainings: Sequence[CellTraining], workers: int) -> int:
        """Train all cells in workers, logging each training when it ends; returns the workers' memory in MiB.

        The runs are opened after the fork, so that no two processes have a tracking store open.
        """
        items = [(training, rate) for training in trainings for rate in training.rates]
        with ExitStack() as all_runs, forked_workers(self.target.train_silently, items, workers, TrainingError) as done:
            under_way = {t.cell: all_runs.enter_context(_OpenCell(t, self)) for t in trainings}
            with tqdm(done, total=len(items), desc=f"transfer {trainings[0].cell.task}", unit="training") as bar:
                for (training, rate), error in bar:
                    under_way[training.cell].training_ended(rate, error)
        return done.memory_mib

    def save(self, training: CellTraining, states: Mapping[float, TrainingState], run: Run) -> None:
        """Write the cell's adapter, from the learning rate that is best on validation, and link its run to it."""
        rate = max(states, key=lambda rate: score_of(states[rate]))  # the first of equals
        tensors = states[rate].best_tensors
        trials = {f"{rate:g}": score_of(state) for rate, state in states.items()}
        record = states[rate].record(rate, sum(tensor.numel() for tensor in tensors.values()), trials)
        if self.is_main:
            folder = self.output_dir / training.cell.name
            run.tag({ARTIFACT_TAG: save_adapter(folder, training.description, tensors, record)})

    def check_complete(self, num_cells: int) -> None:
        """Raise TrainingError, naming the cells, if any failed."""
        if self.failed:
            reasons = "; ".join(str(error) for error in self.failed.values())  # each names its cell
            names = ", ".join(cell.name for cell in self.failed)
            count = f"{len(self.failed)} of {num_cells} cells failed: {names}; the others are trained and kept. "
            raise TrainingError(f"{count if len(self.failed) < num_cells else ''}{reasons}")


class _OpenCell:
    """One cell's run while worker processes train it; it ends with the last training, or the first that fails."""

    def __init__(self, training: CellTraining, work: _Work) -> None:
        self.training, self.work = training, work
        self.states: dict[float, TrainingState] = {}
        self.run_context = ExitStack()

    def __enter__(self) -> "_OpenCell":
        info = target_run(self.training.description)
        self.run = self.run_context.enter_context(run_of(info, self.work.open_run, self.work.is_main))
        return self

    def __exit__(self, *raised: object) -> None:
        self.run_context.__exit__(*raised)  # type: ignore[arg-type]

    def training_ended(self, rate: float, error: Exception | None) -> None:
        """Log the curve of one learning rate; after the last one, save the cell."""
        cell = self.training.cell
        if error is not None and cell not in self.work.failed:
            self.work.failed[cell] = TrainingError(str(error))
            self.run_context.__exit__(type(error), error, error.__traceback__)
        if cell in self.work.failed:
            return
        self.states[rate] = state = self.work.target.store(self.training, rate).load()
        for point in state.history:
            self.run.log(int(point["step"]), {name: value for name, value in point.items() if name != "step"})
        if len(self.states) == len(self.training.rates):
            self.work.save(self.training, {rate: self.states[rate] for rate in self.training.rates}, self.run)
            self.run_context.close()


def _discard_states(target: Target, trainings: Sequence[CellTraining]) -> None:
    """Remove the states of finished cells, unless another process uses them: here nothing is left to resume."""
    for each in trainings:
        with suppress(PemtError), training_lock(target.folder(each)):
            target.discard(each)


def score_of(state: TrainingState) -> float:
    """The validation score of the tensors that a training keeps."""
    return -math.inf if state.best_score is None else state.best_score


def _remove_others(output_dir: Path, kept: Sequence[str]) -> None:
    """Remove the cells that are not in `kept`."""
    for path in output_dir.iterdir():
        if path.is_dir() and path.name not in kept:
            shutil.rmtree(path)
