"""train_source: stage 1 for one source task."""

from dataclasses import asdict
from pathlib import Path

import torch

from pemt_core.artifacts.adapter import AdapterDescription, TrainingRecord, save_adapter
from pemt_core.artifacts.run_info import source_run
from pemt_core.backbone.store import load_backbone
from pemt_core.data.prepared import PreparedTask
from pemt_core.model.assemble import build_source_model, initial_prompt, initial_source_tensors
from pemt_core.settings import TrainSourceSettings
from pemt_core.training.checkpoint import CheckpointStore, training_code
from pemt_core.training.loop import Trainer, make_accelerator
from pemt_core.training.run import ARTIFACT_TAG, OpenRun, run_of
from pemt_core.training.task_data import TaskData


def train_source(
    task_dir: Path,
    backbone_dir: Path,
    settings: TrainSourceSettings,
    *,
    output_dir: Path,
    checkpoint_dir: Path,
    open_run: OpenRun,
) -> TrainingRecord:
    """Train one source's adapters and prompt on the frozen backbone, and write them to `output_dir`."""
    prepared, backbone = PreparedTask.load(task_dir), load_backbone(backbone_dir)
    task = prepared.task
    description = AdapterDescription(
        stage="source",
        task=task.name,
        prompt=task.description,
        backbone=backbone.fingerprint,
        data=prepared.content_hash(),
        seed=settings.seed,
        settings=settings.model_dump(),
        scale=settings.scale,
        learning_rate=settings.training.learning_rate,
    )
    generator = torch.Generator().manual_seed(settings.seed)
    prompt_ids = torch.tensor(backbone.tokenizer(task.description)["input_ids"])
    prompt = initial_prompt(backbone.model, prompt_ids, settings.prompt_init, generator)
    tensors = initial_source_tensors(
        backbone.model, prompt, rank=settings.rank, init=settings.init, generator=generator
    )
    model = build_source_model(backbone.model, tensors, scale=settings.scale)
    data = TaskData.load(prepared, backbone.tokenizer, settings.training, settings.source_length)
    accelerator = make_accelerator(settings.training.precision)
    store = CheckpointStore(checkpoint_dir, {"adapter": asdict(description), "code": training_code()})
    with run_of(source_run(description), open_run, accelerator) as run:
        state = Trainer(
            model,
            data.rows(settings.training, settings.seed, "full", "error"),
            lambda: data.evaluate(
                model, backbone.tokenizer, accelerator, settings.select_by, settings.training.batch_size
            ),
            settings.training,
            accelerator,
            store,
            learning_rate=settings.training.learning_rate,
            seed=settings.seed,
            log=run.log,
            title=f"train_source {task.name}",
        ).fit()
        record = state.record(model.num_trained_parameters())
        if accelerator.is_main_process:
            run.tag({ARTIFACT_TAG: save_adapter(output_dir, description, model.tensors(), record)})
            store.discard()
    return record
