"""The trainings of one target: its cells, each trained by one method in one or several configurations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pemt_core.answering.rule import AnswerRule, rule_for
from pemt_core.artifacts.cell import Cell
from pemt_core.artifacts.description import TargetDescription
from pemt_core.artifacts.experts import ExpertBank
from pemt_core.artifacts.files import sha256_of_json
from pemt_core.backbone.store import Backbone
from pemt_core.backbone.text_ids import description_ids
from pemt_core.data.prepared import PreparedTask
from pemt_core.methods import Method
from pemt_core.model.assemble import Expert
from pemt_core.provenance.code import code_hash
from pemt_core.training.accelerator import make_accelerator
from pemt_core.training.checkpoint import CheckpointStore, TrainingState
from pemt_core.training.configuration import CellTraining, Configuration, Trial, distinct, labels_of
from pemt_core.training.course import Course, Log
from pemt_core.training.loop import Trainer
from pemt_core.training.run import SilentRun
from pemt_core.training.task_data import TaskData, TaskRows


@dataclass(frozen=True)
class Extent:
    """How large a training is."""

    rows: int  # of a step
    length: float  # tokens of a text, on average
    steps: int  # to its end, if it does not stop early

    def is_near(self, other: "Extent") -> bool:
        """Whether neither has texts more than twice as long as the other's, nor more than twice the steps."""
        pairs = (self.length, other.length), (self.steps, other.steps)
        return all(max(pair) <= 2 * min(pair) for pair in pairs)


@dataclass(frozen=True)
class Target:
    """What all trainings of one target share."""

    prepared: PreparedTask
    backbone: Backbone
    bank: ExpertBank
    answer: AnswerRule  # the rule that answers validation
    checkpoint_dir: Path
    code: str  # the module whose code all methods have in common
    _data: dict[tuple[int, int | None], TaskData] = field(default_factory=dict)

    def trainings(self, methods: Mapping[Cell, Method]) -> list[CellTraining]:
        """The training of each cell by its method.

        Raises SettingsError or ArtifactError if the bank lacks a source of a method.
        """
        data_hash = self.prepared.content_hash()
        return [self._training(cell, method, data_hash) for cell, method in methods.items()]

    def _training(self, cell: Cell, method: Method, data_hash: str) -> CellTraining:
        resolved = self._resolved(method)
        answer = rule_for(self.prepared.task.labels, self.answer)
        inputs = {
            "task": data_hash,
            "backbone": self.backbone.fingerprint,
            "dropout": self.backbone.dropout,
            "experts": resolved["experts"],
            "settings": resolved["settings"],
            "answer": answer,
            "code": code_hash(self.code, *method.code),
        }
        description = TargetDescription(
            task=cell.task,
            prompt=self.prepared.task.description,
            backbone=self.backbone.fingerprint,
            data=data_hash,
            method=cell.method,
            answer=answer,
            k=cell.k,
            seed=cell.seed,
            key=sha256_of_json(inputs),
            **resolved,
        )
        return CellTraining(method, description, self._configurations(method, description))

    def _configurations(self, method: Method, description: TargetDescription) -> list[Configuration]:
        options, rates = distinct(method.options(self.bank.sources)), dict.fromkeys(method.learning_rates)
        return [
            Configuration(option, rate, f"{label}, {rate:g}" if label else f"{rate:g}", described)
            for option, label in zip(options, labels_of(options), strict=True)
            for described in [replace(description, **self._resolved(option))]
            for rate in rates
        ]

    def _resolved(self, method: Method) -> dict[str, Any]:
        """The part of a description that differs between the options of a method."""
        sources = method.draws_on(self.bank.sources)
        experts = self.bank.mixture_hash(sources, method.needs_lone_prompts)
        return {"settings": method.model_dump(), "sources": sources, "experts": experts}

    def load_data(self, trainings: Sequence[CellTraining]) -> None:
        """Tokenize what the trainings need, before workers are forked. Trainings that read it alike share it.

        Raises DataError if a few-shot sample cannot be drawn, before any cell is trained.
        """
        for training in trainings:
            for configuration in training.configurations:
                self.rows(configuration)

    def data(self, method: Method) -> TaskData:
        """The target's rows as a method reads them."""
        key = method.source_length, method.training.validation_rows
        if key not in self._data:
            loaded = TaskData.load(self.prepared, self.backbone.tokenizer, method.training, method.source_length)
            self._data[key] = loaded
        return self._data[key]

    def rows(self, configuration: Configuration) -> TaskRows:
        """The rows of a cell, all or the few-shot sample of its seed."""
        option, cell = configuration.option, configuration.description.cell
        return self.data(option).rows(option.training, cell.seed, cell.k, option.rare_class)

    def extent(self, configuration: Configuration) -> Extent:
        rows, settings = self.rows(configuration), configuration.option.training
        length = float(rows.split.sources.lengths[rows.rows].mean())
        return Extent(rows.batch_size, length, settings.total_steps(len(rows.batches(0))))

    def store(self, configuration: Configuration) -> CheckpointStore:
        """The store of one configuration's checkpoint."""
        inputs = {"cell": asdict(configuration.description), "learning_rate": configuration.learning_rate}
        return CheckpointStore(self.checkpoint_dir, inputs)

    def folder(self, training: CellTraining) -> Path:
        """The folder whose lock stands for all configurations of a cell."""
        return self.store(training.configurations[0]).path.parent

    def discard(self, training: CellTraining) -> None:
        """Remove the states of a cell, whose lock the caller holds."""
        for configuration in training.configurations:
            self.store(configuration).discard()

    def train_silently(self, trial: Trial) -> None:
        """Train without logging, and leave the result in the checkpoint."""
        self.train(trial, SilentRun().log, progress_bar=False)

    def train(
        self, trial: Trial, log: Log, *, progress_bar: bool = True, flush: Callable[[], None] = lambda: None
    ) -> TrainingState:
        """Train a configuration as far as the trial says. Raises TrainingError if the loss is not finite."""
        configuration = trial.configuration
        option, cell = configuration.option, configuration.description.cell
        data, accelerator = self.data(option), make_accelerator(option.training.precision)
        with self._new_model(configuration) as model:
            course = Course(
                model.trained,
                self.rows(configuration),
                lambda: data.evaluate(
                    model,
                    self.backbone.tokenizer,
                    accelerator,
                    option.select_by,
                    option.training.batch_size,
                    self.answer,
                ),
                option.training,
                accelerator,
                self.store(configuration),
                learning_rate=configuration.learning_rate,
                seed=cell.seed,
                log=log,
                title=f"transfer {cell.task} {cell.name}",
                flush=flush,
            )
            factors = option.learning_rate_factors(list(model.trained))
            trainer = Trainer(model, course, progress_bar=progress_bar, learning_rate_factors=factors)
            return trainer.fit(trial.until)

    def _new_model(self, configuration: Configuration) -> Any:
        return configuration.option.build(self.backbone.model, *self.initial(configuration))

    def initial(self, configuration: Configuration) -> tuple[dict[str, Tensor], list[Expert]]:
        """The tensors of a configuration at step 0, and the experts that its method uses."""
        option, description = configuration.option, configuration.description
        experts = self.bank.select(description.sources)
        generator = torch.Generator().manual_seed(description.seed)
        ids = torch.tensor(description_ids(self.backbone.tokenizer, option.prompt_text(description.prompt)))
        return option.initial_tensors(self.backbone.model, ids, experts, generator), experts
