"""The project that benchmarks/serving.py serves: registered targets that no pipeline has trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM

from pemt_core.artifacts.adapter import Adapter, save_adapter
from pemt_core.artifacts.description import SourceDescription, TargetDescription, TrainingRecord
from pemt_core.artifacts.experts import load_experts, save_experts
from pemt_core.artifacts.run_info import target_run
from pemt_core.backbone.store import Backbone, load_backbone, save_backbone
from pemt_core.backbone.text_ids import description_ids
from pemt_core.backbone.tokenizer import load_tokenizer
from pemt_core.data.prepared import PreparedTask
from pemt_core.model.assemble import initial_prompt, initial_source_tensors
from pemt_core.preparation import prepare_task
from pemt_core.settings import Settings, load_settings
from pemt_core.settings.steps import Register
from pemt_core.steps.register import Folders, register
from pemt_core.tasks import get_task
from pemt_core.tracking import ARTIFACT, connect

REPOSITORY = Path(__file__).parents[1]
ROWS: dict[str, int | None] = {"train": 8, "validation": 8, "test": 64}
REQUEST_ROWS = 64  # of the requests by which throughput in rows is measured

Row = dict[str, str]


@dataclass(frozen=True)
class Project:
    """Registered targets, and texts for each."""

    folder: Path
    settings: Settings
    texts: dict[str, list[str]]

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    def rows(self, targets: Sequence[str]) -> list[Row]:
        """As many rows as a large request has, the targets in turn."""
        numbered = [(number, target) for number in range(REQUEST_ROWS) for target in targets]
        return [{"task": t, "source": self.texts[t][n % len(self.texts[t])]} for n, t in numbered][:REQUEST_ROWS]


def make_project(folder: Path, targets: Sequence[str], seed: int) -> Project:
    """Write experts, cells and versions as the pipeline's steps do, without training; the first target has two."""
    settings, embedded = load_settings(REPOSITORY / "params.yaml"), REPOSITORY / "pemt_core/embedded/backbone"
    save_backbone(folder / "backbone", AutoModelForSeq2SeqLM.from_pretrained(embedded), load_tokenizer(str(embedded)))
    backbone = load_backbone(folder / "backbone")
    generator = torch.Generator().manual_seed(seed)
    folders = Folders(folder / "targets", folder / "data", folder / "backbone", folder / "experts")
    make_experts(folders.experts, settings, backbone, generator)
    bank = load_experts(folders.experts, backbone)
    project = Project(folder, settings, {})
    tracker = connect(project.uri, "pemt", folder, "stop")
    for target in targets:
        places: dict[str, Any] = {"source": "embedded", "embedded_seed": 23, "split_seed": 42, "max_rows": ROWS}
        prepare_task(get_task(target), **places, output_dir=folders.data / target)
        prepared = PreparedTask.load(folders.data / target, target)
        project.texts[target] = prepared.rows("test")["source"].to_pylist()
        description, method = prepared.task.description, settings.methods_for(target)["pemt"]
        ids = torch.tensor(description_ids(backbone.tokenizer, description))
        options = {**method.model_dump(), "source_length": settings.transfer.source_length}
        experts = bank.mixture_hash(bank.sources)
        for number in (1, 2) if target == targets[0] else (1,):
            tensors = method.initial_tensors(backbone.model, ids, bank.select(bank.sources), generator)
            described = TargetDescription(
                target, description, backbone.fingerprint, "made here", "pemt", options, "generate", 32, number,
                bank.sources, experts, f"{target} {number}",
            )  # fmt: skip
            record = TrainingRecord(0.01, {"main": 50.0 + number}, 1, 1, [], 0)
            artifact = save_adapter(folders.adapters / target / described.cell.name, described, tensors, record)
            with tracker.open_run(target_run(described)) as run:
                run.tag({ARTIFACT: artifact})
            register_target(folders, settings, tracker, target)
    return project


def make_experts(folder: Path, settings: Settings, backbone: Backbone, generator: torch.Generator) -> None:
    """Write random source adapters."""
    group, adapters = settings.train_source, []
    for source in settings.tasks.sources:
        ids = torch.tensor(description_ids(backbone.tokenizer, get_task(source).description))
        prompt = initial_prompt(backbone.model, ids, "vocab", generator)
        tensors = initial_source_tensors(backbone.model, prompt, rank=group.rank, init="kaiming", generator=generator)
        scale = group.alpha / group.rank
        about = SourceDescription(source, "", backbone.fingerprint, "none", 1, {}, "generate", scale)
        adapters.append(Adapter(about, tensors, source))
    save_experts(folder, adapters)


def register_target(folders: Folders, settings: Settings, tracker: Any, target: str) -> None:
    shared: dict[str, Any] = {"own_tasks": {}, "batch_size": settings.evaluate.batch_size, "prefix": "pemt", "code": ""}
    register(folders, Register(targets=[target], methods=["pemt"], models=settings.models, **shared), tracker)
