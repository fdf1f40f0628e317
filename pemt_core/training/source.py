"""One training on a source task, of its adapter or of a prompt alone; a finished one is not repeated."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from pemt_core.artifacts.adapter import write_adapter
from pemt_core.artifacts.description import (
    LonePromptDescription,
    SourceDescription,
    TrainingRecord,
    load_description,
    load_training_record,
)
from pemt_core.artifacts.finished import FinishedStore
from pemt_core.artifacts.run_info import ARTIFACT_TAG, source_run
from pemt_core.backbone.store import Backbone
from pemt_core.data.prepared import PreparedTask
from pemt_core.model.prompted import PromptedModel
from pemt_core.processes.schedule import Schedule
from pemt_core.settings import LonePromptSettings, TrainSourceSettings
from pemt_core.training.accelerator import make_accelerator
from pemt_core.training.checkpoint import CheckpointStore
from pemt_core.training.course import Course
from pemt_core.training.lock import training_locks
from pemt_core.training.loop import Trainer
from pemt_core.training.run import OpenRun, Run, run_of
from pemt_core.training.task_data import TaskData

NewModel = Callable[[], AbstractContextManager[PromptedModel]]


@dataclass(frozen=True)
class SourceTraining:
    """What a training is of, from what it starts, and where its states and its result are kept."""

    title: str
    description: SourceDescription | LonePromptDescription
    settings: TrainSourceSettings | LonePromptSettings
    new_model: NewModel  # attaches the model at step 0 to the backbone
    states: CheckpointStore
    finished: FinishedStore

    @classmethod
    def make(
        cls,
        title: str,
        description: SourceDescription | LonePromptDescription,
        settings: TrainSourceSettings | LonePromptSettings,
        new_model: NewModel,
        *,
        backbone: Backbone,
        code: str,
        checkpoint_dir: Path,
    ) -> "SourceTraining":
        """`code` is the hash of the code that the training runs."""
        inputs = {"adapter": asdict(description), "dropout": backbone.dropout, "code": code}
        stores = CheckpointStore(checkpoint_dir, inputs), FinishedStore(checkpoint_dir, inputs)
        return cls(title, description, settings, new_model, *stores)

    def run(
        self, prepared: PreparedTask, backbone: Backbone, open_run: OpenRun, *, progress_bar: bool = True
    ) -> tuple[TrainingRecord, bool]:
        """Train, unless the result is kept; returns its record, and whether it trained. A run shows the curve.

        Raises TrainingError if the training diverges, or another process is at it.
        """
        accelerator = make_accelerator(self.settings.training.precision)
        is_main = accelerator.is_main_process
        with (
            training_locks([self.states.path.parent], is_main),
            run_of(source_run(self.description), open_run, is_main) as run,
        ):
            kept = self._kept(accelerator)
            record = kept or self._train(prepared, backbone, accelerator, run, progress_bar)
            for point in kept.history if kept else ():
                run.log(int(point["step"]), {name: value for name, value in point.items() if name != "step"})
            if is_main:
                run.tag({ARTIFACT_TAG: load_description(self.finished.path, type(self.description))[1]})
                self.states.discard()
        return record, kept is None

    def _kept(self, accelerator: Accelerator) -> TrainingRecord | None:
        """The record of the kept result, as the first of the processes that share the training finds it."""
        found: list[Any] = [None]
        if accelerator.is_main_process and self.finished.holds():
            found = [load_training_record(self.finished.path)]
        if accelerator.num_processes > 1:
            broadcast_object_list(found)
        record: TrainingRecord | None = found[0]
        return record

    def _train(
        self, prepared: PreparedTask, backbone: Backbone, accelerator: Accelerator, run: Run, progress_bar: bool
    ) -> TrainingRecord:
        """Train to the end, and keep the result."""
        settings, tokenizer = self.settings, backbone.tokenizer
        data = TaskData.load(prepared, tokenizer, settings.training, settings.source_length)
        schedule = Schedule.make(1, 1, backbone.model.num_parameters(), accelerator)
        evaluation = settings.select_by, settings.training.batch_size, self.description.answer
        with schedule.threads(), self.new_model() as model:
            course = Course(
                model.trained,
                data.rows(settings.training, settings.seed, "full", "error"),
                lambda: data.evaluate(model, tokenizer, accelerator, *evaluation),
                settings.training,
                accelerator,
                self.states,
                learning_rate=settings.training.learning_rate,
                seed=settings.seed,
                log=run.log,
                flush=run.flush,
                title=self.title,
            )
            state = Trainer(model, course, progress_bar=progress_bar).fit()
            record = state.record(settings.training.learning_rate, model.num_trained_parameters())
            if accelerator.is_main_process:
                with self.finished.writing() as folder:
                    write_adapter(folder, self.description, model.tensors(), record)
        return record
