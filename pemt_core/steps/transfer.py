"""transfer: stage 2 for one target task, every cell of it (method, few-shot k, seed) by one program.

A training is one cell with one learning rate. On a CPU several run at a time, in processes of their own; a training
that is finished leaves its checkpoint, which is where the parent finds it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from tqdm import tqdm

from pemt_core.answering.rule import AnswerRule, rule_for
from pemt_core.artifacts.adapter import AdapterDescription, save_adapter
from pemt_core.artifacts.cell import Cell, cells_of
from pemt_core.artifacts.experts import load_experts, select_experts
from pemt_core.artifacts.files import atomic_directory
from pemt_core.artifacts.run_info import ARTIFACT_TAG, target_run
from pemt_core.backbone.store import Backbone, load_backbone
from pemt_core.data.prepared import PreparedTask
from pemt_core.model.assemble import Expert, build_target_model, initial_prompt, initial_target_tensors
from pemt_core.model.prompted import PromptedT5
from pemt_core.settings import TransferSettings
from pemt_core.training.accelerator import make_accelerator
from pemt_core.training.checkpoint import CheckpointStore, TrainingState, training_code
from pemt_core.training.loop import Log, Trainer
from pemt_core.training.run import OpenRun, Run, SilentRun, run_of
from pemt_core.training.task_data import TaskData
from pemt_core.training.workers import Plan, forked_workers

States = Mapping[float, TrainingState]  # of one cell's trainings, by learning rate
Finish = Callable[[Cell, States, Run], None]


@dataclass(frozen=True)
class Transferred:
    """What a transfer did, and what it took."""

    cells: list[Cell]
    workers: int
    workers_memory_mib: int  # at their peaks, added up, beyond what they share with this process


def transfer(
    task_dir: Path,
    backbone_dir: Path,
    experts_dir: Path,
    settings: TransferSettings,
    *,
    answer: AnswerRule,
    output_dir: Path,
    checkpoint_dir: Path,
    open_run: OpenRun,
    workers: int | None = None,
) -> Transferred:
    """Train every cell of one target; `output_dir`/<cell> is each one's adapter.

    `workers` is how many trainings run at a time (None: as many as suit the machine); `pemt_core.training.workers`
    says when their numbers are the same for any. A killed transfer resumes at its last checkpoints; trainings that
    were finished are not repeated. SettingsError where the machine cannot run `workers`, ArtifactError where an input
    is missing or does not fit, TrainingError where a training diverges: then all are stopped.
    """
    prepared, backbone = PreparedTask.load(task_dir), load_backbone(backbone_dir)
    experts, experts_hash = load_experts(experts_dir, backbone.fingerprint)
    accelerator, cells = make_accelerator(settings.training.precision), cells_of(prepared.task.name, settings)
    num_trainings = len(cells) * len(set(settings.learning_rates))
    plan = Plan.make(workers, num_trainings, backbone.model.num_parameters(), accelerator)
    target = TargetTraining(
        prepared,
        prepared.content_hash(),
        backbone,
        experts,
        experts_hash,
        settings,
        rule_for(prepared.task.labels, answer),
        TaskData.load(prepared, backbone.tokenizer, settings.training, settings.source_length),
        accelerator,
        checkpoint_dir,
    )
    stores = [target.store(cell, rate) for cell in cells for rate in target.rates]
    is_main, memory = accelerator.is_main_process, 0
    with atomic_directory(output_dir) if is_main else nullcontext(output_dir) as folder, plan.threads():
        finish = partial(_save, target, folder)
        if plan.workers > 1:
            memory = _train_in_workers(target, cells, plan.workers, open_run, finish)
        else:
            _train_here(target, cells, open_run, finish)
    if is_main:  # only now is nothing left to resume
        for store in stores:
            store.discard()
    return Transferred(cells, plan.workers, memory)


def _train_here(target: "TargetTraining", cells: Sequence[Cell], open_run: OpenRun, finish: Finish) -> None:
    for cell in cells:
        with run_of(target_run(target.description(cell)), open_run, target.accelerator) as run:
            finish(cell, {rate: target.train(cell, rate, run.log) for rate in target.rates}, run)


def _train_in_workers(
    target: "TargetTraining", cells: Sequence[Cell], workers: int, open_run: OpenRun, finish: Finish
) -> int:
    """All trainings, a run's points when each training ends; returns the workers' memory in MiB.

    The runs are opened after the processes are forked, so that no tracking store is open in two.
    """
    trainings = [(cell, rate) for cell in cells for rate in target.rates]
    states: dict[Cell, dict[float, TrainingState]] = {cell: {} for cell in cells}
    with ExitStack() as all_runs, forked_workers(target.train_silently, trainings, workers) as finished:
        ends = {cell: all_runs.enter_context(ExitStack()) for cell in cells}
        runs = {
            cell: end.enter_context(run_of(target_run(target.description(cell)), open_run, target.accelerator))
            for cell, end in ends.items()
        }
        with tqdm(finished, total=len(trainings), desc=f"transfer {cells[0].task}", unit="training") as bar:
            for cell, rate in bar:
                states[cell][rate] = state = target.store(cell, rate).load()
                for point in state.history:
                    runs[cell].log(int(point["step"]), {name: value for name, value in point.items() if name != "step"})
                if len(states[cell]) == len(target.rates):
                    finish(cell, {rate: states[cell][rate] for rate in target.rates}, runs[cell])
                    ends[cell].close()
    return finished.memory_mib


def _save(target: "TargetTraining", folder: Path, cell: Cell, states: States, run: Run) -> None:
    """Write the cell's adapter, that of the learning rate which is best on validation, and link its run to it."""
    rate = max(states, key=lambda rate: score_of(states[rate]))  # the first of equals
    tensors = states[rate].best_tensors
    trials = {f"{rate:g}": score_of(state) for rate, state in states.items()}
    record = states[rate].record(sum(tensor.numel() for tensor in tensors.values()), trials)
    if target.accelerator.is_main_process:
        description = replace(target.description(cell), learning_rate=rate)
        run.tag({ARTIFACT_TAG: save_adapter(folder / cell.name, description, tensors, record)})


@dataclass(frozen=True)
class TargetTraining:
    """What all trainings of one target share."""

    prepared: PreparedTask
    data_hash: str
    backbone: Backbone
    experts: Sequence[Expert]
    experts_hash: str
    settings: TransferSettings
    answer: AnswerRule
    data: TaskData
    accelerator: Accelerator
    checkpoint_dir: Path

    @property
    def rates(self) -> list[float]:
        """The learning rates, each once."""
        return list(dict.fromkeys(self.settings.learning_rates))

    def experts_of(self, cell: Cell) -> list[Expert]:
        """The experts that the cell's method mixes."""
        return select_experts(self.experts, cell.sources([expert.task for expert in self.experts]))

    def description(self, cell: Cell) -> AdapterDescription:
        """What identifies a cell's adapter, but for the learning rate."""
        sources = [expert.task for expert in self.experts_of(cell)]
        return AdapterDescription(
            stage="target",
            task=cell.task,
            prompt=self.prepared.task.description,
            backbone=self.backbone.fingerprint,
            data=self.data_hash,
            seed=cell.seed,
            settings=self.settings.model_dump(exclude={"methods", "seeds", "k"}),
            answer=self.answer,
            method=cell.method,
            k=cell.k,
            experts=self.experts_hash if sources else None,
            sources=sources,
        )

    def store(self, cell: Cell, rate: float) -> CheckpointStore:
        """The place of one training's checkpoint."""
        description = replace(self.description(cell), learning_rate=rate)
        dropout = self.backbone.model.config.dropout_rate  # not part of a fingerprint: it changes training alone
        inputs = {"adapter": asdict(description), "dropout": dropout, "code": training_code()}
        return CheckpointStore(self.checkpoint_dir, inputs)

    def train_silently(self, training: tuple[Cell, float]) -> None:
        """Train, and leave no trace but the checkpoint."""
        self.train(*training, SilentRun().log, progress_bar=False)

    def train(self, cell: Cell, rate: float, log: Log, *, progress_bar: bool = True) -> TrainingState:
        """Train `cell` with one learning rate. TrainingError at a loss that is no number."""
        settings, model = self.settings, self._new_model(cell)
        state = Trainer(
            model,
            self.data.rows(settings.training, cell.seed, cell.k, settings.rare_class),
            lambda: self.data.evaluate(
                model,
                self.backbone.tokenizer,
                self.accelerator,
                settings.select_by,
                settings.training.batch_size,
                self.answer,
            ),
            settings.training,
            self.accelerator,
            self.store(cell, rate),
            learning_rate=rate,
            seed=cell.seed,
            log=log,
            title=f"transfer {cell.task} {cell.name}",
            progress_bar=progress_bar,
        ).fit()
        model.detach()
        return state

    def _new_model(self, cell: Cell) -> PromptedT5:
        settings, backbone, experts = self.settings, self.backbone, self.experts_of(cell)
        generator = torch.Generator().manual_seed(cell.seed)
        prompt_ids = torch.tensor(backbone.tokenizer(self.prepared.task.description)["input_ids"])
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


def score_of(state: TrainingState) -> float:
    """The validation score of the tensors that a training kept."""
    return -math.inf if state.best_score is None else state.best_score
