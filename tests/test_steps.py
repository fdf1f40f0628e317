"""Output of steps on toy data: the cells that stage 2 trains, the results of evaluate, and what each step reuses."""

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score
from tiny import METHODS, World, change_record, change_rows, transfer_settings, write_task

from pemt_core.answering.rule import AnswerRule
from pemt_core.artifacts.cell import Cell
from pemt_core.artifacts.cost import load_cost
from pemt_core.artifacts.description import TargetDescription, load_description, load_training_record
from pemt_core.artifacts.experts import load_experts
from pemt_core.artifacts.files import read_json
from pemt_core.artifacts.result import STACKS, CellResult
from pemt_core.artifacts.run_info import RunInfo
from pemt_core.backbone.shapes import outline
from pemt_core.backbone.store import load_backbone
from pemt_core.data.prepared import PreparedTask, load_task_description, write_description
from pemt_core.errors import ArtifactError, DataError, SettingsError, TrainingError
from pemt_core.processes.schedule import SINGLE_THREADED, Schedule
from pemt_core.settings import EvaluateSettings
from pemt_core.steps import evaluate as evaluate_module
from pemt_core.steps.collect_experts import collect_experts
from pemt_core.steps.evaluate import evaluate
from pemt_core.steps.transfer import TargetTransfer, transfer
from pemt_core.training import target as target_module
from pemt_core.training.run import SilentRun
from pemt_core.training.target import Target
from pemt_core.training.task_data import TaskData

CELLS = ["pemt-kfull-seed1", "pemt-kfull-seed2"]
BRIEFLY: dict[str, Any] = {"learning_rates": [0.1], "epochs": 8, "evaluate_every": 100}  # gets some labels right
SETTINGS = EvaluateSettings(answer="generate", batch_size=3, precision="float32", max_rows=None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, world: World) -> World:
    """The world with two trained targets of two cells each."""
    folder = tmp_path_factory.mktemp("trained") / "world"
    shutil.copytree(world.folder, folder)
    copy = World(folder)
    write_task(folder / "data", "delta")
    copy.transfer(folder / "targets" / "gamma", **BRIEFLY, seeds=[1, 2])
    copy.transfer(folder / "targets" / "delta", task="delta", max_steps=1, seeds=[1, 2])  # generates no label word yet
    return copy


def targets_of(world: World, *names: str) -> dict[str, Path]:
    return {name: world.folder / "targets" / name for name in names}


def score(world: World, output: Path, *names: str, settings: EvaluateSettings = SETTINGS) -> list[str]:
    """Run evaluate on the named targets; return the cells that it scored."""
    folder = world.folder
    done: list[str] = evaluate(
        targets_of(world, *names), folder / "data", folder / "backbone", folder / "experts", settings, output_dir=output
    )
    return done


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def predictions_of(cell: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (cell / "predictions.jsonl").read_text().splitlines()]


# evaluate


def test_evaluate_scores_new_cells_and_removes_old_ones(
    trained: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(shutil.copytree(trained.folder, tmp_path / "world"))
    output = tmp_path / "results"
    assert score(world, output, "gamma") == [f"gamma/{cell}" for cell in CELLS]
    first = contents(output)
    assert score(world, output, "gamma") == []
    assert contents(output) == first
    assert score(world, output, "gamma", "delta") == [f"delta/{cell}" for cell in CELLS]
    assert {path: data for path, data in contents(output).items() if path.startswith("gamma")} == first

    world.transfer(world.folder / "targets" / "gamma", **BRIEFLY, seeds=[2, 3])  # seed 2 gives the same cell as before
    assert score(world, output, "gamma") == ["gamma/pemt-kfull-seed3"]
    assert sorted(path.name for path in output.iterdir()) == ["gamma"]
    assert sorted(path.name for path in (output / "gamma").iterdir()) == ["pemt-kfull-seed2", "pemt-kfull-seed3"]

    fewer = SETTINGS.model_copy(update={"max_rows": 5})
    assert len(score(world, output, "gamma", settings=fewer)) == 2
    monkeypatch.setattr(evaluate_module, "code_hash", lambda *modules: f"another {modules}")  # a change of code
    assert len(score(world, output, "gamma", settings=fewer)) == 2
    assert score(world, output, "gamma", settings=fewer) == []


def test_results_do_not_depend_on_the_number_of_workers(trained: World, tmp_path: Path) -> None:
    folder = trained.folder
    for workers in (1, 2, 3):
        targets = targets_of(trained, "gamma", "delta")
        places = folder / "data", folder / "backbone", folder / "experts"
        scored = evaluate(targets, *places, SETTINGS, output_dir=tmp_path / str(workers), workers=workers)
        assert scored == [f"{target}/{cell}" for target in ("gamma", "delta") for cell in CELLS]
    one, *others = (contents(tmp_path / str(workers)) for workers in (1, 2, 3))
    assert others == [one, one]
    with pytest.raises(SettingsError, match="workers is 0: expected at least 1"):
        evaluate(targets, *places, SETTINGS, output_dir=tmp_path / "none", workers=0)


def test_evaluate_scores_listed_cells_beside_others(trained: World, tmp_path: Path) -> None:
    output, (first, second) = tmp_path / "results", (Cell("gamma", "pemt", "full", seed) for seed in (1, 2))

    def listed(*cells: Cell, name: str = "gamma", **changes: Any) -> list[str]:
        folder = trained.folder
        return evaluate(
            targets_of(trained, name), folder / "data", folder / "backbone", folder / "experts", SETTINGS,
            output_dir=output, cells=cells, **changes,
        )  # fmt: skip

    assert listed(first, keep_others=True) == [f"gamma/{CELLS[0]}"]
    assert listed(second, keep_others=True) == [f"gamma/{CELLS[1]}"]
    assert listed(Cell("delta", "pemt", "full", 1), name="delta", keep_others=True) == [f"delta/{CELLS[0]}"]
    assert {f"{path.parent.name}/{path.name}" for path in output.glob("*/*")} == {
        *(f"gamma/{cell}" for cell in CELLS), f"delta/{CELLS[0]}",
    }  # fmt: skip
    assert listed(second) == []
    assert [path.name for path in output.glob("*/*")] == [CELLS[1]]
    with pytest.raises(ArtifactError, match=r"pemt-kfull-seed7: is not trained; run the transfer step for 'gamma'"):
        listed(Cell("gamma", "pemt", "full", 7))


def test_results_describe_the_gates_over_the_rows(trained: World, tmp_path: Path) -> None:
    """The same for batches of any size, and within the bounds of a distribution."""
    found = []
    for size in (1, 8):
        output = tmp_path / str(size)
        score(trained, output, "gamma", settings=SETTINGS.model_copy(update={"batch_size": size}))
        found.append(CellResult.load(output / "gamma" / CELLS[0]))
    layers = [[layer for stack in STACKS for layer in (result.gates or {})[stack]] for result in found]
    assert len(layers[0]) == sum(map(len, (found[0].expert_weights or {}).values()))
    for one, other in zip(*layers, strict=True):
        assert one == pytest.approx(other, abs=1e-5)
        assert 0 <= (one["entropy"] or 0) <= 1
        assert one["deviation"] < 0.5
    assert any(layer["deviation"] for layer in layers[0])


def test_predictions_show_the_users_labels_and_scores_stay(trained: World, tmp_path: Path) -> None:
    """The model writes `red`; the user knows it as `rot`."""
    world = World(shutil.copytree(trained.folder, tmp_path / "world"))
    score(world, tmp_path / "before", "gamma")
    folder = world.folder / "data" / "gamma"
    write_description(folder, replace(load_task_description(folder), shown={"red": "rot ²"}))
    score(world, tmp_path / "after", "gamma")
    for cell in CELLS:
        old, new = (predictions_of(tmp_path / which / "gamma" / cell) for which in ("before", "after"))
        assert any(row["references"] == ["rot ²"] for row in new)
        as_before = json.loads(json.dumps(new).replace(json.dumps("rot ²"), json.dumps("red")))
        assert as_before == old
        results = [read_json(tmp_path / which / "gamma" / cell / "result.json") for which in ("before", "after")]
        assert results[0]["test"] == results[1]["test"]
        assert results[0]["unreadable"] == results[1]["unreadable"]


@pytest.mark.parametrize("file", ["result.json", "predictions.jsonl", "inputs.json"])
def test_a_damaged_result_is_scored_again(trained: World, tmp_path: Path, file: str) -> None:
    score(trained, tmp_path, "gamma")
    before, path = contents(tmp_path), tmp_path / "gamma" / CELLS[0] / file
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)
    assert score(trained, tmp_path, "gamma") == [f"gamma/{CELLS[0]}"]
    assert contents(tmp_path) == before


def test_what_a_kill_left_among_results_and_cells_is_removed(trained: World, tmp_path: Path) -> None:
    world = World(shutil.copytree(trained.folder, tmp_path / "world"))
    score(world, tmp_path / "results", "gamma")
    before = contents(tmp_path)
    for folder in (tmp_path / "results" / "gamma", world.folder / "targets" / "gamma"):
        shutil.copytree(folder / CELLS[0], folder / f".{CELLS[0]}.12ab.tmp")
        (folder / ".gone-kfull-seed1.12ab.lock").touch()
    world.transfer(world.folder / "targets" / "gamma", **BRIEFLY, seeds=[1, 2])
    assert score(world, tmp_path / "results", "gamma") == []
    assert contents(tmp_path) == before


def test_inputs_of_another_task_or_cell_are_refused(trained: World, tmp_path: Path) -> None:
    world = World(shutil.copytree(trained.folder, tmp_path / "world"))
    data, cells = world.folder / "data", world.folder / "targets" / "gamma"
    shutil.copytree(data / "delta", data / "alias")
    with pytest.raises(ArtifactError, match="data/alias: is the data of 'delta', expected that of 'alias'"):
        world.transfer(tmp_path / "out", task="alias")
    with pytest.raises(ArtifactError, match="data/alias: is the data of 'delta', expected that of 'alias'"):
        world.train_source(tmp_path / "out", task="alias")
    (cells / CELLS[0]).rename(cells / "pemt-kfull-seed9")
    with pytest.raises(ArtifactError, match=f"seed9: holds the cell gamma/{CELLS[0]}; it was copied or renamed"):
        score(world, tmp_path / "results", "gamma")
    shutil.rmtree(world.folder / "targets" / "delta")
    shutil.copytree(cells / CELLS[1], world.folder / "targets" / "delta" / CELLS[1])
    with pytest.raises(ArtifactError, match=f"delta/{CELLS[1]}: holds the cell gamma/{CELLS[1]}"):
        score(world, tmp_path / "results", "delta")
    assert not (tmp_path / "out").exists()


def test_changed_data_is_scored_again(trained: World, tmp_path: Path) -> None:
    world = World(shutil.copytree(trained.folder, tmp_path / "world"))
    score(world, tmp_path / "results", "gamma", "delta")
    change_rows(world.folder / "data" / "gamma", "test", lambda table: table.slice(1))
    assert score(world, tmp_path / "results", "gamma", "delta") == [f"gamma/{cell}" for cell in CELLS]


def test_a_changed_setting_that_moves_no_tensor_is_scored_again(trained: World, tmp_path: Path) -> None:
    """source_length truncates test rows too, so changing it can change the score without changing the tensors."""
    world = World(shutil.copytree(trained.folder, tmp_path / "world"))
    score(world, tmp_path / "results", "gamma")
    path = world.folder / "targets" / "gamma" / CELLS[0] / "adapter.json"
    change_record(path, settings={**json.loads(path.read_text())["settings"], "source_length": 3})
    assert score(world, tmp_path / "results", "gamma") == [f"gamma/{CELLS[0]}"]


@pytest.mark.parametrize("task", ["gamma", "delta"])
def test_the_score_follows_from_the_predictions(task: str, trained: World, tmp_path: Path) -> None:
    score(trained, tmp_path, task)
    rows = pq.read_table(trained.folder / "data" / task / "test.parquet").to_pylist()
    unreadable = 0
    for name in CELLS:
        found, result = predictions_of(tmp_path / task / name), CellResult.load(tmp_path / task / name)
        shown = [(row["id"], row["text"], row["references"]) for row in found]
        assert shown == [(row["id"], row["source"], row["references"]) for row in rows]
        texts = [row["prediction"] for row in found]
        assert result.test == {"accuracy": 100 * accuracy_score([row["target"] for row in rows], texts)}
        assert result.unreadable == sum(text not in ("red", "blue") for text in texts)
        assert (result.test_rows, result.test_rows_available, result.capped) == (8, 8, False)
        unreadable += result.unreadable
    assert (unreadable > 0) == (task == "delta")


def test_the_rule_of_the_settings_answers_the_test(trained: World, tmp_path: Path) -> None:
    """delta does not generate label words yet, so only the most probable label is a readable answer."""
    scored = SETTINGS.model_copy(update={"answer": "score"})
    found = []
    for settings in (SETTINGS, scored):
        assert score(trained, tmp_path, "delta", settings=settings) == [f"delta/{cell}" for cell in CELLS]
        found.append(CellResult.load(tmp_path / "delta" / CELLS[0]))
        texts = {row["prediction"] for row in predictions_of(tmp_path / "delta" / CELLS[0])}
        assert (texts <= {"red", "blue"}) == (settings is scored)
    assert [(result.answer, result.unreadable) for result in found] == [("generate", 8), ("score", 0)]


def test_a_result_records_its_inputs(trained: World, tmp_path: Path) -> None:
    score(trained, tmp_path, "gamma")
    adapter = trained.folder / "targets" / "gamma" / CELLS[0]
    description, content_hash = load_description(adapter, TargetDescription)
    record, result = load_training_record(adapter), CellResult.load(tmp_path / "gamma" / CELLS[0])
    assert (result.artifact, result.data, result.backbone) == (content_hash, description.data, description.backbone)
    assert (result.cell, result.key, result.learning_rate) == (description.cell, description.key, record.learning_rate)
    assert (result.history, result.validation) == (record.history, record.validation)
    assert result.settings == description.settings
    assert result.sources == list(World.SOURCES)
    tensors = load_file(adapter / "adapter.safetensors")
    assert result.trained_parameters == sum(tensor.numel() for tensor in tensors.values())
    assert result.expert_weights is not None
    shapes = {stack: np.shape(weights) for stack, weights in result.expert_weights.items()}
    assert shapes == {"encoder": (2, 2), "decoder": (3, 2)}
    for weights in result.expert_weights.values():
        assert np.sum(weights, axis=1) == pytest.approx(1.0)


def test_a_limit_on_rows_is_recorded(trained: World, tmp_path: Path) -> None:
    score(trained, tmp_path / "all", "gamma")
    score(trained, tmp_path / "some", "gamma", settings=SETTINGS.model_copy(update={"max_rows": 5}))
    some = tmp_path / "some" / "gamma" / CELLS[0]
    result = CellResult.load(some)
    assert (result.test_rows, result.test_rows_available, result.capped) == (5, 8, True)
    assert predictions_of(some) == predictions_of(tmp_path / "all" / "gamma" / CELLS[0])[:5]


def test_predictions_do_not_depend_on_the_batch(trained: World, tmp_path: Path) -> None:
    score(trained, tmp_path / "three", "gamma")
    score(trained, tmp_path / "one", "gamma", settings=SETTINGS.model_copy(update={"batch_size": 1}))
    for name in CELLS:
        three, one = (tmp_path / size / "gamma" / name for size in ("three", "one"))
        assert predictions_of(three) == predictions_of(one)
        weights = [CellResult.load(cell).expert_weights for cell in (three, one)]
        assert weights[0] is not None
        assert weights[1] is not None
        for stack in ("encoder", "decoder"):
            assert np.asarray(weights[0][stack]) == pytest.approx(np.asarray(weights[1][stack]), rel=1e-5)


def test_other_experts_are_an_error_that_names_both(trained: World, tmp_path: Path) -> None:
    """Experts differ if their tensors differ; each is found by its source, at any position in the file."""
    world = World(shutil.copytree(trained.folder, tmp_path / "world"))
    collect(world, "beta", "alpha")
    assert len(score(world, tmp_path / "in another order", "gamma")) == 2
    mixed = mixture_of(world, "alpha", "beta")
    world.train_source(world.folder / "adapters" / "alpha", seed=8, epochs=1)
    collect(world, "alpha", "beta")
    at_hand = mixture_of(world, "alpha", "beta")
    with pytest.raises(ArtifactError, match=f"the experts {mixed[:12]}, but the current ones are {at_hand[:12]}"):
        score(world, tmp_path / "results", "gamma")
    assert not (tmp_path / "results" / "gamma" / CELLS[0]).exists()


def test_a_target_without_a_cell_is_an_error(trained: World, tmp_path: Path) -> None:
    world = World(shutil.copytree(trained.folder, tmp_path / "world"))
    for cell in CELLS:
        shutil.rmtree(world.folder / "targets" / "gamma" / cell)
    with pytest.raises(ArtifactError, match="has no trained cell; the transfer step has not run for 'gamma'"):
        score(world, tmp_path / "results", "gamma")


# transfer


def test_the_learning_rate_that_is_best_on_validation_is_kept(world: World, tmp_path: Path) -> None:
    rates = [0.1, 0.03, 1e-6]
    world.transfer(tmp_path / "all", learning_rates=rates, epochs=8)
    cell = tmp_path / "all" / "pemt-kfull-seed4096"
    record = load_training_record(cell)
    assert list(record.trials) == ["0.1", "0.03", "1e-06"]
    best = max(rates, key=lambda rate: record.trials[f"{rate:g}"])
    assert record.trials[f"{best:g}"] > record.trials["1e-06"]  # otherwise the choice would prove nothing
    assert record.learning_rate == best
    assert record.validation["main"] == record.trials[f"{best:g}"]

    world.transfer(tmp_path / "alone", learning_rates=[best], epochs=8)
    alone = tmp_path / "alone" / "pemt-kfull-seed4096"
    assert (alone / "adapter.safetensors").read_bytes() == (cell / "adapter.safetensors").read_bytes()
    assert replace(load_training_record(alone), trials={}) == replace(record, trials={})


def test_every_method_k_and_seed_is_a_cell(world: World, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"methods": ["pemt", "control"], "k": ["full", 2], "seeds": [1, 2], "max_steps": 1}
    cells = world.transfer(tmp_path / "gamma", **changes).cells
    names = [cell.name for cell in cells]
    assert len(names) == 8
    assert sorted(names) == sorted(path.name for path in (tmp_path / "gamma").iterdir())
    for name in names:
        description, _ = load_description(tmp_path / "gamma" / name, TargetDescription)
        assert f"{description.method}-k{description.k}-seed{description.seed}" == name
        assert description.sources == (list(World.SOURCES) if description.method == "pemt" else [])
    control = load_file(tmp_path / "gamma" / "control-kfull-seed1" / "adapter.safetensors")
    assert not [tensor for tensor in control if "gate" in tensor]
    assert not (tmp_path / "checkpoints").exists() or not list((tmp_path / "checkpoints").iterdir())


def test_the_rule_selects_and_is_recorded(world: World, tmp_path: Path) -> None:
    """After one step the model generates no label word, so only their probabilities tell checkpoints apart."""
    write_task(tmp_path / "data", "free")
    task = load_task_description(tmp_path / "data" / "free")
    write_description(tmp_path / "data" / "free", replace(task, labels=None, generation_length=3))
    asked: dict[str, tuple[Path, AnswerRule]] = {
        "generate": (world.folder / "data" / "gamma", "generate"),
        "score": (world.folder / "data" / "gamma", "score"),
        "free": (tmp_path / "data" / "free", "score"),
    }
    found = {}
    for name, (data, answer) in asked.items():
        settings = transfer_settings(task=data.name, answer=answer, max_steps=1)
        transfer(
            [TargetTransfer(settings, data, tmp_path / name)],
            world.folder / "backbone",
            world.folder / "experts",
            checkpoint_dir=tmp_path / "checkpoints",
            open_run=RecordedRuns().open,
            workers=1,
        )
        cell = tmp_path / name / "pemt-kfull-seed4096"
        found[name] = load_description(cell, TargetDescription)[0].answer, load_training_record(cell).validation["main"]
    assert {name: answer for name, (answer, _) in found.items()} == {
        "generate": "generate",
        "score": "score",
        "free": "generate",
    }
    assert found["generate"][1] == 0 < found["score"][1]


def test_methods_may_override_shared_settings(world: World, tmp_path: Path) -> None:
    """Methods that differ in reading of rows and in precision give the same results together as alone."""
    methods: dict[str, Any] = {
        "pemt": {},
        "half": {"kind": "pemt", "training": {"precision": "bfloat16"}},
        "short": {"kind": "pemt", "source_length": 4},
        "again": {"kind": "pemt"},
    }
    for name, entry in methods.items():
        world.transfer(tmp_path / "alone" / name, methods={name: entry}, max_steps=4)
    for workers in (1, 2):
        world.transfer(tmp_path / f"{workers}", methods=methods, workers=workers, max_steps=4)
        for name in methods:
            assert contents(tmp_path / f"{workers}" / f"{name}-kfull-seed4096") == contents(
                tmp_path / "alone" / name / f"{name}-kfull-seed4096"
            )
    files = [tmp_path / "1" / f"{name}-kfull-seed4096" / "adapter.safetensors" for name in methods]
    assert len({path.read_bytes() for path in files}) == 3
    assert files[0].read_bytes() == files[3].read_bytes()


# reuse of trained cells


def names_of(cells: Any) -> list[str]:
    return [cell.name for cell in cells]


def test_an_existing_cell_is_not_trained_again(world: World, tmp_path: Path) -> None:
    folder, brief = tmp_path / "out", {"max_steps": 1}
    first = folder / "pemt-kfull-seed1"

    def trained(seeds: list[int], **methods: dict[str, Any]) -> list[str]:
        done = world.transfer(folder, seeds=seeds, methods=methods, **brief)
        assert sorted(path.name for path in folder.iterdir()) == sorted(names_of(done.cells))
        return names_of(done.trained)

    control, narrow = METHODS["control"], {**METHODS["control"], "reduction_factor": 8}
    assert trained([1], pemt={}) == ["pemt-kfull-seed1"]
    before, written = contents(first), first.stat().st_mtime_ns
    assert trained([1], pemt={}) == []
    assert trained([2, 1], pemt={}) == ["pemt-kfull-seed2"]
    assert trained([1, 2], pemt={}, control=control) == ["control-kfull-seed1", "control-kfull-seed2"]
    assert trained([1, 2], pemt={}, control=narrow) == ["control-kfull-seed1", "control-kfull-seed2"]
    assert trained([1], control=narrow, pemt={}) == []  # cells that are not listed are removed
    assert (contents(first), first.stat().st_mtime_ns) == (before, written)


@pytest.mark.parametrize("file", ["adapter.safetensors", "adapter.json", "training.json"])
def test_a_damaged_cell_is_trained_again(world: World, tmp_path: Path, file: str) -> None:
    world.transfer(tmp_path / "out", max_steps=1)
    before, path = contents(tmp_path / "out"), tmp_path / "out" / "pemt-kfull-seed4096" / file
    path.write_bytes(path.read_bytes()[:-5])
    assert len(world.transfer(tmp_path / "out", max_steps=1).trained) == 1
    assert contents(tmp_path / "out") == before


def keys_of(world: World, **changes: Any) -> dict[str, str]:
    """Return the key of each method's cell, by method."""
    settings, backbone = (
        transfer_settings(methods=["pemt", "control"], **changes),
        load_backbone(world.folder / "backbone"),
    )
    prepared = PreparedTask.load(world.folder / "data" / "gamma")
    bank = load_experts(world.folder / "experts", backbone)
    target = Target(prepared, backbone, bank, settings.answer, Path(), "pemt_core.steps.transfer")
    trainings = target.trainings({cell: settings.method(cell.method) for cell in settings.cells})
    return {training.cell.method: training.description.key for training in trainings}


def test_a_key_depends_on_all_inputs_of_a_cell(
    world: World, three_sources: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, other = keys_of(world), World(shutil.copytree(world.folder, tmp_path / "world"))
    assert keys_of(other) == keys_of(world, seeds=[1]) == before
    found = [before, keys_of(world, answer="score"), keys_of(world, epochs=3)]
    change_rows(other.folder / "data" / "gamma", "train", lambda table: table.slice(1))
    found.append(keys_of(other))
    config = other.folder / "backbone" / "config.json"
    config.write_text(json.dumps({**read_json(config), "dropout_rate": 0.2}))
    found.append(keys_of(other))
    monkeypatch.setattr(target_module, "code_hash", lambda *modules: "of another code")
    found.append(keys_of(world))
    monkeypatch.undo()
    assert [len({keys[method] for keys in found}) for method in before] == [6, 6]

    more = keys_of(three_sources)
    assert more["control"] == before["control"]
    assert more["pemt"] != before["pemt"]


def test_a_new_expert_affects_only_cells_that_mix_it(three_sources: World, tmp_path: Path) -> None:
    """After an expert is added, cells that do not mix it are neither trained nor scored again."""
    world, output = World(shutil.copytree(three_sources.folder, tmp_path / "world")), tmp_path / "scores"
    collect(world, "alpha", "beta")
    changes: dict[str, Any] = {"methods": ["pemt", "control", "without_alpha"], "seeds": [1], "max_steps": 1}
    gamma = world.folder / "targets" / "gamma"
    world.transfer(gamma, **changes)
    assert len(score(world, output, "gamma")) == 3
    kept = "control-kfull-seed1"
    before = contents(gamma / kept), contents(output / "gamma" / kept)
    collect(world, "alpha", "delta", "beta")
    mixing = ["pemt-kfull-seed1", "without_alpha-kfull-seed1"]
    assert names_of(world.transfer(gamma, **changes).trained) == mixing
    assert score(world, output, "gamma") == [f"gamma/{name}" for name in mixing]
    assert (contents(gamma / kept), contents(output / "gamma" / kept)) == before


# leaving one source out


@pytest.fixture(scope="module")
def three_sources(tmp_path_factory: pytest.TempPathFactory, world: World) -> World:
    """The world with a third source, delta, between the other two."""
    copy = World(shutil.copytree(world.folder, tmp_path_factory.mktemp("three") / "world"))
    write_task(copy.folder / "data", "delta")
    copy.train_source(copy.folder / "adapters" / "delta", task="delta", init="kaiming", epochs=1)
    collect(copy, "alpha", "delta", "beta")
    return copy


def collect(world: World, *names: str) -> None:
    adapters, backbone = [world.folder / "adapters" / name for name in names], world.folder / "backbone"
    collect_experts(adapters, names, backbone_dir=backbone, output_dir=world.folder / "experts")


def mixture_of(world: World, *names: str) -> str:
    """Return the hash of the experts of these sources."""
    return load_experts(world.folder / "experts", outline(world.folder / "backbone")).mixture_hash(names)


def test_leaving_a_source_out_is_pemt_on_the_other_experts(three_sources: World, tmp_path: Path) -> None:
    """Training and scores equal those with an experts folder that never contained the source."""
    world, without = three_sources, World(shutil.copytree(three_sources.folder, tmp_path / "without"))
    collect(without, "alpha", "beta")
    world.transfer(world.folder / "targets" / "gamma", **BRIEFLY, methods=["pemt", "without_delta"], seeds=[1])
    without.transfer(without.folder / "targets" / "gamma", **BRIEFLY, seeds=[1])
    for name in (world, without):
        score(name, tmp_path / "scores" / name.folder.name, "gamma")
    cells = {
        "by name": (world, "without_delta-kfull-seed1"),
        "by hand": (without, "pemt-kfull-seed1"),
        "with all": (world, "pemt-kfull-seed1"),
    }
    tensors = {
        n: load_file(w.folder / "targets" / "gamma" / cell / "adapter.safetensors") for n, (w, cell) in cells.items()
    }
    assert tensors["by name"].keys() == tensors["by hand"].keys() == tensors["with all"].keys()
    assert all(torch.equal(tensor, tensors["by hand"][name]) for name, tensor in tensors["by name"].items())
    assert tensors["by name"]["encoder.0.gate"].shape[1] == 2
    assert tensors["with all"]["encoder.0.gate"].shape[1] == 3
    assert tensors["by name"]["encoder.0.gate"].abs().max() > 0

    results = {n: CellResult.load(tmp_path / "scores" / w.folder.name / "gamma" / c) for n, (w, c) in cells.items()}
    assert results["by name"].sources == results["by hand"].sources == ["alpha", "beta"]
    assert results["by name"].expert_weights == results["by hand"].expert_weights != results["with all"].expert_weights
    assert results["by name"].test == results["by hand"].test
    described, _ = load_description(world.folder / "targets" / "gamma" / "without_delta-kfull-seed1", TargetDescription)
    assert (described.method, described.sources) == ("without_delta", ["alpha", "beta"])
    assert described.experts == mixture_of(without, "alpha", "beta") == mixture_of(world, "alpha", "beta")


def test_a_source_that_the_experts_lack_cannot_be_left_out(world: World, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"without names 'delta', which is not a source; did you mean 'beta'\?"):
        world.transfer(tmp_path / "out", methods=["without_delta"])
    assert not (tmp_path / "out").exists()


# parallel trainings

SIX: dict[str, Any] = {"methods": ["pemt", "control", "without_alpha"], "seeds": [1], "learning_rates": [0.1, 0.01]}


def test_the_number_of_workers_changes_no_number(world: World, tmp_path: Path) -> None:
    """Files and curves are the same, although the parent computes with several threads before it forks."""
    torch.set_num_threads(2)
    square = torch.rand(500, 500)
    assert (square @ square).exp().sum() > 0
    torch.set_num_threads(1)
    done = {n: world.transfer(tmp_path / f"{n}" / "out", log=tmp_path / f"{n}.jsonl", workers=n, **SIX) for n in (1, 2)}
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
    assert len(contents(tmp_path / "2")) == 9
    points = [sorted((tmp_path / f"{n}.jsonl").read_text().splitlines()) for n in (1, 2)]
    assert points[0] == points[1] != []
    assert [(done[n].workers, done[n].workers_memory_mib > 0) for n in (1, 2)] == [(1, False), (2, True)]
    assert list((tmp_path / "2" / "checkpoints").iterdir()) == []
    assert multiprocessing.active_children() == []


def test_one_bar_for_all_workers(world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    world.transfer(tmp_path / "out", workers=2, seeds=[1, 2], max_steps=1)
    shown = capfd.readouterr().err
    assert "transfer gamma: 100%" in shown
    assert "2/2" in shown
    assert "step" not in shown
    assert "tokenizers" not in shown  # it warns of every fork unless told not to


class RecordedRuns:
    """Records how each run ended; calls `at_first` when the first run is opened, after the fork."""

    def __init__(self, at_first: Any = lambda: None) -> None:
        self.ends: dict[str, str] = {}
        self.at_first = at_first

    @contextmanager
    def open(self, info: RunInfo) -> Iterator[SilentRun]:
        if not self.ends:
            self.at_first()
        self.ends[info.cell] = "open"
        try:
            yield SilentRun()
        except BaseException:
            self.ends[info.cell] = "failed"
            raise
        self.ends[info.cell] = "finished"


def transfer_recorded(
    world: World, folder: Path, runs: RecordedRuns, workers: int = 2, costs: Path | None = None, **changes: Any
) -> Any:
    """Run stage 2 with `runs` as the tracker."""
    return transfer(
        [TargetTransfer(transfer_settings(**changes), world.folder / "data" / "gamma", folder / "out", costs)],
        world.folder / "backbone",
        world.folder / "experts",
        checkpoint_dir=folder / "checkpoints",
        open_run=runs.open,
        workers=workers,
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sample_that_cannot_be_drawn_stops_all_cells_at_once(world: World, tmp_path: Path, workers: int) -> None:
    """The training split has 12 rows of each class; no cell is trained and no run is opened."""
    runs = RecordedRuns()
    with pytest.raises(DataError, match=r"^gamma: k=13 rows of 'red' are needed, but the training split has 12; "):
        transfer_recorded(world, tmp_path, runs, workers, methods=["control", "pemt"], k=[4, 13], seeds=[1, 2, 3])
    assert runs.ends == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_diverging_training_loses_only_its_cell(world: World, tmp_path: Path, workers: int) -> None:
    """It leaves nothing attached to the backbone, and the other cells are kept until the settings are corrected."""
    runs, control = RecordedRuns(), METHODS["control"]
    diverging = {"control": {**control, "learning_rates": [1e29, 1e30]}, "pemt": {}}
    with pytest.raises(
        TrainingError,
        match=r"^1 of 2 cells failed: control-kfull-seed4096; the others are trained and kept\. "
        r"transfer gamma control-kfull-seed4096: .* learning rate 1e\+29",
    ):
        transfer_recorded(world, tmp_path, runs, workers, methods=diverging)
    assert multiprocessing.active_children() == []
    ends = {"control": "failed", "pemt": "finished"}
    assert runs.ends == {f"transfer/gamma/{method}/k=full/seed=4096": end for method, end in ends.items()}
    first = contents(tmp_path / "out")
    assert {Path(name).parent.name for name in first} == {"pemt-kfull-seed4096"}
    world.transfer(tmp_path / "alone" / "out")
    assert contents(tmp_path / "alone" / "out") == first

    corrected = {"control": control, "pemt": {}}
    done = transfer_recorded(world, tmp_path, RecordedRuns(), workers, methods=corrected)
    assert names_of(done.trained) == ["control-kfull-seed4096"]
    assert contents(tmp_path / "out") == {**contents(tmp_path / "out"), **first}


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("search", ["full", "halving"])
def test_a_learning_rate_that_diverges_is_not_chosen(
    world: World, tmp_path: Path, workers: int, search: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the others score: here nothing is learned, and all scores are equal. Its steps are counted."""
    runs, costs, cell = RecordedRuns(), tmp_path / "costs", tmp_path / "out" / "control-kfull-seed4096"
    methods = {"control": {**METHODS["control"], "learning_rates": [1e30, 1e-9], "search": search}}
    transfer_recorded(world, tmp_path, runs, workers, costs, methods=methods)
    record = load_training_record(cell)
    first_check = record.history[0]["step"]
    assert load_cost(costs, cell).steps == record.steps + first_check
    assert record.learning_rate == 1e-9
    assert record.trials == {"1e+30": None, "1e-09": next(iter(record.validation.values()))}
    assert list(runs.ends.values()) == ["finished"]
    assert "learning rate 1e+30" in caplog.text
    assert caplog.text.count("it is not chosen") == 1


@pytest.mark.parametrize("error", [ArtifactError("the disk is full"), ZeroDivisionError("the disk is full")], ids=repr)
@pytest.mark.parametrize("workers", [1, 2])
def test_any_other_error_of_a_training_stops_all(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, error: Exception
) -> None:
    """The first error is shown, rather than one that follows from it."""

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(TaskData, "evaluate", fail)
    runs = RecordedRuns()
    with pytest.raises(type(error), match="the disk is full"):
        transfer_recorded(world, tmp_path, runs, workers, seeds=[1, 2, 3])
    assert multiprocessing.active_children() == []
    assert set(runs.ends.values()) == {"failed"}
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoints"]  # neither complete nor partial output


def test_a_killed_worker_is_an_error_with_the_fix(world: World, tmp_path: Path) -> None:
    runs = RecordedRuns(lambda: os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL))
    with pytest.raises(TrainingError, match=r"a worker was killed, perhaps for lack of memory; .* Ask for fewer"):
        transfer_recorded(world, tmp_path, runs, seeds=[1, 2], epochs=500)
    assert multiprocessing.active_children() == []
    assert set(runs.ends.values()) == {"failed"}


def accelerator_on(device: str, num_processes: int = 1) -> Any:
    return SimpleNamespace(device=torch.device(device), num_processes=num_processes)


SMALL, LARGE = SINGLE_THREADED - 1, SINGLE_THREADED


@pytest.mark.parametrize(
    ("asked", "trainings", "parameters", "planned"),
    [
        (None, 6, SMALL, Schedule(4, True)),
        (None, 3, SMALL, Schedule(3, True)),
        (None, 1, SMALL, Schedule(1, True)),
        (1, 6, SMALL, Schedule(1, True)),
        (9, 6, SMALL, Schedule(6, True)),
        (None, 6, LARGE, Schedule(1, False)),
        (2, 6, LARGE, Schedule(2, True)),
        (2, 1, LARGE, Schedule(1, False)),
    ],
)
def test_workers_and_threads(
    asked: int | None, trainings: int, parameters: int, planned: Schedule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small backbone always trains with one thread per training; a large one uses all cores if it trains alone."""
    monkeypatch.setattr("joblib.cpu_count", lambda: 4)
    assert Schedule.make(asked, trainings, parameters, accelerator_on("cpu")) == planned


@pytest.mark.parametrize("accelerator", [accelerator_on("cuda"), accelerator_on("cpu", 2)], ids=["GPU", "launched"])
def test_a_gpu_and_several_processes_have_one_worker(accelerator: Any) -> None:
    assert Schedule.make(None, 6, SMALL, accelerator) == Schedule.make(1, 6, SMALL, accelerator) == Schedule(1, False)
    with pytest.raises(SettingsError, match=r"workers is 2: expected 1, as trainings take turns on a GPU"):
        Schedule.make(2, 6, SMALL, accelerator)


def test_a_schedule_restores_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with Schedule(1, single_threaded=True).threads():
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        with Schedule(1, single_threaded=False).threads():
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
