"""Train the sources of a variant that are missing, several at a time where trainings run in workers."""

from collections.abc import Sequence

from tqdm import tqdm

from pemt_core.backbone.description import recorded_parameters
from pemt_core.comparison.plan import VariantPlan
from pemt_core.comparison.shared import Shared
from pemt_core.errors import TrainingError
from pemt_core.processes.schedule import Schedule
from pemt_core.training.accelerator import make_accelerator
from pemt_core.training.run import silent_runs
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

    def train(name: str) -> None:
        """Build the stage's folder without its record: `Stage.make` builds it again, from the finished training."""
        stage = shared.source(variant, name, silent_runs, progress_bar=False)
        stage.folder.parent.mkdir(parents=True, exist_ok=True)
        stage.build()

    with (
        forked_trainings(train, missing, min(schedule.workers, len(missing))) as done,
        tqdm(done, total=len(missing), desc=f"sources of {variant.name}", unit="source") as bar,
    ):
        failed = [error for _, error in bar if error is not None]
    if failed:
        raise TrainingError("; ".join(map(str, failed)))
