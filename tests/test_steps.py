"""What steps leave on disk, on toy data: evaluate's results and which it keeps, which learning rate stage 2 keeps."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score
from tiny import World, write_task

from pemt_core.artifacts.adapter import load_description, load_training_record
from pemt_core.errors import ArtifactError
from pemt_core.evaluation.results import CellResult
from pemt_core.settings import EvaluateSettings
from pemt_core.steps import evaluate as evaluate_module
from pemt_core.steps.collect_experts import collect_experts
from pemt_core.steps.evaluate import evaluate

CELLS = ["pemt-kfull-seed1", "pemt-kfull-seed2"]
BRIEFLY: dict[str, Any] = {"learning_rates": [0.1], "epochs": 8, "evaluate_every": 100}  # to a part of the labels right
SETTINGS = EvaluateSettings(batch_size=3, precision="float32", max_rows=None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, world: World) -> World:
    """The world with two trained targets of two cells each, in adapters/targets."""
    folder = tmp_path_factory.mktemp("trained") / "world"
    shutil.copytree(world.folder, folder)
    copy = World(folder)
    write_task(folder / "data", "delta")
    copy.transfer(folder / "targets" / "gamma", **BRIEFLY, seeds=[1, 2])
    copy.transfer(folder / "targets" / "delta", task="delta", max_steps=1, seeds=[1, 2])  # writes no label word yet
    return copy


def targets_of(world: World, *names: str) -> dict[str, Path]:
    return {name: world.folder / "targets" / name for name in names}


def score(world: World, output: Path, *names: str, settings: EvaluateSettings = SETTINGS) -> list[str]:
    """The evaluate step on some of the targets."""
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


def test_evaluate_scores_what_is_new_and_removes_what_is_gone(
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

    world.transfer(world.folder / "targets" / "gamma", **BRIEFLY, seeds=[2, 3])  # seed 2 gives what it gave before
    assert score(world, output, "gamma") == ["gamma/pemt-kfull-seed3"]
    assert sorted(path.name for path in output.iterdir()) == ["gamma"]
    assert sorted(path.name for path in (output / "gamma").iterdir()) == ["pemt-kfull-seed2", "pemt-kfull-seed3"]

    fewer = SETTINGS.model_copy(update={"max_rows": 5})
    assert len(score(world, output, "gamma", settings=fewer)) == 2
    monkeypatch.setattr(evaluate_module, "CODE", ("metrics",))  # as after a change of code
    assert len(score(world, output, "gamma", settings=fewer)) == 2
    assert score(world, output, "gamma", settings=fewer) == []


def test_changed_data_is_scored_again(trained: World, tmp_path: Path) -> None:
    world = World(shutil.copytree(trained.folder, tmp_path / "world"))
    score(world, tmp_path / "results", "gamma", "delta")
    path = world.folder / "data" / "gamma" / "test.parquet"
    pq.write_table(pq.read_table(path).slice(1), path)
    assert score(world, tmp_path / "results", "gamma", "delta") == [f"gamma/{cell}" for cell in CELLS]


def test_a_changed_setting_that_moves_no_tensor_is_scored_again(trained: World, tmp_path: Path) -> None:
    """source_length cuts test rows as well: its change can leave the tensors as they were and the score not."""
    world = World(shutil.copytree(trained.folder, tmp_path / "world"))
    score(world, tmp_path / "results", "gamma")
    path = world.folder / "targets" / "gamma" / CELLS[0] / "adapter.json"
    description = json.loads(path.read_text())
    description["settings"]["source_length"] = 3
    path.write_text(json.dumps(description))
    assert score(world, tmp_path / "results", "gamma") == [f"gamma/{CELLS[0]}"]


@pytest.mark.parametrize("task", ["gamma", "delta"])
def test_predictions_and_score_belong_together(task: str, trained: World, tmp_path: Path) -> None:
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


def test_a_result_says_what_it_rests_on(trained: World, tmp_path: Path) -> None:
    score(trained, tmp_path, "gamma")
    adapter = trained.folder / "targets" / "gamma" / CELLS[0]
    description, content_hash = load_description(adapter)
    record, result = load_training_record(adapter), CellResult.load(tmp_path / "gamma" / CELLS[0])
    assert (result.artifact, result.data, result.backbone) == (content_hash, description.data, description.backbone)
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


def test_a_bound_on_rows_is_shown(trained: World, tmp_path: Path) -> None:
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
    world = World(shutil.copytree(trained.folder, tmp_path / "world"))
    adapters = [world.folder / "adapters" / name for name in reversed(World.SOURCES)]
    mixed = json.loads((world.folder / "experts" / "experts.json").read_text())["sha256"]
    collect_experts(adapters, output_dir=world.folder / "experts")
    at_hand = json.loads((world.folder / "experts" / "experts.json").read_text())["sha256"]
    with pytest.raises(ArtifactError, match=f"mixes the experts {mixed[:12]}, those at hand are {at_hand[:12]}"):
        score(world, tmp_path / "results", "gamma")
    assert not (tmp_path / "results" / "gamma" / CELLS[0]).exists()


def test_a_target_without_a_cell_is_an_error(trained: World, tmp_path: Path) -> None:
    world = World(shutil.copytree(trained.folder, tmp_path / "world"))
    for cell in CELLS:
        shutil.rmtree(world.folder / "targets" / "gamma" / cell)
    with pytest.raises(ArtifactError, match="no trained cell in it; the transfer step has not run for 'gamma'"):
        score(world, tmp_path / "results", "gamma")


# transfer


def test_the_learning_rate_that_is_best_on_validation_is_kept(world: World, tmp_path: Path) -> None:
    rates = [0.1, 0.03, 1e-6]
    world.transfer(tmp_path / "all", learning_rates=rates, epochs=15)
    cell = tmp_path / "all" / "pemt-kfull-seed4096"
    record, (description, _) = load_training_record(cell), load_description(cell)
    assert list(record.trials) == ["0.1", "0.03", "1e-06"]
    best = max(rates, key=lambda rate: record.trials[f"{rate:g}"])
    assert record.trials[f"{best:g}"] > record.trials["1e-06"]  # else the choice would show nothing
    assert description.learning_rate == best
    assert record.validation["main"] == record.trials[f"{best:g}"]

    world.transfer(tmp_path / "alone", learning_rates=[best], epochs=15)
    alone = tmp_path / "alone" / "pemt-kfull-seed4096"
    assert (alone / "adapter.safetensors").read_bytes() == (cell / "adapter.safetensors").read_bytes()
    assert replace(load_training_record(alone), trials={}) == replace(record, trials={})


def test_every_method_k_and_seed_is_a_cell(world: World, tmp_path: Path) -> None:
    cells = world.transfer(tmp_path / "gamma", methods=["pemt", "control"], k=["full", 2], seeds=[1, 2], max_steps=1)
    names = [cell.name for cell in cells]
    assert len(names) == 8
    assert sorted(names) == sorted(path.name for path in (tmp_path / "gamma").iterdir())
    for name in names:
        description, _ = load_description(tmp_path / "gamma" / name)
        assert f"{description.method}-k{description.k}-seed{description.seed}" == name
        assert description.sources == (list(World.SOURCES) if description.method == "pemt" else [])
    control = load_file(tmp_path / "gamma" / "control-kfull-seed1" / "adapter.safetensors")
    assert not [tensor for tensor in control if "gate" in tensor]
    assert not (tmp_path / "checkpoints").exists() or not list((tmp_path / "checkpoints").iterdir())
