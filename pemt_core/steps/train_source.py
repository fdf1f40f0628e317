"""train_source: run stage 1 for one source task: its adapter with a prompt and, if asked for, a prompt alone."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pemt_core.answering.rule import AnswerRule, rule_for
from pemt_core.artifacts.description import (
    Description,
    LonePromptDescription,
    SourceDescription,
    TrainingRecord,
    lone_prompt_folder,
)
from pemt_core.artifacts.files import atomic_directory
from pemt_core.backbone.store import Backbone, load_backbone
from pemt_core.backbone.text_ids import description_ids
from pemt_core.data.prepared import PreparedTask
from pemt_core.labels import check_label_words
from pemt_core.model.assemble import build_source_model, initial_prompt, initial_source_tensors
from pemt_core.model.prompt_tuning import build_prompt_model, initial_prompt_tensors
from pemt_core.model.prompted import PromptedModel
from pemt_core.provenance.code import code_hash
from pemt_core.settings import LonePromptSettings, TrainSourceSettings
from pemt_core.training.accelerator import make_accelerator
from pemt_core.training.run import OpenRun
from pemt_core.training.source import SourceTraining


@dataclass(frozen=True)
class TrainedSource:
    """What train_source wrote."""

    record: TrainingRecord  # of the adapter
    trained: list[str]  # titles of the trainings of this call; others were finished before


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
    prompt: LonePromptSettings | None = None,
    progress_bar: bool = True,
) -> TrainedSource:
    """Train the adapters and the prompt of `source` on the frozen backbone, and write them to `output_dir`.

    With `prompt`, also train a prompt without adapters, for `output_dir`/prompt. `answer` is the rule that answers
    validation. A training that `checkpoint_dir` holds the result of is not repeated.

    Raises ArtifactError if an input is missing or does not fit, DataError if its labels cannot be written, and
    TrainingError if a training diverges, or another process is at it.
    """
    prepared, backbone = PreparedTask.load(task_dir, source), load_backbone(backbone_dir)
    check_label_words(prepared.task, backbone.tokenizer)
    make = partial(SourceTraining.make, backbone=backbone, code=code_hash(__name__), checkpoint_dir=checkpoint_dir)
    title, described = f"train_source {source}", partial(_description, prepared, backbone, answer)
    adapter = described(SourceDescription, settings, scale=settings.scale)
    trainings = [make(title, adapter, settings, partial(_new_adapter, prepared, backbone, settings))]
    if prompt is not None:
        alone, start = described(LonePromptDescription, prompt), partial(_new_prompt, prepared, backbone, prompt)
        trainings.append(make(f"{title}, prompt alone", alone, prompt, start))
    done = [training.run(prepared, backbone, open_run, progress_bar=progress_bar) for training in trainings]
    if make_accelerator(settings.training.precision).is_main_process:
        with atomic_directory(output_dir) as folder:
            for training, place in zip(trainings, (folder, lone_prompt_folder(folder)), strict=False):
                training.finished.copy_to(place)
    trained = [training.title for training, (_, is_new) in zip(trainings, done, strict=True) if is_new]
    return TrainedSource(done[0][0], trained)


def _description(
    prepared: PreparedTask,
    backbone: Backbone,
    answer: AnswerRule,
    kind: type[Description],
    settings: TrainSourceSettings | LonePromptSettings,
    **more: Any,
) -> Description:
    """What is trained, on what, and how."""
    return kind(
        task=prepared.task.name,
        prompt=prepared.task.description,
        backbone=backbone.fingerprint,
        data=prepared.content_hash(),
        seed=settings.seed,
        settings=settings.model_dump(),
        answer=rule_for(prepared.task.labels, answer),
        **more,
    )


def _new_adapter(prepared: PreparedTask, backbone: Backbone, settings: TrainSourceSettings) -> PromptedModel:
    """Stage 1 as published: an adapter in every layer, and a prompt that starts from the description."""
    generator = torch.Generator().manual_seed(settings.seed)
    prompt = initial_prompt(backbone.model, _ids(prepared, backbone), settings.prompt_init, generator)
    tensors = initial_source_tensors(
        backbone.model, prompt, rank=settings.rank, init=settings.init, generator=generator
    )
    return build_source_model(backbone.model, tensors, scale=settings.scale)


def _new_prompt(prepared: PreparedTask, backbone: Backbone, settings: LonePromptSettings) -> PromptedModel:
    """Prompt tuning (Lester et al. 2021): nothing but the prompt is trained, as SPoT, ATTEMPT and MPT need it."""
    tensors = initial_prompt_tensors(
        backbone.model,
        length=settings.length,
        init=settings.init,
        ids=_ids(prepared, backbone),
        generator=torch.Generator().manual_seed(settings.seed),
    )
    return build_prompt_model(backbone.model, tensors)


def _ids(prepared: PreparedTask, backbone: Backbone) -> torch.Tensor:
    """The tokens of the task's description, shape (P,)."""
    return torch.tensor(description_ids(backbone.tokenizer, prepared.task.description))
