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
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from pemt_core.artifacts.cell import Cell
from pemt_core.artifacts.experts import ExpertBank, load_experts
from pemt_core.artifacts.staging import recover
from pemt_core.artifacts.target import holds_cell
from pemt_core.backbone.store import Backbone, load_backbone
from pemt_core.data.prepared import PreparedTask
from pemt_core.errors import TrainingError
from pemt_core.labels import check_label_words
from pemt_core.processes.schedule import Schedule
from pemt_core.settings.steps import Transfer
from pemt_core.training.accelerator import make_accelerator
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
    methods = [each.settings.method(name) for each in targets for name in each.settings.methods]
    accelerator = make_accelerator(methods[0].training.precision)
    every = [_cells(each, backbone, bank, checkpoint_dir, open_run, accelerator.is_main_process) for each in targets]
    num_configurations = sum(len(training.configurations) for cells in every for training in cells.missing)
    schedule = Schedule.make(workers, num_configurations, backbone.model.num_parameters(), accelerator)
    rows = rows_of(targets[0].settings.group, backbone.model, methods)
    with schedule.threads():
        for cells in every:
            cells.target.load_data(cells.missing)
        if rows:
            memory, failed = 0, _train_in_groups(every, rows)
        else:
            memory, failed = _train_by_target(every, schedule.workers)
    for cells in every:
        if cells.name not in failed:
            try:
                cells.finish(keep_others=keep_others)
            except TrainingError as error:
                failed[cells.name] = error
    if failed:
        raise TrainingError("; ".join(str(failed[cells.name]) for cells in every if cells.name in failed))
    listed = [cell for each in targets for cell in each.settings.cells]
    trained = [training.cell for cells in every for training in cells.missing]
    return Transferred(listed, trained, schedule.workers, memory)


def _cells(
    given: TargetTransfer,
    backbone: Backbone,
    bank: ExpertBank,
    checkpoint_dir: Path,
    open_run: OpenRun,
    is_main: bool,
) -> TargetCells:
    """The cells of a target, and which of them its output lacks."""
    settings, output_dir = given.settings, given.output_dir
    prepared = PreparedTask.load(given.task_dir, settings.target)
    check_label_words(prepared.task, backbone.tokenizer)
    target = Target(prepared, backbone, bank, settings.answer, checkpoint_dir, code=__name__)
    trainings = target.trainings({cell: settings.method(cell.method) for cell in settings.cells})
    recover(output_dir)
    missing = [t for t in trainings if not holds_cell(output_dir / t.cell.name, t.description, backbone, bank)]
    logger.info("transfer %s: %d of %d cells to train", settings.target, len(missing), len(trainings))
    return TargetCells(target, trainings, missing, output_dir, given.costs_dir, open_run, is_main)


def _train_by_target(every: Iterable[TargetCells], workers: int) -> tuple[int, dict[str, TrainingError]]:
    """Train target by target, in workers if there are several.

    Returns the workers' memory in MiB, and why targets were not trained.
    """
    memory, failed = 0, dict[str, TrainingError]()
    for cells in every:
        with ExitStack() as locks:
            try:
                cells.lock(locks)
            except TrainingError as error:
                failed[cells.name] = error
                continue
            if workers > 1 and cells.missing:
                memory = max(memory, _train_in_workers(cells, workers))
            else:
                cells.train()
    return memory, failed


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


def _train_in_groups(every: Iterable[TargetCells], most_rows: int) -> dict[str, TrainingError]:
    """Train all missing cells in groups of up to `most_rows` rows, logging each training when it ends.

    A target's cells begin once those before no longer fill a group. Returns why targets were not trained.
    """
    failed: dict[str, TrainingError] = {}
    under_way: dict[Cell, OpenCell] = {}
    jobs: deque[Job] = deque()
    left = deque(every)
    with ExitStack() as locks, ExitStack() as all_runs:

        def fill() -> None:
            while left and sum(job.rows for job in jobs) < most_rows:
                cells = left.popleft()
                try:
                    cells.lock(locks)
                except TrainingError as error:
                    failed[cells.name] = error
                    continue
                searches = [Search(training) for training in cells.missing]
                under_way.update({s.training.cell: all_runs.enter_context(OpenCell(s, cells)) for s in searches})
                jobs.extend(Job(cells.target, trial) for search in searches for trial in search.first_trials)

        fill()
        for job, error in train_together(jobs, most_rows):
            following = under_way[job.trial.training.cell].trial_ended(job.trial, error)
            jobs.extend(Job(job.target, trial) for trial in following)
            fill()
    return failed
