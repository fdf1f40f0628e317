"""Train the sources of a variant that are missing, several at a time where trainings run in workers."""

import multiprocessing
from collections.abc import Iterator, Mapping, MutableSequence, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pemt_core.artifacts.run_info import RunInfo
from pemt_core.backbone.description import recorded_parameters
from pemt_core.comparison.plan import VariantPlan
from pemt_core.comparison.shared import Shared
from pemt_core.comparison.work import CellWork, rows_of
from pemt_core.errors import TrainingError
from pemt_core.processes.schedule import Schedule
from pemt_core.training.accelerator import make_accelerator
from pemt_core.training.run import OpenRun, Run, SilentRun
from pemt_core.training.step_bar import step_bar
from pemt_core.training.workers import forked_trainings


def train_in_workers(shared: Shared, variant: VariantPlan, missing: Sequence[str], workers: int | None) -> None:
    """Train the `missing` sources in worker processes, if `Schedule` has several trainings run at the same time.

    Their results are among the finished trainings, from which `Stage.make` takes them, with the curves for their runs.
    Raises TrainingError, once the others are trained, if trainings diverged or another process is at them.
    """
    if not missing:
        return
    accelerator = make_accelerator(variant.train_source[missing[0]].train_source.training.precision)
    num_parameters = recorded_parameters(shared.folders.backbone(variant.own_backbone))
    num_sources = len(variant.train_source)  # not of the missing ones: the schedule is the same if this is run again
    schedule = Schedule.make(workers, num_sources, num_parameters, accelerator)
    if schedule.workers < 2:
        return

    steps = SharedSteps(missing)

    def train(name: str) -> None:
        """Build the stage's folder without its record: `Stage.make` builds it again, from the finished training."""
        stage = shared.source(variant, name, steps.counted(name), progress_bar=False)
        stage.folder.parent.mkdir(parents=True, exist_ok=True)
        stage.build()

    total = sum(_steps(shared, variant, name) for name in missing)
    with (
        step_bar(f"sources of {variant.name}", total) as bar,
        forked_trainings(
            train, missing, min(schedule.workers, len(missing)), meanwhile=lambda: bar.update(steps.taken - bar.n)
        ) as done,
    ):
        failed = [error for _, error in done if error is not None]
    if failed:
        raise TrainingError("; ".join(map(str, failed)))


def _steps(shared: Shared, variant: VariantPlan, name: str) -> int:
    """The optimizer steps in which a source is trained, with and without an adapter."""
    rows = rows_of(shared.folders.data, name, {}, classes=1)
    return sum(CellWork.of_source(how, rows).steps for how in variant.train_source[name].trainings)


class SharedSteps:
    """Optimizer steps that worker processes count. Each item has its own number, so that no lock is needed."""

    def __init__(self, items: Sequence[str]) -> None:
        self._index = {item: index for index, item in enumerate(items)}
        self._taken = multiprocessing.RawArray("q", len(items))

    @property
    def taken(self) -> int:
        """The steps of all items, those before an interruption included."""
        return sum(self._taken)

    def counted(self, item: str) -> OpenRun:
        """Open runs that record nothing but the steps of an item's trainings, one after another."""

        @contextmanager
        def opened(info: RunInfo) -> Iterator[Run]:
            yield _Counted(self._taken, self._index[item], self._taken[self._index[item]])

        return opened


@dataclass(frozen=True)
class _Counted(SilentRun):
    taken: MutableSequence[int]
    index: int
    before: int  # steps of the item's earlier trainings

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.taken[self.index] = self.before + step
