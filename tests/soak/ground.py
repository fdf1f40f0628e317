"""Valid examples of everything that the product reads: a small trained world, made by the steps themselves."""

import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny import World, write_task
from torch import nn
from workspace import write_params

from pemt_core.artifacts.adapter import load_adapter
from pemt_core.artifacts.description import SourceDescription
from pemt_core.artifacts.experts import ExpertBank, load_experts
from pemt_core.backbone.store import Backbone, load_backbone
from pemt_core.lora.writer import save_lora
from pemt_core.prediction.model_folder import load_model_folder, write_model_folder
from pemt_core.prediction.predictor import Predictor
from pemt_core.settings import EvaluateSettings, load_settings, read_params
from pemt_core.steps.evaluate import evaluate
from pemt_core.steps.plan import make_plan
from pemt_core.training.checkpoint import CheckpointStore, TrainingState

TARGETS = ("cb", "rte")  # trained here on toy texts; the names are those of tasks in the registry
SHORT = {"epochs": 1, "evaluate_every": 100}
SMALL = {"tasks": {"sources": ["mnli", "squad"], "targets": list(TARGETS)}}


@dataclass(frozen=True)
class Ground:
    """The folder of the examples."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "Ground":
        """Train two targets for a few steps, score them, and write the rest."""
        world = World.make(folder)
        for target in TARGETS:
            write_task(folder / "data", target, fillers=1 + len(target))
            world.transfer(
                folder / "adapters/targets" / target, task=target, methods=["pemt", "control"],
                checkpoints=folder / "checkpoints", **SHORT,
            )  # fmt: skip
        ground = cls(folder)
        ground._score()
        ground._write_plan()
        ground._write_checkpoint()
        adapter = load_adapter(folder / "adapters/alpha", ground.backbone.fingerprint, SourceDescription)
        save_lora(folder / "lora", adapter, ground.backbone, "backbone")
        cells = {target: ground.cell(target) for target in TARGETS}
        write_model_folder(
            folder / "model", folder / "backbone", folder / "experts", cells, folder / "data",
            own_texts={target: {"text": "text"} for target in TARGETS}, include_backbone=True, batch_size=4,
        )  # fmt: skip
        return ground

    def cell(self, target: str, method: str = "pemt") -> Path:
        """The folder of a trained cell."""
        return self.folder / "adapters/targets" / target / f"{method}-kfull-seed4096"

    def score(self, target: str) -> Path:
        """The folder of a cell's result."""
        return self.folder / "scores" / target / self.cell(target).name

    @cached_property
    def backbone(self) -> Backbone:
        return load_backbone(self.folder / "backbone")

    @cached_property
    def bank(self) -> ExpertBank:
        return load_experts(self.folder / "experts", self.backbone)

    @cached_property
    def predictor(self) -> Predictor:
        return load_model_folder(self.folder / "model")

    @cached_property
    def params(self) -> Any:
        """The values of a small params.yaml, with its recipe."""
        return json.loads(json.dumps(read_params(self.folder / "params.yaml")))

    def store(self, root: Path) -> tuple[CheckpointStore, dict[str, nn.Parameter], torch.optim.Optimizer]:
        """A store of training states in `root`, and what it restores into."""
        model = nn.Linear(3, 2)
        return CheckpointStore(root, "inputs"), dict(model.named_parameters()), torch.optim.AdamW(model.parameters())

    def _score(self) -> None:
        settings = EvaluateSettings(answer="generate", batch_size=8, precision="float32", max_rows=None)
        targets = {target: self.folder / "adapters/targets" / target for target in TARGETS}
        places = (self.folder / name for name in ("data", "backbone", "experts"))
        evaluate(targets, *places, settings, output_dir=self.folder / "scores")
        shutil.copytree(self.score("cb"), self.folder / "alone" / self.score("cb").relative_to(self.folder / "scores"))

    def _write_plan(self) -> None:
        path = write_params(self.folder / "params.yaml", SMALL)
        for recipe in path.parent.glob("recipes/*.yaml"):
            if recipe.stem != "demo":
                recipe.unlink()
        make_plan(load_settings(path), path.parent).write(self.folder / "plan")

    def _write_checkpoint(self) -> None:
        torch.manual_seed(0)
        store, trained, optimizer = self.store(self.folder / "checkpoints")
        sum(parameter.square().sum() for parameter in trained.values()).backward()
        optimizer.step()
        state = TrainingState(step=3, epoch=1, batch=2, best_score=0.5, best_step=2, best_metrics={"x": 0.25})
        state.history = [{"step": 1, "train/loss": 0.5}]
        state.best_tensors = {name: torch.rand_like(parameter) for name, parameter in trained.items()}
        store.save(state, trained, optimizer)


def write_tensors(path: Path, tensors: Any, metadata: Any = None) -> None:
    """Write a safetensors file of contiguous tensors."""
    save_file(tensors, path, metadata=metadata)
