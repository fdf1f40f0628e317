"""transfer: run stage 2 for one target task, with all its cells (method, few-shot k, seed) in one program.

The output is kept: a cell that came from the same settings, data, backbone, experts and code is not trained again. A
training is one cell in one configuration: an option of its method at a learning rate. On a CPU several run at a time in
worker processes, on a GPU in groups that share each pass of the backbone; each result is read from the checkpoint that
the training leaves.
"""

import logging
import shutil
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from pemt_core.artifacts.adapter import save_adapter
from pemt_core.artifacts.cell import Cell
from pemt_core.artifacts.cost import save_cost
from pemt_core.artifacts.experts import load_experts
from pemt_core.artifacts.run_info import ARTIFACT_TAG, target_run
from pemt_core.artifacts.staging import recover
from pemt_core.artifacts.target import holds_cell
from pemt_core.backbone.store import load_backbone
from pemt_core.data.prepared import PreparedTask
from pemt_core.errors import PemtError, TrainingError
from pemt_core.labels import check_label_words
from pemt_core.processes.schedule import Schedule
from pemt_core.settings.steps import Transfer
from pemt_core.training.accelerator import make_accelerator
from pemt_core.training.checkpoint import TrainingState
from pemt_core.training.configuration import CellTraining, Trial
from pemt_core.training.lock import training_lock, training_locks
from pemt_core.training.run import OpenRun, Run, run_of
from pemt_core.training.search import Search, num_trials
from pemt_core.training.settings import GroupRows
from pemt_core.training.target import Target
from pemt_core.training.together import Job, rows_of, train_together
from pemt_core.training.workers import forked_trainings

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
    costs_dir: Path | None = None,
    keep_others: bool = False,
) -> Transferred:
    """Train the cells of one target that `output_dir` lacks, and write the adapter of each to `output_dir`/<cell>.

    Cells that are not listed are removed once all others exist, unless `keep_others`. What each cell took is written to
    `costs_dir`, if given, for `pemt_core.artifacts.cost.load_cost`. `workers` is how many trainings run at a time
    (None: as many as suit the machine); `pemt_core.processes.schedule` explains when the numbers do not depend on it.
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
    trainings = target.trainings({cell: settings.method(cell.method) for cell in settings.cells})
    recover(output_dir)
    missing = [t for t in trainings if not holds_cell(output_dir / t.cell.name, t.description, backbone, bank)]
    logger.info("transfer %s: %d of %d cells to train", settings.target, len(missing), len(trainings))
    accelerator = make_accelerator(trainings[0].method.training.precision)
    num_configurations = sum(len(each.configurations) for each in missing)
    schedule = Schedule.make(workers, num_configurations, backbone.model.num_parameters(), accelerator)
    is_main = accelerator.is_main_process
    work = _Work(target, output_dir, costs_dir, open_run, is_main)
    with training_locks(map(target.folder, missing), is_main), schedule.threads():
        target.load_data(missing)
        memory = work.train(missing, schedule.workers, settings.group)
    work.check_complete(len(trainings))
    if is_main and not keep_others:
        _remove_others(output_dir, [each.cell.name for each in trainings])
    if is_main:
        _discard_states(target, trainings)
    return Transferred(settings.cells, [each.cell for each in missing], schedule.workers, memory)


@dataclass(frozen=True)
class _Work:
    """Trains the cells of one target, and collects those that fail."""

    target: Target
    output_dir: Path
    costs_dir: Path | None
    open_run: OpenRun
    is_main: bool
    failed: dict[Cell, PemtError] = field(default_factory=dict)

    def train(self, trainings: Sequence[CellTraining], workers: int, group: GroupRows) -> int:
        """Train all cells, in groups or in workers if there are several; returns the workers' memory in MiB."""
        rows = rows_of(group, self.target.backbone.model, [each.method for each in trainings])
        if rows:
            self.train_in_groups(trainings, rows)
            return 0
        if workers > 1:
            return self.train_in_workers(trainings, workers)
        self.train_here(trainings)
        return 0

    def train_here(self, trainings: Sequence[CellTraining]) -> None:
        """Train all cells, one after another."""
        for training in trainings:
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

    def train_in_groups(self, trainings: Sequence[CellTraining], most_rows: int) -> None:
        """Train all cells in groups of up to `most_rows` rows, logging each training when it ends."""
        searches = {training.cell: Search(training) for training in trainings}
        with ExitStack() as all_runs:
            under_way = {c: all_runs.enter_context(_OpenCell(s, self)) for c, s in searches.items()}
            trials = [trial for search in searches.values() for trial in search.first_trials]
            while trials:
                jobs, trials = [Job(self.target, trial) for trial in trials], []
                for job, error in train_together(jobs, most_rows):
                    trials += under_way[job.trial.training.cell].trial_ended(job.trial, error)

    def train_in_workers(self, trainings: Sequence[CellTraining], workers: int) -> int:
        """Train all cells in workers, logging each training when it ends; returns the workers' memory in MiB.

        The runs are opened after the fork, so that no two processes have a tracking store open.
        """
        searches = {training.cell: Search(training) for training in trainings}
        trials = [trial for search in searches.values() for trial in search.first_trials]
        with (
            ExitStack() as all_runs,
            forked_trainings(self.target.train_silently, trials, workers) as done,
        ):
            under_way = {c: all_runs.enter_context(_OpenCell(s, self)) for c, s in searches.items()}
            total = sum(map(num_trials, trainings))
            with tqdm(done, total=total, desc=f"transfer {trainings[0].cell.task}", unit="training") as bar:
                for trial, error in bar:
                    done.add(under_way[trial.training.cell].trial_ended(trial, error))
                    bar.total = max(bar.total, len(done.futures))  # of equal scores more go on than expected
        return done.memory_mib

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

    def check_complete(self, num_cells: int) -> None:
        """Raise TrainingError, naming the cells, if any failed."""
        if self.failed:
            reasons = "; ".join(str(error) for error in self.failed.values())  # each names its cell
            names = ", ".join(cell.name for cell in self.failed)
            count = f"{len(self.failed)} of {num_cells} cells failed: {names}; the others are trained and kept. "
            raise TrainingError(f"{count if len(self.failed) < num_cells else ''}{reasons}")


class _OpenCell:
    """One cell's run while workers or a group train it; it ends with the last training."""

    def __init__(self, search: Search, work: _Work) -> None:
        self.search, self.work = search, work
        self.logged: Counter[int] = Counter()  # points of a configuration's curve, by its place
        self.run_context = ExitStack()

    def __enter__(self) -> "_OpenCell":
        info = target_run(self.search.training.description)
        self.run = self.run_context.enter_context(run_of(info, self.work.open_run, self.work.is_main))
        return self

    def __exit__(self, *raised: object) -> None:
        self.run_context.__exit__(*raised)  # type: ignore[arg-type]

    def trial_ended(self, trial: Trial, error: Exception | None) -> list[Trial]:
        """Log the curve of one training, and save the cell after the last; returns the trials that follow."""
        if error is not None:
            following = self.search.diverged(trial, TrainingError(str(error)))
        else:
            following = self.search.ended(trial, self._logged(trial))
        if self.search.is_complete:
            self._save()
        return following

    def _logged(self, trial: Trial) -> TrainingState:
        """The state in which a training was left, once its curve is logged."""
        state = self.work.target.store(trial.configuration).load()
        for point in state.history[self.logged[trial.place] :]:
            self.run.log(int(point["step"]), {name: value for name, value in point.items() if name != "step"})
        self.logged[trial.place] = len(state.history)
        return state

    def _save(self) -> None:
        try:
            self.work.save(self.search, self.run)
            self.run_context.close()
        except TrainingError as error:
            self.work.failed[self.search.training.cell] = error
            self.run_context.__exit__(type(error), error, error.__traceback__)


def _discard_states(target: Target, trainings: Sequence[CellTraining]) -> None:
    """Remove the states of finished cells, unless another process uses them: here nothing is left to resume."""
    for each in trainings:
        with suppress(PemtError), training_lock(target.folder(each)):
            target.discard(each)


def _remove_others(output_dir: Path, kept: Sequence[str]) -> None:
    """Remove the cells that are not in `kept`."""
    for path in output_dir.iterdir():
        if path.is_dir() and path.name not in kept:
            shutil.rmtree(path)
