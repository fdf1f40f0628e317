"""Predictions of trained targets: equality with forward pass and evaluation, mixed batches, files, bad input."""

import csv
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import Accelerator
from source_code import REPOSITORY
from tiny import World, change_record, write_task
from workspace import write_params

import pemt_core.prediction.files
from pemt_core.answering.rule import AnswerRule
from pemt_core.answering.split import EvaluationSplit, predict
from pemt_core.artifacts.adapter import best_on_validation, load_adapter
from pemt_core.artifacts.description import TargetDescription
from pemt_core.artifacts.experts import load_experts
from pemt_core.artifacts.target import restore_target
from pemt_core.backbone.store import load_backbone
from pemt_core.data.prepared import PreparedTask, load_task_description, write_description
from pemt_core.errors import ArtifactError, DataError, PemtError, SettingsError
from pemt_core.model.stacks import feed_forwards
from pemt_core.prediction.files import predict_file
from pemt_core.prediction.model_folder import load_model_folder, write_model_folder
from pemt_core.prediction.predictor import Predictor, load_predictor
from pemt_core.prediction.rows import text_of_row
from pemt_core.prediction.trained import Prediction, ReadRow
from pemt_core.processes.schedule import SINGLE_THREADED, Schedule
from pemt_core.tasks import get_task
from pemt_core.tasks.rows import columns_as_text

CELLS = {"cb": "pemt-kfull-seed4096", "rte": "control-kfull-seed4096", "nq": "without_beta-kfull-seed4096"}
ASKED: dict[str, AnswerRule] = {"cb": "score", "rte": "generate", "nq": "score"}
RULES = {**ASKED, "nq": "generate"}  # free text is always generated


@pytest.fixture(scope="module")
def trained(world: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The world with three trained targets: two that choose a label word, one that generates free text."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copytree(world.folder, folder, dirs_exist_ok=True)
    copy = World(folder)
    for task in CELLS:
        write_task(folder / "data", task)
    description = load_task_description(folder / "data" / "nq")
    write_description(folder / "data" / "nq", replace(description, labels=None, generation_length=3))
    for task in CELLS:
        methods = ["pemt", "control"] if task == "cb" else [CELLS[task].partition("-")[0]]
        copy.transfer(
            folder / "targets" / task, task=task, answer=ASKED[task], methods=methods, learning_rates=[0.1], epochs=8
        )
    return copy


def load(world: World, *tasks: str, batch_size: int = 4, rule: AnswerRule | None = None) -> Predictor:
    """Load a predictor; `rule` makes it answer as if the adapters had been selected by that rule."""
    predictor = load_predictor(
        world.folder / "backbone",
        world.folder / "experts",
        {task: world.folder / "targets" / task / CELLS[task] for task in tasks},
        {task: world.folder / "data" / task for task in tasks},
        {task: get_task(task).conversion for task in tasks},
        batch_size=batch_size,
    )
    for name, target in predictor.targets.items() if rule else ():
        description = replace(target.adapter.description, answer=rule)
        predictor.targets[name] = replace(target, adapter=replace(target.adapter, description=description))
    return predictor


def texts_of(world: World, task: str) -> list[str]:
    texts: list[str] = PreparedTask.load(world.folder / "data" / task).rows("test")["source"].to_pylist()
    return texts


# Answers


def test_scores_are_the_probabilities_of_the_forward_pass(trained: World) -> None:
    backbone = load_backbone(trained.folder / "backbone")
    bank = load_experts(trained.folder / "experts", backbone)
    adapter = load_adapter(trained.folder / "targets" / "cb" / CELLS["cb"], backbone.fingerprint, TargetDescription)
    model, tokenizer = restore_target(backbone.model, adapter, bank).eval(), backbone.tokenizer
    for text, found in zip(texts_of(trained, "cb"), load(trained, "cb").predict(texts_of(trained, "cb")), strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        logs = []
        for label in ("red", "blue"):
            labels = torch.tensor([tokenizer(label)["input_ids"]])
            with torch.no_grad():
                output = model(ids, torch.ones_like(ids), labels)
            logs.append(-output.lm_loss.item() * labels.shape[1])
        expected = np.exp(logs) / np.exp(logs).sum()
        assert found.scores is not None
        assert list(found.scores) == ["red", "blue"]
        np.testing.assert_allclose(list(found.scores.values()), expected, rtol=1e-4)
        assert found.prediction == ("red", "blue")[int(np.argmax(expected))]
        assert (found.answer, found.score) == ("score", max(found.scores.values()))
        weights = {name: layer[0].tolist() for name, layer in model.signal.expert_weights.items()}
        for name, layer in found.layers.items():
            np.testing.assert_allclose(layer, weights[name], rtol=1e-4)
        np.testing.assert_allclose(
            list(found.expert_weights.values()), np.mean(list(weights.values()), axis=0), rtol=1e-4
        )
        assert list(found.expert_weights) == ["alpha", "beta"]


@pytest.mark.parametrize("rule", ["score", "generate"])
def test_predictions_show_the_users_labels(trained: World, tmp_path: Path, rule: AnswerRule) -> None:
    """A model folder carries them too."""
    plain, texts = load(trained, "cb", rule=rule), texts_of(trained, "cb")
    shown = {"red": "rot ²", "blue": "blau"}
    folder, target = tmp_path / "data" / "cb", plain.targets["cb"]
    folder.mkdir(parents=True)
    write_description(folder, replace(target.task, shown=shown))
    write_model_folder(
        tmp_path / "model", trained.folder / "backbone", trained.folder / "experts",
        {"cb": trained.folder / "targets" / "cb" / CELLS["cb"]}, tmp_path / "data",
        own_texts={"cb": {"text": "text"}}, include_backbone=False, batch_size=4,
    )  # fmt: skip
    renamed = load_model_folder(tmp_path / "model")
    description = replace(renamed.targets["cb"].adapter.description, answer=rule)
    adapter = replace(renamed.targets["cb"].adapter, description=description)
    renamed.targets["cb"] = replace(renamed.targets["cb"], adapter=adapter)
    for old, new in zip(plain.predict(texts), renamed.predict(texts), strict=True):
        assert old.scores is not None
        assert new.prediction == shown.get(old.prediction, old.prediction)
        assert new.scores == {shown[word]: score for word, score in old.scores.items()}
        assert new.score == old.score


@pytest.mark.usefixtures("fresh_accelerator")
@pytest.mark.parametrize("task", CELLS)
def test_the_answers_are_those_that_the_evaluation_scores(trained: World, task: str) -> None:
    """The predictor uses the rule that selected the adapter, and encodes every row once."""
    backbone = load_backbone(trained.folder / "backbone")
    bank = load_experts(trained.folder / "experts", backbone)
    adapter = load_adapter(trained.folder / "targets" / task / CELLS[task], backbone.fingerprint, TargetDescription)
    prepared, tokenizer = PreparedTask.load(trained.folder / "data" / task), backbone.tokenizer
    split = EvaluationSplit.of(prepared.task, prepared.rows("test"), tokenizer, source_length=32, max_rows=None)
    model = restore_target(backbone.model, adapter, bank)
    texts = predict(model, split, tokenizer, Accelerator(cpu=True), rule=ASKED[task], batch_size=4).texts
    assert any(texts)
    assert adapter.description.answer == RULES[task]
    predictor, encoded = load(trained, task), []
    hook = lambda *call: encoded.append(len(call[2]["inputs_embeds"]))  # noqa: E731
    predictor.backbone.model.encoder.register_forward_pre_hook(hook, with_kwargs=True)
    found = predictor.predict(texts_of(trained, task))
    assert [(each.prediction, each.answer) for each in found] == [(text, RULES[task]) for text in texts]
    assert encoded == [4, 4]
    assert all((each.scores is None) == (task == "nq") and 0 < each.score <= 1 for each in found)


def test_a_generated_answer_comes_with_its_probability_and_those_of_the_label_words(trained: World) -> None:
    """The label words have the same probabilities under both rules; that of the generated text is separate."""
    backbone = load_backbone(trained.folder / "backbone")
    bank = load_experts(trained.folder / "experts", backbone)
    adapter = load_adapter(trained.folder / "targets" / "rte" / CELLS["rte"], backbone.fingerprint, TargetDescription)
    generated = load(trained, "rte").predict(texts_of(trained, "rte"))
    scored = load(trained, "rte", rule="score").predict(texts_of(trained, "rte"))
    assert [each.scores for each in generated] == [each.scores for each in scored]
    model, labels, checked = restore_target(backbone.model, adapter, bank).eval(), ("red", "blue"), 0
    for text, each, best in zip(texts_of(trained, "rte"), generated, scored, strict=True):
        assert best.scores is not None
        assert (best.answer, best.prediction) == ("score", max(labels, key=best.scores.__getitem__))
        assert best.score == best.scores[best.prediction]
        source, target = (torch.tensor([backbone.tokenizer(words)["input_ids"]]) for words in (text, each.prediction))
        with torch.no_grad():
            loss = model(source, torch.ones_like(source), target).lm_loss.item()
        if each.prediction in labels:
            assert each.score == pytest.approx(math.exp(-loss * target.shape[1]), rel=1e-4)
            checked += 1
    assert checked


def test_a_mixed_batch_gives_the_answers_of_separate_batches(trained: World) -> None:
    together, rows = load(trained, *CELLS), []
    for position in range(8):
        rows += [{"task": task, "source": texts_of(trained, task)[position]} for task in CELLS]
    found = together.predict(rows)
    for task in CELLS:
        alone = load(trained, task).predict(texts_of(trained, task))
        for one, other in zip([each for each in found if each.task == task], alone, strict=True):
            assert replace(one, score=0, scores=None, expert_weights={}, layers={}) == replace(
                other, score=0, scores=None, expert_weights={}, layers={}
            )
            assert one.score == pytest.approx(other.score, abs=1e-5)
            assert one.scores == (other.scores and pytest.approx(other.scores, abs=1e-5))
            assert one.expert_weights == pytest.approx(other.expert_weights, abs=1e-5)
    assert [each.task for each in found] == list(CELLS) * 8
    assert found[1].expert_weights == {}  # control
    assert list(found[2].expert_weights) == ["alpha"]  # without_beta


def test_targets_share_backbone_and_experts_in_memory(trained: World, tmp_path: Path) -> None:
    shutil.copytree(trained.folder / "targets" / "cb", tmp_path / "rte")  # a second target that mixes the same experts
    cells = {"cb": trained.folder / "targets" / "cb" / CELLS["cb"], "rte": tmp_path / "rte" / CELLS["cb"]}
    change_record(cells["rte"] / "adapter.json", task="rte")
    predictor = load_predictor(
        trained.folder / "backbone",
        trained.folder / "experts",
        cells,
        {task: trained.folder / "data" / task for task in cells},
        {task: get_task(task).conversion for task in cells},
        batch_size=4,
    )
    before = {name: id(module) for name, module in predictor.backbone.model.named_modules()}
    predictor.predict([{"task": task, "source": "text: red"} for task in cells])
    assert {name: id(module) for name, module in predictor.backbone.model.named_modules()} == before
    first, second = predictor.targets.values()
    assert first.mixed.folded is second.mixed.folded
    assert len(first.mixed.folded) == len(list(feed_forwards(predictor.backbone.model)))
    assert first.model is second.model is None  # rows of both are computed by one group


def test_answers_depend_on_batches_only_by_rounding(trained: World) -> None:
    texts = texts_of(trained, "cb")
    one, many = load(trained, "cb", batch_size=1).predict(texts), load(trained, "cb", batch_size=8).predict(texts)
    for first, second in zip(one, many, strict=True):
        assert first.prediction == second.prediction
        assert first.score == pytest.approx(second.score, rel=1e-4)


def test_threads_wait_for_one_another(trained: World) -> None:
    predictor = load(trained, *CELLS)
    rows = {task: [{"task": task, "source": text} for text in texts_of(trained, task)] for task in CELLS}
    expected = {task: predictor.predict(batch) for task, batch in rows.items()}
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(predictor.predict, list(rows.values()) * 3))
    assert found == list(expected.values()) * 3


def test_a_text_longer_than_in_training_is_marked_as_truncated(trained: World) -> None:
    short, cut = load(trained, "cb").predict(["text: red", "text: red" + " stone" * 100])
    assert (short.truncated, cut.truncated) == (False, True)


def test_no_rows_give_no_answers(trained: World) -> None:
    assert load(trained, "cb").predict([]) == []


def test_the_code_of_the_document_runs_unchanged(
    trained: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "docs" / "serving.md").read_text(), flags=re.DOTALL)
    (tmp_path / "adapters").mkdir()
    for name in ("backbone", "data", "experts", "targets"):
        (tmp_path / ("adapters" if name == "targets" else "") / name).symlink_to(trained.folder / name)
    write_params(tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    assert (names["cb"].task, names["rte"].task) == ("cb", "rte")


# Rows


def test_raw_columns_become_the_text_of_training() -> None:
    cb, wsc, record = (get_task(name).conversion for name in ("cb", "wsc", "record"))
    text = "premise: A. hypothesis: B."
    row = {"premise": "A.", "hypothesis": "B.", "other": 1}
    assert text_of_row(row, cb, "row 0") == text
    assert text_of_row(text, cb, "row 0") == text
    assert text_of_row({"source": text, "premise": "A."}, cb, "row 0") == text
    spans = {"span1_text": "Ann", "span1_index": np.int64(0), "span2_text": "she", "span2_index": np.int64(3)}
    marked = "text: * Ann * said that # she # left."
    assert text_of_row({"text": "Ann said that she left.", **spans}, wsc, "") == marked
    beside_missing = {**spans, "span1_index": 0.0, "span2_index": np.float32(3)}  # as pandas has them
    assert text_of_row({"text": "Ann said that she left.", **beside_missing}, wsc, "") == marked
    entities = {"query": "@placeholder left.", "entities": np.array(["Ann", "Bob"]), "passage": "Ann was there."}
    assert text_of_row(entities, record, "") == (
        "record query: @placeholder left. entities: Ann, Bob passage: Ann was there."
    )


def test_numbers_of_an_own_task_are_read_as_in_its_files() -> None:
    conversion = columns_as_text({"subject": "subject", "urgent": "urgent"}, "queue", None, None)
    assert text_of_row({"subject": np.int64(7), "urgent": True}, conversion, "") == "subject: 7 urgent: true"
    assert text_of_row({"subject": np.float32(0.1), "urgent": 0.1}, conversion, "") == "subject: 0.1 urgent: 0.1"


@pytest.mark.parametrize("absent", [None, math.nan, np.float32("nan"), Decimal("nan"), pd.NA, pd.NaT, ""])
def test_an_absent_text_beside_another_is_empty(absent: Any) -> None:
    conversion = columns_as_text({"subject": "subject", "body": "body"}, "queue", None, None)
    assert text_of_row({"subject": absent, "body": "b"}, conversion, "") == "subject: body: b"
    for row in ({"subject": absent, "body": "\ufeff \u00a0"}, {"subject": absent, "body": absent, "source": "web"}):
        with pytest.raises(DataError, match="row 3: there is no value in column 'subject' or 'body'"):
            text_of_row(row, conversion, "row 3")


def test_equal_scores_favour_the_method_listed_first(trained: World, tmp_path: Path) -> None:
    shutil.copytree(trained.folder / "targets" / "cb", tmp_path / "cb")
    for path in tmp_path.glob("cb/*/training.json"):
        change_record(path, validation={"main": 50.0})
    for methods in (["pemt", "control"], ["control", "pemt"], ["pemt"]):
        assert best_on_validation(tmp_path / "cb", "main", methods).name == f"{methods[0]}-kfull-seed4096"


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("cb", {"premise": "A.", "hypotesis": "B."}, r"row 3: .*column 'hypothesis': did you mean 'hypotesis'\?"),
        ("cb", {}, "row 3: .*column 'premise': the row is empty; the task reads premise, hypothesis"),
        ("cb", {"premise": "A.", "hypothesis": 7}, "row 3: 'hypothesis' is 7, expected text"),
        ("cb", {"source": 7}, "row 3: 'source' is 7, expected text"),
        ("cb", {"source": None}, "row 3: there is no value in column 'premise'"),
        ("cb", {"premise": "A.", "hypothesis": None, "source": "web"}, "row 3: .* no value in column 'hypothesis'"),
        (
            "cb",
            {"premise": "A.", "hypothesis": "\ud800"},
            "row 3: 'hypothesis' is .*, '.ud800', is half of a surrogate",
        ),
        ("cb", "A. \udfff", "row 3: 'source' is .* character 4, '.udfff', is half of a surrogate pair"),
        ("record", {"query": "q", "entities": ["a", "\ud800"], "passage": "p"}, "'entities' is '.*is half of a surr"),
        (
            "wsc",
            {"text": "A b", "span1_text": "x", "span1_index": 0, "span2_text": "b", "span2_index": 1},
            "row 3: 'x' at word 0 .* is not in the text",
        ),
        (
            "wsc",
            {"text": "A b", "span1_text": "A", "span1_index": 10**5000, "span2_text": "b", "span2_index": 1e300},
            "row 3: 'A' at word .* or 'b' at word 1000000000.* is not in the text",
        ),
        (
            "wsc",
            {"text": "A b", "span1_text": "A", "span1_index": 0.5, "span2_text": "b", "span2_index": 1},
            "row 3: 'span1_index' is 0.5, expected a whole number, 0 or more",
        ),
    ],
)
def test_an_invalid_row_is_named(task: str, row: str | dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        text_of_row(row, get_task(task).conversion, "row 3")


def test_rows_name_their_target(trained: World) -> None:
    predictor = load(trained, "cb", "rte")
    with pytest.raises(DataError, match=r"row 1: there is no target 'rt' here; did you mean 'rte'\?"):
        predictor.predict([{"task": "cb", "source": "text: red"}, {"task": "rt", "source": "text: red"}])
    for row in ("text: red", {"source": "text: red"}, {"source": "text: red", "task": None}):
        with pytest.raises(DataError, match="row 0: the column 'task' must name its target: cb, rte"):
            predictor.predict([row])
    with pytest.raises(DataError, match=r"row 0: 'task' is \['cb'\], expected the name of its target: cb, rte"):
        predictor.predict([{"source": "text: red", "task": ["cb"]}])
    with pytest.raises(DataError, match="there is no target 'nq'"):
        predictor.predict(["text: red"], task="nq")
    assert predictor.predict(["text: red"], task="rte")[0].task == "rte"


# Missing or mismatched files


def test_a_missing_backbone_is_named_with_the_command_that_restores_it(trained: World, tmp_path: Path) -> None:
    gone = World(tmp_path / "moved")
    shutil.copytree(trained.folder, gone.folder)
    shutil.rmtree(gone.folder / "backbone")
    with pytest.raises(ArtifactError, match=r"backbone: no such folder; cb, rte cannot answer .* `dvc pull backbone`"):
        load(gone, "cb", "rte")


def test_an_adapter_of_other_experts_is_refused(trained: World, tmp_path: Path) -> None:
    other = World(tmp_path / "other")
    shutil.copytree(trained.folder, other.folder)
    manifest = other.folder / "targets" / "cb" / CELLS["cb"] / "adapter.json"
    change_record(manifest, experts="0" * 64)
    with pytest.raises(ArtifactError, match="the experts 000000000000, but the current ones are"):
        load(other, "cb")


def test_the_best_cell_has_the_highest_validation_score(trained: World, tmp_path: Path) -> None:
    shutil.copytree(trained.folder / "targets" / "cb", tmp_path / "cb")
    for cell, score in (("pemt-kfull-seed4096", 60.0), ("control-kfull-seed4096", 61.0)):
        path = tmp_path / "cb" / cell / "training.json"
        change_record(path, validation={**json.loads(path.read_text())["validation"], "main": score})
    assert best_on_validation(tmp_path / "cb", "main", ["pemt"]).name == "control-kfull-seed4096"
    with pytest.raises(SettingsError, match=r"no validation metric 'acuracy'; did you mean 'accuracy'\?"):
        best_on_validation(tmp_path / "cb", "acuracy", [])
    with pytest.raises(
        ArtifactError, match=r"has no trained cell; list wic in tasks\.targets, and `dvc repro transfer@wic`"
    ):
        best_on_validation(tmp_path / "wic", "main", [])


# Self-contained model folders


def write_model(
    world: World,
    folder: Path,
    *,
    include_backbone: bool = True,
    own_texts: dict[str, dict[str, str]] | None = None,
    batch_size: int = 4,
) -> Path:
    write_model_folder(
        folder,
        world.folder / "backbone",
        world.folder / "experts",
        {task: world.folder / "targets" / task / CELLS[task] for task in CELLS},
        world.folder / "data",
        own_texts=own_texts or {},
        include_backbone=include_backbone,
        batch_size=batch_size,
    )
    return folder


def answers(predictor: Predictor, world: World) -> dict[str, list[Prediction]]:
    return {task: predictor.predict(texts_of(world, task), task=task) for task in CELLS}


def test_a_model_folder_gives_the_same_answers_as_the_pipelines_folders(trained: World, tmp_path: Path) -> None:
    folder = write_model(trained, tmp_path / "model").rename(tmp_path / "moved")
    assert answers(load_model_folder(folder), trained) == answers(load(trained, *CELLS), trained)


def test_a_model_folder_knows_the_columns_of_an_own_task(trained: World, tmp_path: Path) -> None:
    folder = write_model(trained, tmp_path / "model", own_texts={"cb": {"text": "body"}})
    predictor = load_model_folder(folder)
    assert predictor.predict([{"body": "red lamp"}], task="cb") == predictor.predict(["text: red lamp"], task="cb")
    with pytest.raises(DataError, match="no value in column 'body'"):
        predictor.predict([{"premise": "A.", "hypothesis": "B."}], task="cb")


def test_a_model_folder_may_refer_to_its_backbone(trained: World, tmp_path: Path) -> None:
    copy = World(tmp_path / "project")
    shutil.copytree(trained.folder, copy.folder)
    folder = write_model(copy, tmp_path / "model", include_backbone=False)
    assert not (folder / "backbone").exists()
    expected = answers(load(trained, *CELLS), trained)
    assert answers(load_model_folder(folder), trained) == expected
    moved = (copy.folder / "backbone").rename(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match="project/backbone: no such folder; cb, rte, nq cannot answer"):
        load_model_folder(folder)
    assert answers(load_model_folder(folder, moved), trained) == expected


def test_a_model_folder_that_was_altered_is_refused(trained: World, tmp_path: Path) -> None:
    folder = write_model(trained, tmp_path / "model")
    change_record(folder / "model.json", batch_size="many")
    with pytest.raises(ArtifactError, match=r"model\.json: not a model's description"):
        load_model_folder(folder)
    (folder / "model.json").write_text((folder / "model.json").read_text().replace("many", "some"))
    with pytest.raises(ArtifactError, match=r"model\.json: altered: .*; register the model again"):
        load_model_folder(folder)


# Files


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


Write = Callable[[Path, Sequence[dict[str, Any]]], Path]
WRITERS: dict[str, Write] = {".csv": write_csv, ".jsonl": write_jsonl, ".parquet": write_parquet}


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the output of predict_file, with maps and numbers as Python values."""
    if path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
        maps = ("scores", "expert_weights")
        return [{n: dict(v) if n in maps and v is not None else v for n, v in row.items()} for row in rows]
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    texts = ("task", "prediction", "answer", "name")
    return [{n: (v if n in texts else json.loads(v) if v else None) for n, v in row.items()} for row in rows]


@pytest.mark.parametrize("ending", WRITERS)
def test_every_file_format_gives_the_answers_of_its_rows(trained: World, tmp_path: Path, ending: str) -> None:
    predictor = load(trained, *CELLS)
    rows = [
        {"name": f"{task} ä{n}", "task": task, "source": f'{text}, "said"\nthe lamp'}
        for task in CELLS
        for n, text in enumerate(texts_of(trained, task))
    ]
    expected = [
        {"row": n, "name": row["name"], "task": each.task, "prediction": each.prediction, "answer": each.answer,
         "score": each.score, "scores": each.scores, "expert_weights": each.expert_weights, "truncated": each.truncated}
        for n, (row, each) in enumerate(zip(rows, predictor.predict(rows), strict=True))
    ]  # fmt: skip
    given = WRITERS[ending](tmp_path / f"rows{ending}", rows)
    for output in WRITERS:
        path = tmp_path / f"answers{output}"
        assert predict_file(predictor, given, path, keep=["name"]) == len(rows)
        assert read_rows(path) == expected


def test_rows_are_numbered_through_all_parts(trained: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pemt_core.prediction.files.CHUNK_ROWS", 3)
    given = write_jsonl(tmp_path / "rows.jsonl", [{"source": f"text: red {n}"} for n in range(8)])
    predict_file(load(trained, "cb"), given, tmp_path / "answers.jsonl")
    assert [row["row"] for row in read_rows(tmp_path / "answers.jsonl")] == list(range(8))


PEAK = """
import resource, sys
from components.predict import main, make_parser

main(make_parser().parse_args(sys.argv[1:]))
print(sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(trained: World, tmp_path: Path) -> None:
    """The file grows fourfold; benchmarks/prediction_memory.py goes up to 100,000 rows."""
    write_model(trained, tmp_path / "model", batch_size=500)
    peaks = []
    for num_rows in (2_500, 10_000):
        rows = write_csv(tmp_path / "rows.csv", [{"task": "cb", "source": f"text: red {n}"} for n in range(num_rows)])
        words = [rows, "--output", tmp_path / "answers.csv", "--model", tmp_path / "model", "--workers", 2]
        command = [sys.executable, "-c", PEAK, *map(str, words)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[0] == f"{tmp_path / 'answers.csv'}: {num_rows:,} rows"
        peaks.append(int(done.stdout.splitlines()[-1]) / 1024)
    assert peaks[1] - peaks[0] < 16  # MiB


GOOD = b"source\ntext: red\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.txt", GOOD, r"rows\.txt: the ending '\.txt' is unknown; choose from: \.csv, \.jsonl, \.parquet"),
        ("rows.csv", b"source\n", r"rows\.csv: no rows; expected rows with source"),
        ("rows.csv", GOOD + b'"text: red', r"rows\.csv, line 3: not readable as CSV \(unexpected end of data\)"),
        ("rows.csv", b"sorce\ntext\n", r"rows\.csv, line 2, task cb: there is no value in column 'premise'"),
        ("rows.jsonl", b'{"source": 3}\n', r"rows\.jsonl, line 1, task cb: 'source' is 3, expected text"),
        ("rows.csv", b"premise,hypothesis,source\n,,web\n", r"line 2, task cb: .* in column 'premise' or 'hypothesis'"),
        ("rows.parquet", GOOD, r"rows\.parquet: not readable as parquet"),
    ],
)
def test_a_bad_file_is_named_and_nothing_is_written(
    trained: World, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    answers = tmp_path / "answers.csv"
    answers.write_text("what stood there before")
    with pytest.raises(DataError, match=message):
        predict_file(load(trained, "cb"), tmp_path / name, answers)
    assert answers.read_text() == "what stood there before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["answers.csv", name]


def test_missing_files_and_columns_to_keep_are_named(trained: World, tmp_path: Path) -> None:
    predictor, given = load(trained, "cb"), tmp_path / "rows.csv"
    with pytest.raises(DataError, match=r"rows\.csv: no such file"):
        predict_file(predictor, given, tmp_path / "answers.csv")
    given.write_bytes(b"name,source\na,text: red\n")
    (tmp_path / "halves.jsonl").write_text(r'{"source": "text: red", "name": "\ud800", "\udfff": 1}')
    for keep, message in (
        (["name"], r"halves\.jsonl, line 1: 'name' is '.*is half of a surrogate pair"),
        (["\udfff"], r"the column '.udfff' cannot be kept: its name is not Unicode text"),
    ):
        with pytest.raises(DataError, match=message):
            predict_file(predictor, tmp_path / "halves.jsonl", tmp_path / "answers.csv", keep=keep)
    for keep, message in (
        (["nam"], r"line 2: there is no column 'nam' to keep; did you mean 'name'\?"),
        (["score"], "the column 'score' cannot be kept"),
        (["name", "name"], "the column 'name' to keep is given twice"),
    ):
        with pytest.raises(PemtError, match=message):
            predict_file(predictor, given, tmp_path / "answers.csv", keep=keep)


def test_unused_columns_are_not_read(trained: World, tmp_path: Path) -> None:
    """One of these columns holds a date that Python cannot represent; a message still names all columns."""
    far = pa.array([2**31 - 1], pa.date32())
    pq.write_table(pa.table({"name": ["a"], "source": ["text: red"], "far": far}), tmp_path / "rows.parquet")
    predictor, answers = load(trained, "cb"), tmp_path / "answers.jsonl"
    assert predict_file(predictor, tmp_path / "rows.parquet", answers, keep=["name"]) == 1
    with pytest.raises(DataError, match=r"row 1: the value of column 'far' is not readable \(days=2147483647; must"):
        predict_file(predictor, tmp_path / "rows.parquet", answers, keep=["far"])
    pq.write_table(pa.table({"premise": ["a"], "hypotesis": ["b"], "far": far}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows\.parquet, row 1, task cb: .* did you mean 'hypotesis'"):
        predict_file(predictor, tmp_path / "rows.parquet", answers)


def test_values_to_keep_are_copied_as_text(trained: World, tmp_path: Path) -> None:
    kept = {
        "single": pa.array([0.1], pa.float32()),
        "day": [date(2026, 11, 28)],
        "huge": [math.inf],
        "flag": [True],
        "list": [["é", None]],
        "record": [{"whole": 1, "day": date(2026, 11, 28)}],
        "nothing": pa.array([None], pa.string()),
    }
    pq.write_table(pa.table({"source": ["text: red"], **kept}), tmp_path / "rows.parquet")
    predict_file(load(trained, "cb"), tmp_path / "rows.parquet", tmp_path / "answers.jsonl", keep=list(kept))
    (row,) = read_rows(tmp_path / "answers.jsonl")
    assert [row[name] for name in kept] == [
        "0.1", "2026-11-28", "inf", "true", '["é", null]', '{"whole": 1, "day": "2026-11-28"}', None,
    ]  # fmt: skip


def test_the_path_that_is_meant_is_named(trained: World, tmp_path: Path) -> None:
    """Before any row is read; the superuser may read and write every file, so permissions are not tested here."""
    predictor, given = load(trained, "cb"), tmp_path / "rows.csv"
    given.write_bytes(GOOD)
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "parts.parquet").mkdir()
    (tmp_path / "parts.parquet" / "part-0.parquet").touch()
    os.mkfifo(tmp_path / "pipe.csv")
    for input_path, output_path, message in (
        (given, tmp_path / "folder.csv", r"folder\.csv: is a folder; name a file in it for the answers"),
        (given, given / "answers.csv", r"rows\.csv/answers\.csv: cannot be written: .*rows\.csv is not a folder"),
        (given, Path("/proc/answers.csv"), "/proc/answers.csv: cannot be written"),
        (tmp_path / "folder.csv", tmp_path / "answers.csv", r"folder\.csv: is a folder; name one file in it$"),
        (
            tmp_path / "parts.parquet",
            tmp_path / "answers.csv",
            r"name one file in it: .*parts\.parquet/part-0\.parquet",
        ),
        (tmp_path / "pipe.csv", tmp_path / "answers.csv", r"pipe\.csv: is a pipe or a device, expected a file"),
        (tmp_path / f"{'x' * 300}.csv", tmp_path / "answers.csv", r"x\.csv: cannot be read \(File name too long\)"),
    ):
        with pytest.raises(PemtError, match=message):
            predict_file(predictor, input_path, output_path)


def rows_file(folder: Path, num_rows: int) -> Path:
    """Rows of all targets in turn, of different lengths."""
    tasks = list(CELLS)
    rows = [
        {"task": tasks[n % 3], "name": f"n{n}", "source": "text: red" + " stone" * (n % 7)} for n in range(num_rows)
    ]
    return write_jsonl(folder / "rows.jsonl", rows)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of three rows, so that a file of some rows has many."""
    monkeypatch.setattr("pemt_core.prediction.files.CHUNK_ROWS", 3)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("ending", WRITERS)
def test_the_file_is_the_same_for_any_number_of_workers(trained: World, tmp_path: Path, ending: str) -> None:
    """Rows are in their order, and the answers are those of each part alone."""
    predictor, given = load(trained, *CELLS), rows_file(tmp_path, 32)
    written = []
    for workers in (1, 2, 3, None):
        path = tmp_path / f"answers-{workers}{ending}"
        assert predict_file(predictor, given, path, keep=["name"], workers=workers) == 32
        written.append(path.read_bytes())
    assert written == [written[0]] * 4
    rows, found = read_rows(given), read_rows(path)
    expected = [each for n in range(0, 32, 3) for each in predictor.predict(rows[n : n + 3])]
    assert [row["name"] for row in found] == [row["name"] for row in rows]
    assert [(row["row"], row["prediction"], row["score"]) for row in found] == [
        (n, each.prediction, each.score) for n, each in enumerate(expected)
    ]
    assert multiprocessing.active_children() == []


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_far_into_the_file_is_the_first_one_and_nothing_is_written(
    trained: World, tmp_path: Path, workers: int
) -> None:
    given = rows_file(tmp_path, 20)
    with given.open("a") as file:
        file.write('{"task": "rt", "source": "text: red"}\nnot json\n')
    with pytest.raises(DataError, match=r"rows\.jsonl, line 21: there is no target 'rt' here; did you mean 'rte'\?"):
        predict_file(load(trained, *CELLS), given, tmp_path / "answers.csv", workers=workers)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
    assert multiprocessing.active_children() == []


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_large_file_is_read_only_a_few_parts_ahead(
    trained: World, tmp_path: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever a part is written, few parts that are read are unwritten, so that memory is bounded."""
    predictor, read, ahead = load(trained, *CELLS), [0], []
    tokenize, answer, second = predictor.read, predictor.answer, threading.Event()

    def counted(*given: Any, **options: Any) -> list[ReadRow]:
        read[0] += 1
        if read[0] == 2:
            second.set()
        return tokenize(*given, **options)

    def answered(rows: Sequence[ReadRow]) -> list[Prediction]:
        assert second.wait(60)  # the next part is tokenized before this one is answered
        return answer(rows)

    def write(parts: Iterator[list[dict[str, Any]]], schema: pa.Schema, path: Path) -> int:
        ahead.extend(read[0] - written for written, _ in enumerate(parts))
        return path.write_bytes(b"")

    monkeypatch.setattr(predictor, "read", counted)
    monkeypatch.setattr(predictor, "answer", answered)
    monkeypatch.setitem(pemt_core.prediction.files.WRITERS, ".csv", write)  # type: ignore[arg-type]
    predict_file(predictor, rows_file(tmp_path, 90), tmp_path / "answers.csv", workers=workers)
    assert (len(ahead), read[0]) == (30, 30)
    assert max(ahead) <= 2 * workers + 2


STOPPED = """
import os, sys
from pathlib import Path
from components.command import run
from components.predict import main, make_parser
import pemt_core.prediction.files, pemt_core.prediction.parts
from pemt_core.prediction.predictor import Predictor

pemt_core.prediction.files.CHUNK_ROWS = 3
answer = Predictor.answer

def slow(*given):
    Path("pids", str(os.getpid())).touch()
    Path("held").open().read()  # a pipe that nobody writes to
    return answer(*given)

Predictor.answer = slow
run(main, make_parser())
"""


@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_workers_end_with_the_program_and_a_killed_one_is_named(
    trained: World, tmp_path: Path, ends: signal.Signals
) -> None:
    """SIGINT reaches the program and its workers, as from a terminal; SIGKILL reaches one worker."""
    write_model(trained, tmp_path / "model")
    rows_file(tmp_path, 30)
    (tmp_path / "pids").mkdir()
    os.mkfifo(tmp_path / "held")
    words = ["rows.jsonl", "--output", "answers.csv", "--model", "model", "--workers", "2"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED, *words], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        env=environment, start_new_session=True,
    ) as program:  # fmt: skip
        while len(found := list((tmp_path / "pids").iterdir())) < 2:
            assert program.poll() is None, program.stderr and program.stderr.read()
            time.sleep(0.05)
        workers = [psutil.Process(int(path.name)) for path in found]
        if ends == signal.SIGKILL:
            workers[0].kill()
        elif ends == signal.SIGINT:
            os.killpg(program.pid, ends)
        else:
            program.send_signal(ends)
        _, errors = program.communicate(timeout=60)
    code, message = {
        signal.SIGINT: (130, "stopped by SIGINT"),
        signal.SIGTERM: (143, "stopped by SIGTERM"),
        signal.SIGKILL: (
            1,
            "error: a worker was killed, perhaps for lack of memory; nothing is written. Ask for fewer",
        ),
    }[ends]
    assert program.returncode == code
    assert (message in errors) == (ends == signal.SIGKILL)
    assert "Traceback" not in errors
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    assert not (tmp_path / "answers.csv").exists()
    assert not list(tmp_path.glob(".answers*"))


@pytest.mark.parametrize(
    ("asked", "parameters", "planned"),
    [
        (None, SINGLE_THREADED - 1, Schedule(4, True)),
        (1, SINGLE_THREADED - 1, Schedule(1, True)),
        (None, SINGLE_THREADED, Schedule(1, False)),
        (1, SINGLE_THREADED, Schedule(1, True)),
        (3, SINGLE_THREADED, Schedule(3, True)),
    ],
)
def test_workers_that_are_asked_for_have_one_thread(
    asked: int | None, parameters: int, planned: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("joblib.cpu_count", lambda: 4)
    assert Schedule.of_predictions(asked, parameters, torch.device("cpu")) == planned
    assert Schedule.of_predictions(None, parameters, torch.device("cuda")) == Schedule(1, False)
    with pytest.raises(SettingsError, match="workers is 2: expected 1, as the model is on cuda"):
        Schedule.of_predictions(2, parameters, torch.device("cuda"))
    with pytest.raises(SettingsError, match="workers is 0: expected at least 1"):
        Schedule.of_predictions(0, parameters, torch.device("cpu"))
