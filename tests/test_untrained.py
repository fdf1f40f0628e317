"""Methods that train nothing: the backbone asked in words, and a source adapter as it is."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_methods import logits, method
from tiny import World, random_experts, tiny_batch, tiny_t5

from pemt_core.artifacts.adapter import load_adapter
from pemt_core.artifacts.cost import load_cost
from pemt_core.artifacts.description import TargetDescription, load_training_record
from pemt_core.artifacts.experts import load_experts
from pemt_core.artifacts.result import load_results
from pemt_core.artifacts.source import load_source
from pemt_core.artifacts.target import restore_target
from pemt_core.backbone.store import load_backbone
from pemt_core.comparison.work import CellWork, TargetRows
from pemt_core.methods.count import trained_parameters
from pemt_core.model.assemble import build_source_model
from pemt_core.report.names import MethodNames
from pemt_core.report.parameters import draw_parameters
from pemt_core.report.table import Tables
from pemt_core.settings import EvaluateSettings
from pemt_core.steps.evaluate import evaluate

METHODS: dict[str, dict[str, Any]] = {"zero_shot": {}, "source": {}}
RATES: dict[str, Any] = {"seeds": [1], "learning_rates": [0.1, 0.2], "search": "halving"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, world: World) -> Path:
    output = tmp_path_factory.mktemp("untrained") / "gamma"
    world.transfer(output, methods=METHODS, costs=output.parent / "costs", **RATES)
    return output


def test_zero_shot_is_the_backbone_behind_the_words_of_the_description() -> None:
    """Against the backbone's own call: the ids of the description before those of the text."""
    backbone, batch, words = tiny_t5(), tiny_batch(), torch.arange(3, 8)
    zero_shot = method(kind="zero_shot")
    tensors = zero_shot.initial_tensors(backbone, words, [], torch.Generator())
    found = logits(zero_shot.build(backbone, tensors, []).eval(), batch)
    ids = torch.cat([words.expand(4, -1), batch["input_ids"]], dim=1)
    mask = torch.cat([torch.ones(4, 5, dtype=torch.long), batch["attention_mask"]], dim=1)
    with torch.no_grad():
        expected = backbone(input_ids=ids, attention_mask=mask, labels=batch["labels"]).logits
    torch.testing.assert_close(found, expected)


def test_a_source_is_what_stage_1_left() -> None:
    backbone, batch = tiny_t5(), tiny_batch()
    expert = random_experts(backbone, 2)[1]
    chosen = method(kind="source", source="source1")
    tensors = chosen.initial_tensors(backbone, torch.arange(3), [expert], torch.Generator())
    found = logits(chosen.build(backbone, tensors, [expert]).eval(), batch)
    expected = logits(build_source_model(backbone, expert.tensors, scale=expert.scale).eval(), batch)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_trained_whatever_transfer_says(name: str, trained: Path) -> None:
    cell = trained / f"{name}-kfull-seed1"
    record, cost = load_training_record(cell), load_cost(trained.parent / "costs", cell)
    assert (record.steps, record.best_step, record.learning_rate, record.trained_parameters) == (0, 0, 0.0, 0)
    assert [point["step"] for point in record.history] == [0]
    tried = {"zero_shot": ["0"], "source": ["alpha, 0", "beta, 0"]}[name]
    assert list(record.trials) == tried
    assert (cost.steps, cost.configurations) == (0, len(tried))
    best = max(score for score in record.trials.values() if score is not None)
    assert record.validation["main"] == best  # the first of equals


def test_the_chosen_source_is_restored_as_stage_1_trained_it(trained: Path, world: World) -> None:
    backbone = load_backbone(world.folder / "backbone")
    bank = load_experts(world.folder / "experts", backbone)
    adapter = load_adapter(trained / "source-kfull-seed1", backbone.fingerprint, TargetDescription)
    (source,) = adapter.description.sources
    stored = load_file(world.folder / "adapters" / source / "adapter.safetensors")
    assert adapter.tensors.keys() == stored.keys()
    assert all(torch.equal(adapter.tensors[key], tensor) for key, tensor in stored.items())
    batch = tiny_batch(vocab_size=len(backbone.tokenizer))
    found = logits(restore_target(backbone.model, adapter, bank).eval(), batch)
    scale = load_source(world.folder / "adapters" / source, backbone).description.scale
    assert torch.equal(found, logits(build_source_model(backbone.model, stored, scale=scale).eval(), batch))


def test_a_second_transfer_keeps_what_is_there(trained: Path, world: World) -> None:
    assert world.transfer(trained, methods=METHODS, **RATES).trained == []


def test_their_cells_are_scored_and_shown(trained: Path, world: World, tmp_path: Path) -> None:
    settings = EvaluateSettings(answer="generate", batch_size=8, precision="float32", max_rows=None)
    folders = world.folder / "data", world.folder / "backbone", world.folder / "experts"
    evaluate({"gamma": trained}, *folders, settings, output_dir=tmp_path / "scores")
    results = load_results(tmp_path / "scores")
    assert {result.method: result.trained_parameters for result in results} == dict.fromkeys(METHODS, 0)
    tables = Tables.of(results, MethodNames({}, {}), 0.95)
    (axes,) = draw_parameters(tables, []).axes
    low, high = axes.get_xlim()
    assert low < 0 < high  # where a logarithmic scale has no place


def test_their_work_is_a_validation_for_each_option() -> None:
    rows, sources = TargetRows(train=100, validation=40, classes=2), ["source0", "source1"]
    entry = {"training": {"validation_rows": 30}}
    assert CellWork.of(method(kind="zero_shot", **entry), sources, 16, rows) == CellWork(1, 0, 30)
    assert CellWork.of(method(kind="source", **entry), sources, 16, rows) == CellWork(2, 0, 60)


@pytest.mark.parametrize("kind", METHODS)
def test_they_count_no_parameters(kind: str) -> None:
    count = trained_parameters(method(kind=kind), tiny_t5(), ["source0", "source1"], rank=3, prompt_length=9)
    assert count.with_prompt(7) == 0


def test_reports_say_what_they_are() -> None:
    sources = ["source0", "source1"]
    assert method(kind="zero_shot").about(sources) == (
        "the backbone as it is, with the target's description beside the text"
    )
    assert method(kind="source").about(sources) == (
        "the adapter and the prompt of the source that is best on validation, without training"
    )
