"""transfer: stage 2 for one target task, every cell of it (method, few-shot k, seed) in one process."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from torch import Tensor

from pemt_core.artifacts.adapter import AdapterDescription, TrainingRecord, save_adapter
from pemt_core.artifacts.experts import load_experts
from pemt_core.artifacts.files import atomic_directory
from pemt_core.artifacts.run_info import ARTIFACT_TAG, target_run
from pemt_core.backbone.store import Backbone, load_backbone
from pemt_core.data.prepared import PreparedTask
from pemt_core.errors import SettingsError
from pemt_core.model.assemble import Expert, build_target_model, initial_prompt, initial_target_tensors
from pemt_core.model.prompted import PromptedT5
from pemt_core.settings import TransferSettings
from pemt_core.training.accelerator import make_accelerator
from pemt_core.training.checkpoint import CheckpointStore, TrainingState, training_code
from pemt_core.training.loop import Log, Trainer
from pemt_core.training.run import OpenRun, run_of
from pemt_core.training.task_data import TaskData


@dataclass(frozen=True)
class Cell:
    """One training of stage 2: the unit that results are counted in."""

    task: str
    method: Literal["pemt", "control"]  # control: everything of stage 2 that needs no sources
    k: Literal["full"] | int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.method}-k{self.k}-seed{self.seed}"


def cells_of(task: str, settings: TransferSettings) -> list[Cell]:
    """All cells of a target, in a fixed order."""
    return [Cell(task, m, k, seed) for m in settings.methods for k in settings.k for seed in settings.seeds]


def transfer(
    task_dir: Path,
    backbone_dir: Path,
    experts_dir: Path,
    settings: TransferSettings,
    *,
    output_dir: Path,
    checkpoint_dir: Path,
    open_run: OpenRun,
) -> list[Cell]:
    """Train every cell of one target; `output_dir`/<cell> is each one's adapter. Returns the cells.

    A killed transfer resumes at its last checkpoint; cells that were finished are not trained again.
    """
    prepared, backbone = PreparedTask.load(task_dir), load_backbone(backbone_dir)
    experts, experts_hash = load_experts(experts_dir, backbone.fingerprint)
    data = TaskData.load(prepared, backbone.tokenizer, settings.training, settings.source_length)
    trainer = TargetTraining(
        prepared, backbone, experts, experts_hash, settings, data, make_accelerator(settings.training.precision)
    )
    cells = cells_of(prepared.task.name, settings)
    is_main = trainer.accelerator.is_main_process
    with atomic_directory(output_dir) if is_main else nullcontext(output_dir) as folder:
        for cell in cells:
            with run_of(target_run(trainer.description(cell)), open_run, trainer.accelerator) as run:
                description, tensors, record = trainer.train(cell, checkpoint_dir, run.log)
                if is_main:
                    run.tag({ARTIFACT_TAG: save_adapter(folder / cell.name, description, tensors, record)})
    if is_main:  # only now is nothing left to resume
        for store in trainer.stores:
            store.discard()
    return cells


@dataclass(frozen=True)
class TargetTraining:
    """What all cells of one target share."""

    prepared: PreparedTask
    backbone: Backbone
    experts: Sequence[Expert]
    experts_hash: str
    settings: TransferSettings
    data: TaskData
    accelerator: Accelerator
    stores: list[CheckpointStore] = field(default_factory=list)

    def description(self, cell: Cell) -> AdapterDescription:
        uses_experts = cell.method == "pemt"
        return AdapterDescription(
            stage="target",
            task=cell.task,
            prompt=self.prepared.task.description,
            backbone=self.backbone.fingerprint,
            data=self.prepared.content_hash(),
            seed=cell.seed,
            settings=self.settings.model_dump(exclude={"methods", "seeds", "k"}),
            method=cell.method,
            k=cell.k,
            experts=self.experts_hash if uses_experts else None,
            sources=[expert.task for expert in self.experts] if uses_experts else [],
        )

    def train(
        self, cell: Cell, checkpoint_dir: Path, log: Log
    ) -> tuple[AdapterDescription, dict[str, Tensor], TrainingRecord]:
        """Train `cell` with each learning rate; what is returned is the best on validation."""
        trials: dict[str, float] = {}
        best: tuple[AdapterDescription, TrainingState, dict[str, Tensor]] | None = None
        for rate in self.settings.learning_rates:
            model = self._new_model(cell)
            description = replace(self.description(cell), learning_rate=rate)
            dropout = self.backbone.model.config.dropout_rate  # not part of a fingerprint: it changes training alone
            inputs = {"adapter": asdict(description), "dropout": dropout, "code": training_code()}
            store = CheckpointStore(checkpoint_dir, inputs)
            self.stores.append(store)
            state = self._fit(model, cell, rate, store, log)
            trials[f"{rate:g}"] = score_of(state)
            if best is None or score_of(state) > score_of(best[1]):
                best = (description, state, model.tensors())
            num_parameters = model.num_trained_parameters()
            model.detach()
        if best is None:
            raise SettingsError("transfer.learning_rates is empty")
        description, state, tensors = best
        return description, tensors, state.record(num_parameters, trials)

    def _new_model(self, cell: Cell) -> PromptedT5:
        settings, backbone = self.settings, self.backbone
        generator = torch.Generator().manual_seed(cell.seed)
        prompt_ids = torch.tensor(backbone.tokenizer(self.prepared.task.description)["input_ids"])
        experts = self.experts if cell.method == "pemt" else []
        tensors = initial_target_tensors(
            backbone.model,
            initial_prompt(backbone.model, prompt_ids, settings.prompt_init, generator),
            num_experts=len(experts),
            reduction_factor=settings.reduction_factor,
            generator=generator,
        )
        return build_target_model(
            backbone.model,
            tensors,
            experts,
            prompt_dropout=settings.prompt_dropout,
            sparsity_coefficient=settings.sparsity_coefficient,
            sparsity_positions=settings.sparsity_positions,
        )

    def _fit(self, model: PromptedT5, cell: Cell, rate: float, store: CheckpointStore, log: Log) -> TrainingState:
        settings = self.settings
        return Trainer(
            model,
            self.data.rows(settings.training, cell.seed, cell.k, settings.rare_class),
            lambda: self.data.evaluate(
                model, self.backbone.tokenizer, self.accelerator, settings.select_by, settings.training.batch_size
            ),
            settings.training,
            self.accelerator,
            store,
            learning_rate=rate,
            seed=cell.seed,
            log=log,
            title=f"transfer {cell.task} {cell.name}",
        ).fit()


def score_of(state: TrainingState) -> float:
    """The validation score of the tensors that a training kept."""
    return -math.inf if state.best_score is None else state.best_score
