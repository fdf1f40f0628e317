"""The pipeline's steps on backbones that are no T5: from a checkpoint in a folder to predictions."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from test_backbone import settings as backbone_settings
from test_model import snapshot
from test_server import ROWS, register_targets, serving
from test_serving import Project as Served
from tiny import World, logging_runs, write_task
from tiny_models import tiny_model
from tiny_tokenizers import byte_tokenizer

from pemt_core.artifacts.description import TargetDescription, load_description
from pemt_core.artifacts.experts import load_experts
from pemt_core.artifacts.result import load_results
from pemt_core.artifacts.run_info import target_run
from pemt_core.artifacts.target import load_target, restore_target
from pemt_core.backbone.store import load_backbone
from pemt_core.backbone.text_ids import text_ids
from pemt_core.data.prepared import PreparedTask
from pemt_core.prediction.predictor import load_predictor
from pemt_core.settings import EvaluateSettings
from pemt_core.steps.backbone import make_backbone
from pemt_core.steps.evaluate import evaluate
from pemt_core.tasks import get_task
from pemt_core.tracking import ARTIFACT

# kind, precision of its weights, layout, options of its tokenizer, rule of answers
PROJECTS: dict[str, tuple[str, str, str, dict[str, bool], str]] = {
    "qwen3": ("qwen3", "float32", "auto", {}, "score"),
    "gemma3 in bfloat16": ("gemma3", "bfloat16", "both", {"bos": True, "pad": True}, "generate"),
    "t5gemma": ("t5gemma", "float32", "auto", {"bos": True, "pad": True}, "generate"),
}
METHODS: dict[str, dict[str, Any]] = {
    "pemt": {},
    "token": {"kind": "pemt", "gate": "token"},
    "lora": {"rank": 4, "alpha": 8.0},
    "prompt_tuning": {"length": 4},
    "full": {},
}
MIXTURES = ("pemt", "token")


@dataclass(frozen=True)
class Project:
    """Everything that the steps wrote, for one backbone."""

    world: World
    rule: Any

    def cell(self, method: str) -> Path:
        return self.world.folder / "targets" / "gamma" / f"{method}-kfull-seed1"


@pytest.fixture(scope="module", params=PROJECTS)
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Fetch, adopt, train sources, collect, transfer and evaluate, as the components do."""
    kind, dtype, layout, options, rule = PROJECTS[request.param]
    folder = tmp_path_factory.mktemp("family")
    tokenizer = byte_tokenizer(folder / "tokenizer", **options)
    tiny_model(kind, vocab_size=len(tokenizer), spread=0.2).save_pretrained(folder / "checkpoint")
    make_backbone(
        backbone_settings(kind="hub", name=str(folder / "checkpoint"), dtype=dtype, layout=layout),
        tokenizer_dir=folder / "tokenizer",
        corpus_path=folder / "unread.parquet",
        output_dir=folder / "backbone",
        checkpoint_dir=folder / "checkpoints",
        open_run=logging_runs(None),
    )
    world = World.on_backbone(folder)
    world.transfer(
        folder / "targets" / "gamma", methods=METHODS, seeds=[1], learning_rates=[0.01], answer=rule, max_steps=4,
        evaluate_every=4,
    )  # fmt: skip
    evaluate(
        {"gamma": folder / "targets" / "gamma"},
        folder / "data",
        folder / "backbone",
        folder / "experts",
        EvaluateSettings(answer=rule, batch_size=3, precision="float32", max_rows=None),
        output_dir=folder / "scores",
    )
    return Project(world, rule)


def test_the_adopted_backbone_is_what_cells_record(project: Project) -> None:
    folder = project.world.folder
    backbone = load_backbone(folder / "backbone")
    assert backbone.model.config.bos_token_id is not None
    assert backbone.model.generation_config.eos_token_id == backbone.tokenizer.eos_token_id
    bank = load_experts(folder / "experts", backbone)
    assert [expert.task for expert in bank.experts] == list(World.SOURCES)
    assert any(tensor.any() for name, tensor in bank.experts[0].tensors.items() if name.endswith("up"))
    for method in METHODS:
        assert load_target(project.cell(method), "gamma", backbone, bank).description.backbone == backbone.fingerprint


@pytest.mark.parametrize("method", METHODS)
def test_a_trained_cell_predicts_what_it_was_scored_by(method: str, project: Project) -> None:
    """Stored, restored, evaluated and served; batches of other sizes give the same answers."""
    folder = project.world.folder
    backbone = load_backbone(folder / "backbone")
    bank = load_experts(folder / "experts", backbone)
    before = snapshot(backbone.model)
    adapter = load_target(project.cell(method), "gamma", backbone, bank)
    model = restore_target(backbone.model, adapter, bank)
    assert all(torch.equal(tensor, adapter.tensors[name]) for name, tensor in model.tensors().items())
    assert {tensor.dtype for tensor in adapter.tensors.values()} == {torch.float32}
    model.detach()
    assert snapshot(backbone.model) == before

    (result,) = (each for each in load_results(folder / "scores") if each.method == method)
    assert result.trained_parameters == sum(tensor.numel() for tensor in adapter.tensors.values())
    assert (result.expert_weights is not None) == (method in MIXTURES)
    rows = PreparedTask.load(folder / "data" / "gamma").rows("test")
    found = []
    for batch_size in (1, 5):
        predictor = load_predictor(
            folder / "backbone", folder / "experts", {"gamma": project.cell(method)},
            {"gamma": folder / "data" / "gamma"}, {"gamma": get_task("cola").conversion}, batch_size=batch_size,
        )  # fmt: skip
        found.append(predictor.predict(rows["source"].to_pylist()))
    lengths = [len(ids) for ids in text_ids(backbone.tokenizer, rows["source"].to_pylist())]
    assert [each.truncated for each in found[0]] == [length > 32 for length in lengths]
    hits = [each.prediction == target for each, target in zip(found[0], rows["target"].to_pylist(), strict=True)]
    assert 100 * sum(hits) / len(hits) == pytest.approx(result.test["accuracy"])
    for alone, together in zip(*found, strict=True):
        assert alone.prediction == together.prediction
        assert alone.score == pytest.approx(together.score, rel=1e-3 if backbone.model.dtype == torch.float32 else 0.1)
        assert alone.scores is not None
        assert sum(alone.scores.values()) == pytest.approx(1)
        assert set(alone.scores) == {"red", "blue"}
        assert set(alone.expert_weights) == (set(World.SOURCES) if method in MIXTURES else set())


def test_training_learns(project: Project, tmp_path: Path) -> None:
    """Full fine-tuning, as nothing else has much to work with in a random model: it finds the label word in a text."""
    folder = project.world.folder
    project.world.transfer(
        tmp_path / "gamma", methods={"full": {}}, seeds=[1], learning_rates=[0.002], answer=project.rule, epochs=16,
        evaluate_every=100,
    )  # fmt: skip
    predictor = load_predictor(
        folder / "backbone", folder / "experts", {"gamma": tmp_path / "gamma" / "full-kfull-seed1"},
        {"gamma": folder / "data" / "gamma"}, {"gamma": get_task("cola").conversion}, batch_size=8,
    )  # fmt: skip
    rows = PreparedTask.load(folder / "data" / "gamma").rows("test")
    answers = predictor.predict(rows["source"].to_pylist())
    assert [each.prediction for each in answers] == rows["target"].to_pylist()
    assert all(each.scores is not None and each.scores[each.prediction] > 0.5 for each in answers)


@pytest.mark.parametrize("project", ["gemma3 in bfloat16"], indirect=True)
def test_registered_targets_are_served_on_one_backbone(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mixture and a LoRA, by MLflow's own loader and by `pemt serve`, against a predictor of each alone."""
    import mlflow.pyfunc

    world = World(Path(shutil.copytree(project.world.folder, tmp_path / "project")))
    served = Served(world.folder)
    cells = {"cb": "pemt", "rte": "lora"}
    answers = {}
    for target, method in cells.items():
        write_task(world.folder / "data", target)
        world.transfer(
            world.folder / "targets" / target, task=target, methods={method: METHODS[method]}, answer=project.rule,
            learning_rates=[0.01], max_steps=2,
        )  # fmt: skip
        (cell,) = (world.folder / "targets" / target).iterdir()
        description, artifact = load_description(cell, TargetDescription)
        with served.tracker().open_run(target_run(description)) as run:
            run.tag({ARTIFACT: artifact})
        predictor = load_predictor(
            world.folder / "backbone", world.folder / "experts", {target: cell},
            {target: world.folder / "data" / target}, {target: get_task(target).conversion}, batch_size=4,
        )  # fmt: skip
        answers[target] = predictor.predict([ROWS[target]])[0].prediction
    register_targets(served, list(cells))
    rows = [{"task": target, **ROWS[target]} for target in (*cells, *reversed(cells))]
    with serving(served, tmp_path / "server.log") as running:
        found = running.predictions(*rows)
    assert [each["prediction"] for each in found] == [answers[row["task"]] for row in rows]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", served.uri)
    for target, answer in answers.items():
        loaded = mlflow.pyfunc.load_model(f"models:/pemt-{target}@champion")
        assert [each["prediction"] for each in loaded.predict([ROWS[target]])] == [answer]
