"""The trainings of one target: its cells, each trained by one method at one or several learning rates."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from pemt_core.answering.rule import AnswerRule, rule_for
from pemt_core.artifacts.cell import Cell
from pemt_core.artifacts.description import TargetDescription
from pemt_core.artifacts.experts import ExpertBank
from pemt_core.artifacts.files import sha256_of_json
from pemt_core.backbone.store import Backbone
from pemt_core.data.prepared import PreparedTask
from pemt_core.methods import Method
from pemt_core.model.assemble import Expert
from pemt_core.provenance.code import code_hash
from pemt_core.training.accelerator import make_accelerator
from pemt_core.training.checkpoint import CheckpointStore, TrainingState
from pemt_core.training.loop import Log, Trainer
from pemt_core.training.run import SilentRun
from pemt_core.training.task_data import TaskData, TaskRows


@dataclass(frozen=True)
class CellTraining:
    """One cell: its method, and a description of what it comes from."""

    method: Method
    description: TargetDescription

    @property
    def cell(self) -> Cell:
        return self.description.cell

    @property
    def rates(self) -> list[float]:
        """The learning rates, each once."""
        return list(dict.fromkeys(self.method.learning_rates))


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

    def training(self, cell: Cell, method: Method, data_hash: str) -> CellTraining:
        """The training of a cell. Raises SettingsError or ArtifactError if the bank lacks a source of its method."""
        sources = method.draws_on(self.bank.sources)
        settings, experts = method.model_dump(), self.bank.mixture_hash(sources)
        answer = rule_for(self.prepared.task.labels, self.answer)
        inputs = {
            "task": data_hash,
            "backbone": self.backbone.fingerprint,
            "dropout": self.backbone.model.config.dropout_rate,  # not in the fingerprint: it affects training alone
            "experts": experts,
            "settings": settings,
            "answer": answer,
            "code": code_hash(self.code, *method.code),
        }
        description = TargetDescription(
            task=cell.task,
            prompt=self.prepared.task.description,
            backbone=self.backbone.fingerprint,
            data=data_hash,
            method=cell.method,
            settings=settings,
            answer=answer,
            k=cell.k,
            seed=cell.seed,
            sources=sources,
            experts=experts,
            key=sha256_of_json(inputs),
        )
        return CellTraining(method, description)

    def load_data(self, trainings: Sequence[CellTraining]) -> None:
        """Tokenize what the trainings need, before workers are forked. Trainings that read it alike share it.

        Raises DataError if a few-shot sample cannot be drawn, before any cell is trained.
        """
        for training in trainings:
            self._rows(training)

    def data(self, method: Method) -> TaskData:
        """The target's rows as a method reads them."""
        key = method.source_length, method.training.validation_rows
        if key not in self._data:
            loaded = TaskData.load(self.prepared, self.backbone.tokenizer, method.training, method.source_length)
            self._data[key] = loaded
        return self._data[key]

    def _rows(self, training: CellTraining) -> TaskRows:
        """The rows of a cell, all or the few-shot sample of its seed."""
        method, cell = training.method, training.cell
        return self.data(method).rows(method.training, cell.seed, cell.k, method.rare_class)

    def store(self, training: CellTraining, rate: float) -> CheckpointStore:
        """The store of one training's checkpoint."""
        return CheckpointStore(self.checkpoint_dir, {"cell": asdict(training.description), "learning_rate": rate})

    def folder(self, training: CellTraining) -> Path:
        """The folder whose lock stands for all learning rates of a cell."""
        return self.store(training, training.rates[0]).path.parent

    def discard(self, training: CellTraining) -> None:
        """Remove the states of a cell, whose lock the caller holds."""
        for rate in training.rates:
            self.store(training, rate).discard()

    def train_silently(self, what: tuple[CellTraining, float]) -> None:
        """Train without logging, and leave the result in the checkpoint."""
        self.train(*what, SilentRun().log, progress_bar=False)

    def train(self, training: CellTraining, rate: float, log: Log, *, progress_bar: bool = True) -> TrainingState:
        """Train a cell with one learning rate. Raises TrainingError if the loss is not finite."""
        method, cell, data = training.method, training.cell, self.data(training.method)
        accelerator = make_accelerator(method.training.precision)
        with self._new_model(training) as model:
            return Trainer(
                model,
                self._rows(training),
                lambda: data.evaluate(
                    model,
                    self.backbone.tokenizer,
                    accelerator,
                    method.select_by,
                    method.training.batch_size,
                    self.answer,
                ),
                method.training,
                accelerator,
                self.store(training, rate),
                learning_rate=rate,
                seed=cell.seed,
                log=log,
                title=f"transfer {cell.task} {cell.name}",
                progress_bar=progress_bar,
            ).fit()

    def _new_model(self, training: CellTraining) -> Any:
        experts = self._experts(training)
        generator = torch.Generator().manual_seed(training.cell.seed)
        ids = torch.tensor(self.backbone.tokenizer(self.prepared.task.description)["input_ids"])
        tensors = training.method.initial_tensors(self.backbone.model, ids, experts, generator)
        return training.method.build(self.backbone.model, tensors, experts)

    def _experts(self, training: CellTraining) -> list[Expert]:
        return self.bank.select(training.description.sources)
