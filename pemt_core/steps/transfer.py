"""transfer: run stage 2 for one or several targets, with all their cells (method, few-shot k, seed) in one program.

The output is kept: a cell that came from the same settings, data, backbone, experts and code is not trained again. A
training is one cell in one configuration: an option of its method at a learning rate. On a CPU several run at a time in
worker processes, target by target; on a GPU in groups that share each pass of the backbone, whatever their target. Each
result is read from the checkpoint that the training leaves.
"""

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from accelerate import Accelerator
from tqdm import tqdm

from pemt_core.artifacts.cell import Cell
from pemt_core.artifacts.experts import ExpertBank, load_experts
from pemt_core.artifacts.staging import recover
from pemt_core.backbone.store import Backbone, load_backbone
from pemt_core.data.prepared import PreparedTask
from pemt_core.errors import TrainingError
from pemt_core.labels import check_label_words
from pemt_core.methods import Method
from pemt_core.processes.schedule import Schedule
from pemt_core.settings.steps import Transfer
from pemt_core.training.accelerator import make_accelerator
from pemt_core.training.configuration import Trial
from pemt_core.training.run import OpenRun
from pemt_core.training.search import Search, num_trials
from pemt_core.training.target import Target
from pemt_core.training.target_cells import OpenCell, TargetCells
from pemt_core.training.together import Job, rows_of, train_together
from pemt_core.training.workers import forked_trainings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TargetTransfer:
    """The cells of one target, where its data is, and where they go."""

    settings: Transfer
    task_dir: Path
    output_dir: Path  # for the adapter of each, in <cell>
    costs_dir: Path | None = None  # for what each cell took, which `pemt_core.artifacts.cost.load_cost` reads


@dataclass(frozen=True)
class Transferred:
    """The cells of a transfer, and the resources that it took."""

    cells: list[Cell]  # all that exist now
    trained: list[Cell]  # of these, those trained by this call
    workers: int
    workers_memory_mib: int  # the sum of their peaks, without what they share with this process


def transfer(
    targets: Sequence[TargetTransfer],
    backbone_dir: Path,
    experts_dir: Path,
    *,
    checkpoint_dir: Path,
    open_run: OpenRun,
    workers: int | None = None,
    keep_others: bool = False,
) -> Transferred:
    """Train the cells of the targets that their output lacks.

    Cells of a target that are not listed are removed once all others exist, unless `keep_others`. `workers` is how
    many trainings run at a time (None: as many as suit the machine); `pemt_core.processes.schedule` explains when the
    numbers do not depend on it. An interrupted transfer resumes from its last checkpoints; finished trainings are not
    repeated.

    Raises:
        SettingsError: the machine cannot run `workers`, or a method names an unknown source.
        ArtifactError: an input is missing or does not fit.
        DataError: a few-shot sample cannot be drawn.
        TrainingError: another process trains some of a target's cells; then none of this target is trained. Or
            trainings diverged. In both cases all other cells are trained and kept, and the next run trains the rest.
    """
    backbone = load_backbone(backbone_dir)
    bank = load_experts(experts_dir, backbone)
    accelerator = make_accelerator(_methods(targets)[0].training.precision)
    backbone.model.to(accelerator.device)  # a group is built where the backbone is, and sized by what that leaves free
    every = [_cells(each, backbone, bank, checkpoint_dir, open_run, accelerator) for each in targets]
    num_configurations = sum(len(training.configurations) for cells in every for training in cells.missing)
    schedule = Schedule.make(workers, num_configurations, backbone.model.num_parameters(), accelerator)
    work = _Work(schedule.workers, keep_others)
    with schedule.threads():
        for cells in every:
            cells.target.load_data(cells.missing)
        for group in dict.fromkeys(each.settings.group for each in targets):
            alike = [place for place, each in enumerate(targets) if each.settings.group == group]
            rows = rows_of(group, backbone.model, _methods([targets[place] for place in alike]))
            work.train([every[place] for place in alike], rows)
    if work.failed:
        raise TrainingError("; ".join(str(work.failed[cells.name]) for cells in every if cells.name in work.failed))
    if not keep_others:
        for cells in every:
            cells.tidy(keep_others=False)
    listed = [cell for each in targets for cell in each.settings.cells]
    trained = [training.cell for cells in every for training in cells.missing]
    return Transferred(listed, trained, schedule.workers, work.memory_mib)


def _methods(targets: Sequence[TargetTransfer]) -> list[Method]:
    return [each.settings.method(name) for each in targets for name in each.settings.methods]


def _cells(
    given: TargetTransfer,
    backbone: Backbone,
    bank: ExpertBank,
    checkpoint_dir: Path,
    open_run: OpenRun,
    accelerator: Accelerator,
) -> TargetCells:
    """The cells of a target, and which of them its output lacks."""
    settings, output_dir = given.settings, given.output_dir
    prepared = PreparedTask.load(given.task_dir, settings.target)
    check_label_words(prepared.task, backbone.tokenizer)
    target = Target(prepared, backbone, bank, settings.answer, checkpoint_dir, code=__name__)
    trainings = target.trainings({cell: settings.method(cell.method) for cell in settings.cells})
    recover(output_dir)
    cells = TargetCells.of(target, trainings, output_dir, given.costs_dir, open_run, accelerator)
    logger.info("transfer %s: %d of %d cells to train", settings.target, len(cells.missing), len(trainings))
    return cells


@dataclass
class _Work:
    """Trains the cells of targets; `failed` says why a target lacks some."""

    workers: int
    keep_others: bool
    memory_mib: int = 0  # of the workers
    failed: dict[str, TrainingError] = field(default_factory=dict)

    def train(self, every: Sequence[TargetCells], rows: int) -> None:
        """Train in groups of up to `rows` rows or, if it is 0, target by target."""
        if rows:
            self._train_in_groups(every, rows)
            return
        for cells in every:
            with ExitStack() as locks:
                if not self._lock(cells, locks):
                    continue
                if self.workers > 1 and cells.missing:
                    self.memory_mib = max(self.memory_mib, _train_in_workers(cells, self.workers))
                else:
                    cells.train()
            self._ended(cells)

    def _train_in_groups(self, every: Iterable[TargetCells], most_rows: int) -> None:
        """Train in groups. A target begins once those before fill no group; those that are alike follow one another."""
        left, jobs = deque(sorted(every, key=_length_and_steps)), deque[Job]()
        under_way: dict[str, _OpenTarget] = {}
        with ExitStack() as all_open:

            def fill() -> None:
                while left and sum(job.rows for job in jobs) < most_rows:
                    cells = left.popleft()
                    opened = _OpenTarget(cells, all_open.enter_context(ExitStack()))
                    if self._lock(cells, opened.held):
                        jobs.extend(opened.begin())
                        under_way[cells.name] = opened
                        self._close_if_complete(under_way, cells.name)

            fill()
            for job, error in train_together(jobs, most_rows):
                name = job.target.prepared.task.name
                jobs.extend(under_way[name].trial_ended(job, error))
                self._close_if_complete(under_way, name)
                fill()

    def _close_if_complete(self, under_way: dict[str, "_OpenTarget"], name: str) -> None:
        if not under_way[name].cells_left:
            opened = under_way.pop(name)
            opened.held.close()
            self._ended(opened.cells)

    def _lock(self, cells: TargetCells, locks: ExitStack) -> bool:
        """Whether the locks are held; if not, the target counts as failed."""
        try:
            cells.lock(locks)
        except TrainingError as error:
            self.failed[cells.name] = error
            return False
        return True

    def _ended(self, cells: TargetCells) -> None:
        try:
            cells.check_complete()
        except TrainingError as error:
            self.failed[cells.name] = error
            return
        if self.keep_others:  # else once all targets are complete: a retried step begins without its output
            cells.tidy(keep_others=True)


class _OpenTarget:
    """A target while its trainings take part in groups: its cells that are not complete, its locks and runs."""

    def __init__(self, cells: TargetCells, held: ExitStack) -> None:
        """`held` takes the locks, then the runs."""
        self.cells, self.held, self.cells_left = cells, held, dict[Cell, OpenCell]()

    def begin(self) -> list[Job]:
        """Open the runs of the missing cells; returns their first trainings."""
        for training in self.cells.missing:
            opened = OpenCell(Search(training), self.cells)
            self.cells_left[training.cell] = self.held.enter_context(opened)
        return [self._job(opened, t) for opened in self.cells_left.values() for t in opened.search.first_trials]

    def trial_ended(self, job: Job, error: TrainingError | None) -> list[Job]:
        """Take in the end of a training; returns those that follow."""
        cell = job.trial.training.cell
        opened = self.cells_left[cell]
        following = opened.trial_ended(job.trial, error)
        if opened.search.is_complete:
            del self.cells_left[cell]
        return [self._job(opened, trial) for trial in following]

    def _job(self, opened: OpenCell, trial: Trial) -> Job:
        return Job(self.cells.target, trial, partial(opened.log, trial.place), opened.run.flush)


def _length_and_steps(cells: TargetCells) -> tuple[float, int]:
    """Of the first training that a target lacks."""
    extents = [cells.target.extent(each.configurations[0]) for each in cells.missing[:1]]
    return max(((extent.length, extent.steps) for extent in extents), default=(0.0, 0))


def _train_in_workers(cells: TargetCells, workers: int) -> int:
    """Train the missing cells in workers, logging each training when it ends; returns the workers' memory in MiB.

    The runs are opened after the fork, so that no two processes have a tracking store open.
    """
    searches = {training.cell: Search(training) for training in cells.missing}
    trials = [trial for search in searches.values() for trial in search.first_trials]
    with (
        ExitStack() as all_runs,
        forked_trainings(cells.target.train_silently, trials, workers) as done,
    ):
        under_way = {c: all_runs.enter_context(OpenCell(s, cells)) for c, s in searches.items()}
        total = sum(map(num_trials, cells.missing))
        with tqdm(done, total=total, desc=f"transfer {cells.name}", unit="training") as bar:
            for trial, error in bar:
                done.add(under_way[trial.training.cell].trial_ended(trial, error))
                bar.total = max(bar.total, len(done.futures))  # of equal scores more go on than expected
    return done.memory_mib
