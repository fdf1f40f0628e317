"""Every method of the experiments, and every kind: trained, registered, loaded again and served by one server."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from source_code import REPOSITORY
from test_lone_prompts import PROMPT
from test_server import is_same, serving
from test_serving import MODELS, Project
from tiny import World, tiny_batch, write_task

import pemt_core
from pemt_core.artifacts.description import load_training_record
from pemt_core.artifacts.experts import load_experts
from pemt_core.artifacts.target import load_target, restore_target
from pemt_core.backbone.store import load_backbone
from pemt_core.data.prepared import PreparedTask
from pemt_core.methods import kinds
from pemt_core.prediction.predictor import Predictor, load_predictor
from pemt_core.preparation import prepare_joint
from pemt_core.settings import ModelSettings
from pemt_core.settings.steps import Register
from pemt_core.steps.collect_experts import collect_experts
from pemt_core.steps.register import register
from pemt_core.tasks import JOINT, own_task
from pemt_core.tasks.entry import OwnTask


def methods_of(experiment: str) -> dict[str, dict[str, Any]]:
    found = YAML(typ="safe").load((REPOSITORY / "experiments" / f"{experiment}.yaml").read_text())["methods"]
    return {name: {**entry, "learning_rates": [0.01]} for name, entry in found.items()}


METHODS: dict[str, dict[str, Any]] = {
    "pemt": {},
    "control": {"kind": "pemt", "sources": []},
    **methods_of("shared"),
    **methods_of("controls"),
    "source": {},
    "zero_shot": {},
}
TARGETS = {method: f"{method}_target" for method in METHODS}
ROWS = [{"text": "red"}, {"text": "a tree red of the"}, {"text": "blue"}]


def entry(target: str) -> OwnTask:
    """The toy task as a user's own."""
    values = {"text": {"text": "text"}, "target": "label", "labels": ["red", "blue"], "metrics": ["accuracy"]}
    return OwnTask.model_validate({"files": {"train": "rows.csv"}, "description": f"Answer {target}.", **values})


def cell_of(project: Project, method: str) -> Path:
    (cell,) = (project.folder / "targets" / TARGETS[method]).iterdir()
    return cell


def predictor_of(project: Project, method: str) -> Predictor:
    folder, target = project.folder, TARGETS[method]
    return load_predictor(
        folder / "backbone",
        folder / "experts",
        {target: cell_of(project, method)},
        {target: folder / "data" / target},
        {target: own_task(target, entry(target), folder).conversion},
        batch_size=4,
    )


@pytest.fixture(scope="module")
def project(world: World, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A target for each method; the experts have prompts of their own, and a joint one."""
    folder = tmp_path_factory.mktemp("methods") / "project"
    folder.mkdir()
    made, project = World(folder), Project(folder)
    shutil.copytree(world.folder / "backbone", folder / "backbone")
    shutil.copytree(world.folder / "data", folder / "data")
    data = [folder / "data" / name for name in World.SOURCES]
    prepare_joint(data, source="hub", split_seed=1, output_dir=folder / "data" / JOINT)
    sources = [*World.SOURCES, JOINT]
    for name in sources:
        prompt = None if name == JOINT else PROMPT
        made.train_source(folder / "adapters" / name, task=name, prompt=prompt, init="kaiming", epochs=1)
    adapters = [folder / "adapters" / name for name in sources]
    collect_experts(
        adapters,
        sources,
        lone_prompts=World.SOURCES,
        backbone_dir=folder / "backbone",
        output_dir=folder / "experts",
    )
    for method, target in TARGETS.items():
        write_task(folder / "data", target)
        made.transfer(folder / "targets" / target, task=target, methods={method: METHODS[method]}, max_steps=2)
        project.record_run(cell_of(project, method).name, target)
    register(
        project.folders,
        Register(
            targets=list(TARGETS.values()),
            own_tasks={target: entry(target) for target in TARGETS.values()},
            methods=list(METHODS),
            models=ModelSettings(**{**MODELS, "backbone": "refer"}),
            batch_size=4,
            prefix="pemt",
            code="",
        ),
        project.tracker(),
    )
    return project


@pytest.fixture(scope="module")
def answers(project: Project) -> dict[str, list[dict[str, Any]]]:
    """What each target's cell answers ROWS."""
    return {method: [row.record() for row in predictor_of(project, method).predict(ROWS)] for method in METHODS}


def test_every_kind_is_there() -> None:
    assert {settings.get("kind", method) for method, settings in METHODS.items()} == {*kinds()}


@pytest.mark.parametrize("method", METHODS)
def test_a_cell_has_equal_logits_when_it_is_loaded_again(method: str, project: Project) -> None:
    found = []
    for _ in range(2):
        backbone = load_backbone(project.folder / "backbone")
        bank = load_experts(project.folder / "experts", backbone)
        adapter = load_target(cell_of(project, method), TARGETS[method], backbone, bank)
        model = restore_target(backbone.model, adapter, bank).eval()
        assert all(torch.equal(tensor, adapter.tensors[name]) for name, tensor in model.tensors().items())
        with torch.no_grad():
            found.append(model(**tiny_batch(vocab_size=len(backbone.tokenizer))).logits)
    assert torch.equal(*found)
    assert found[0].isfinite().all()


@pytest.mark.parametrize("method", METHODS)
def test_a_cell_scores_on_validation_as_it_did_in_training(method: str, project: Project) -> None:
    rows = PreparedTask.load(project.folder / "data" / TARGETS[method]).rows("validation")
    answered = predictor_of(project, method).predict(rows["source"].to_pylist())
    hits = [row.prediction == target for row, target in zip(answered, rows["target"].to_pylist(), strict=True)]
    found = load_training_record(cell_of(project, method)).validation["main"]
    assert 100 * sum(hits) / len(hits) == pytest.approx(found)


@pytest.mark.parametrize("method", METHODS)
def test_a_registered_model_gives_the_answers_of_its_cell(
    method: str, project: Project, answers: dict[str, list[dict[str, Any]]]
) -> None:
    loaded = pemt_core.load(f"models:/pemt-{TARGETS[method]}@champion", tracking=project.uri)
    assert [row.record() for row in loaded.predict(ROWS)] == answers[method]


def test_one_server_answers_for_all(project: Project, answers: dict[str, list[dict[str, Any]]], tmp_path: Path) -> None:
    asked = [(method, number) for number in range(len(ROWS)) for method in METHODS]
    with serving(project, tmp_path / "server.log") as server:
        found = server.predictions(*({"task": TARGETS[method], **ROWS[number]} for method, number in asked))
    for (method, number), answer in zip(asked, found, strict=True):
        assert is_same(answer, answers[method][number]), json.dumps([answer, answers[method][number]], indent=1)
