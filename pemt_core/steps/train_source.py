"""train_source: run stage 1 for one source task."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from pemt_core.answering.rule import AnswerRule, rule_for
from pemt_core.artifacts.adapter import save_adapter
from pemt_core.artifacts.description import SourceDescription, TrainingRecord
from pemt_core.artifacts.run_info import ARTIFACT_TAG, source_run
from pemt_core.backbone.store import Backbone, load_backbone
from pemt_core.data.prepared import PreparedTask
from pemt_core.labels import check_label_words
from pemt_core.model.assemble import build_source_model, initial_prompt, initial_source_tensors
from pemt_core.model.prompted import PromptedT5
from pemt_core.provenance.code import code_hash
from pemt_core.settings import TrainSourceSettings
from pemt_core.training.accelerator import make_accelerator
from pemt_core.training.checkpoint import CheckpointStore
from pemt_core.training.lock import training_locks
from pemt_core.training.loop import Trainer
from pemt_core.training.run import OpenRun, run_of
from pemt_core.training.task_data import TaskData
from pemt_core.training.workers import Schedule


def train_source(
    task_dir: Path,
    backbone_dir: Path,
    settings: TrainSourceSettings,
    *,
    source: str,
    answer: AnswerRule,
    output_dir: Path,
    checkpoint_dir: Path,
    open_run: OpenRun,
) -> TrainingRecord:
    """Train the adapters and the prompt of `source` on the frozen backbone, and write them to `output_dir`.

    `answer` is the rule that answers validation. Raises ArtifactError if an input is missing or does not fit, DataError
    if its labels cannot be written, and TrainingError if the training diverges, or another process is at it.
    """
    prepared, backbone = PreparedTask.load(task_dir, source), load_backbone(backbone_dir)
    check_label_words(prepared.task, backbone.tokenizer)
    task, description = prepared.task, _description(prepared, backbone, settings, answer)
    data = TaskData.load(prepared, backbone.tokenizer, settings.training, settings.source_length)
    accelerator = make_accelerator(settings.training.precision)
    store = CheckpointStore(checkpoint_dir, _inputs(description, backbone))
    schedule = Schedule.make(1, 1, backbone.model.num_parameters(), accelerator)
    is_main = accelerator.is_main_process
    with (
        training_locks([store.path.parent], is_main),
        run_of(source_run(description), open_run, is_main) as run,
        schedule.threads(),
        _new_model(task.description, backbone, settings) as model,
    ):
        state = Trainer(
            model,
            data.rows(settings.training, settings.seed, "full", "error"),
            lambda: data.evaluate(
                model, backbone.tokenizer, accelerator, settings.select_by, settings.training.batch_size, answer
            ),
            settings.training,
            accelerator,
            store,
            learning_rate=settings.training.learning_rate,
            seed=settings.seed,
            log=run.log,
            title=f"train_source {task.name}",
        ).fit()
        record = state.record(settings.training.learning_rate, model.num_trained_parameters())
        if is_main:
            run.tag({ARTIFACT_TAG: save_adapter(output_dir, description, model.tensors(), record)})
            store.discard()
    return record


def _description(
    prepared: PreparedTask, backbone: Backbone, settings: TrainSourceSettings, answer: AnswerRule
) -> SourceDescription:
    """The description of the adapter to train."""
    return SourceDescription(
        task=prepared.task.name,
        prompt=prepared.task.description,
        backbone=backbone.fingerprint,
        data=prepared.content_hash(),
        seed=settings.seed,
        settings=settings.model_dump(),
        answer=rule_for(prepared.task.labels, answer),
        scale=settings.scale,
    )


def _inputs(description: SourceDescription, backbone: Backbone) -> dict[str, Any]:
    """Everything that the training depends on."""
    dropout = backbone.model.config.dropout_rate  # not in the fingerprint: it affects training alone
    return {"adapter": asdict(description), "dropout": dropout, "code": code_hash(__name__)}


def _new_model(prompt_text: str, backbone: Backbone, settings: TrainSourceSettings) -> PromptedT5:
    generator = torch.Generator().manual_seed(settings.seed)
    prompt_ids = torch.tensor(backbone.tokenizer(prompt_text)["input_ids"])
    prompt = initial_prompt(backbone.model, prompt_ids, settings.prompt_init, generator)
    tensors = initial_source_tensors(
        backbone.model, prompt, rank=settings.rank, init=settings.init, generator=generator
    )
    return build_source_model(backbone.model, tensors, scale=settings.scale)
