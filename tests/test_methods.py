"""Methods as values: kinds found by file, gates against closed forms, stored cells restored exactly."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import KINDS, World, random_experts, random_target_tensors, tiny_batch, tiny_t5, transfer_settings
from torch import Tensor

from pemt_core.artifacts.adapter import load_adapter
from pemt_core.artifacts.description import TargetDescription
from pemt_core.artifacts.experts import load_experts
from pemt_core.artifacts.target import restore_target
from pemt_core.backbone.store import load_backbone
from pemt_core.errors import SettingsError
from pemt_core.methods import Method, kinds, method_of
from pemt_core.methods.count import trained_parameters
from pemt_core.methods.gates import gate_modules
from pemt_core.model.assemble import Expert
from pemt_core.model.prompted import PromptedModel

SOURCES = ["source0", "source1", "source2"]
GATES = list(gate_modules())
UNIFORM_START = ["input", "static", "text", "token", "top1", "uniform"]


def method(**entry: Any) -> Method:
    """PEMT with differences, on the toy settings."""
    shared = transfer_settings().methods["pemt"]
    return method_of("pemt", entry, {name: value for name, value in shared.items() if name != "kind"}, "methods.pemt")


def initial(backbone: Any, experts: list[Expert], **entry: Any) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return method(**entry).initial_tensors(backbone, torch.arange(3, 8), experts, generator)


def built(backbone: Any, tensors: Mapping[str, Tensor], experts: list[Expert], **entry: Any) -> PromptedModel:
    return method(**entry).build(backbone, tensors, experts).eval()


def logits(model: PromptedModel, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(**batch).logits
    model.detach()
    return found


# What methods are


def test_kinds_are_found_by_file_name() -> None:
    files = {path.stem for path in Path("pemt_core/methods").glob("*.py")}
    assert set(kinds()) <= files
    assert all(each.__module__ == f"pemt_core.methods.{name}" for name, each in kinds().items())
    assert set(GATES) == {path.stem for path in Path("pemt_core/methods/gates").glob("*.py")} - {"__init__"}


def test_a_method_uses_its_sources_in_order() -> None:
    assert method().draws_on(SOURCES) == SOURCES
    assert method(sources=[]).draws_on(SOURCES) == []
    assert method(without=["source1"]).draws_on(SOURCES) == ["source0", "source2"]
    assert method(sources=["source2", "source0"]).draws_on(SOURCES) == ["source0", "source2"]
    assert method(sources=["source0", "source1"], without=["source0"]).draws_on(SOURCES) == ["source1"]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"without": ["sourceO"]}, "without names 'sourceO', which is not a source; did you mean 'source2'?"),
        ({"sources": ["sourc1"]}, "sources names 'sourc1', which is not a source; did you mean 'source1'?"),
        ({"without": SOURCES}, "without leaves out every source"),
    ],
)
def test_an_unknown_source_is_named(entry: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        method(**entry).draws_on(SOURCES)
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"gate": "unifrm"}, "methods.pemt: key 'gate' is 'unifrm': there is no such gate; did you mean 'uniform'?"),
        ({"kind": "pmt"}, "methods.pemt: there is no kind of method 'pmt'; did you mean 'pemt'?"),
        ({"gat": "uniform"}, "methods.pemt: unknown key 'gat'; did you mean 'gate'?"),
        ({"training": {"epoch": 3}}, "methods.pemt: unknown key 'training.epoch'; did you mean 'epochs'?"),
    ],
)
def test_an_invalid_entry_is_named(entry: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        method(**entry)
    assert str(caught.value).startswith(expected)


def test_reports_describe_how_a_method_differs() -> None:
    assert (method().title, method().about(SOURCES)) == ("PEMT", "")
    assert method(sources=[]).about(SOURCES).startswith("stage 2 without sources")
    assert method(without=["source1"]).about(SOURCES) == "PEMT without the source source1"
    found = method(gate="uniform", sources=["source0"]).about(SOURCES)
    assert found == "PEMT without the sources source1, source2 and with the gate 'uniform'"


# Gates


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gate", UNIFORM_START)
def test_gates_of_shares_start_with_equal_weights(gate: str, kind: str) -> None:
    backbone = tiny_t5(kind)
    experts, batch = random_experts(backbone, 3), tiny_batch()
    starts = {name: initial(backbone, experts, gate=name) for name in (gate, "input")}
    models = [logits(built(backbone, starts[name], experts, gate=name), batch) for name in (gate, "input")]
    torch.testing.assert_close(*models)


def test_uniform_is_pemt_with_a_frozen_gate_of_zero() -> None:
    """Holds for any other trained tensors: a zero gate weights all experts equally."""
    backbone = tiny_t5()
    experts, batch, trained = random_experts(backbone, 3), tiny_batch(), random_target_tensors(tiny_t5(), 3)
    zero = {name: torch.zeros_like(t) if name.endswith(".gate") else t for name, t in trained.items()}
    without = {name: tensor for name, tensor in trained.items() if not name.endswith(".gate")}
    uniform = built(backbone, without, experts, gate="uniform")
    assert not [name for name in uniform.trained if "gate" in name]
    torch.testing.assert_close(logits(uniform, batch), logits(built(backbone, zero, experts), batch))


@pytest.mark.parametrize("gate", ["static", "uniform"])
def test_gates_that_ignore_the_text_merge_into_one_matrix(gate: str) -> None:
    """wo(x) + sum_k g_k s_k U_k V_k x = (wo + sum_k g_k s_k U_k V_k) x, so a model without experts gives the same."""
    backbone, merged = tiny_t5(), tiny_t5()
    experts, batch = random_experts(backbone, 3), tiny_batch()
    tensors = {**random_target_tensors(backbone, 0), **_moved(initial(backbone, experts, gate=gate))}
    model = built(backbone, tensors, experts, gate=gate, prompt_dropout=0.0)
    with torch.no_grad():
        for key, wo in _places(merged):
            weight = tensors.get(f"{key}.gate", torch.zeros(3)).softmax(0)
            for g, expert in zip(weight, experts, strict=True):
                pair = expert.tensors[f"{key}.up"] @ expert.tensors[f"{key}.down"]
                wo.weight += g * expert.scale * pair
        guided = model.prompt()
    plain = built(merged, {**_plain(tensors), "prompt": guided}, [], sources=[])
    torch.testing.assert_close(logits(model, batch), logits(plain, batch), rtol=1e-4, atol=1e-4)


def _moved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with gates moved away from their start, as after training."""
    generator = torch.Generator().manual_seed(3)
    gates = {name: tensor for name, tensor in tensors.items() if name.endswith(".gate")}
    return {name: tensor + torch.randn(tensor.shape, generator=generator) for name, tensor in gates.items()}


def _plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(".gate")}


def _places(backbone: Any) -> list[tuple[str, Any]]:
    from pemt_core.model.stacks import feed_forwards

    return [(place.key, place.layer) for place in feed_forwards(backbone)]


# From training to the stored model


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, world: World) -> Path:
    """One cell per gate, trained by the transfer step."""
    output = tmp_path_factory.mktemp("gates") / "gamma"
    entries = {gate: {"kind": "pemt", "gate": gate} for gate in GATES}
    world.transfer(output, methods=entries, seeds=[1], learning_rates=[0.1])
    return output


@pytest.mark.parametrize("gate", GATES)
def test_a_stored_cell_is_restored_by_its_kind(gate: str, trained: Path, world: World) -> None:
    backbone = load_backbone(world.folder / "backbone")
    bank = load_experts(world.folder / "experts", backbone)
    adapter = load_adapter(trained / f"{gate}-kfull-seed1", backbone.fingerprint, TargetDescription)
    assert adapter.description.settings["gate"] == gate
    batch = tiny_batch(vocab_size=len(backbone.tokenizer))
    model = restore_target(backbone.model, adapter, bank).eval()
    assert set(model.trained) == set(adapter.tensors)
    found = logits(model, batch)
    weights = model.signal.expert_weights
    assert {tuple(each.shape) for each in weights.values()} == {(4, 2)}
    if gate not in ("lorahub", "scalearn"):  # their numbers are free
        assert all(each.sum(-1).allclose(torch.ones(4)) for each in weights.values())
    differ = any(not torch.equal(each, each[:1].expand_as(each)) for each in weights.values())
    assert differ == (gate not in ("lorahub", "scalearn", "static", "uniform")) or gate == "top1"  # one may always win
    assert (gate == "uniform") == all(torch.equal(each, torch.full_like(each, 0.5)) for each in weights.values())
    again = method(gate=gate, prompt_dropout=0.1).build(backbone.model, adapter.tensors, bank.experts).eval()
    assert torch.equal(found, logits(again, batch))
    stranger = replace(adapter, description=replace(adapter.description, settings={"kind": "none"}))
    with pytest.raises(SettingsError, match="there is no kind of method 'none'"):
        restore_target(backbone.model, stranger, bank)


def test_static_weights_are_trained_and_the_same_for_every_text(trained: Path, world: World) -> None:
    backbone = load_backbone(world.folder / "backbone")
    adapter = load_adapter(trained / "static-kfull-seed1", backbone.fingerprint, TargetDescription)
    model = restore_target(backbone.model, adapter, load_experts(world.folder / "experts", backbone)).eval()
    logits(model, tiny_batch(vocab_size=len(backbone.tokenizer)))
    for name, weights in model.signal.expert_weights.items():
        logit = adapter.tensors[f"{name}.gate"]
        assert logit.shape == (2,)
        torch.testing.assert_close(weights, logit.softmax(0).expand(4, 2))
    assert any(tensor.abs().max() > 0 for name, tensor in adapter.tensors.items() if name.endswith(".gate"))


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("entry", [{}, {"sources": []}, {"without": ["source1"]}], ids=str)
def test_counts_equal_those_of_the_tensors(gate: str, entry: dict[str, Any]) -> None:
    backbone = tiny_t5()
    chosen = method(gate=gate, **entry)
    experts = [expert for expert in random_experts(backbone, 3) if expert.task in chosen.draws_on(SOURCES)]
    model = built(backbone, initial(backbone, experts, gate=gate, **entry), experts, gate=gate, **entry)
    count = trained_parameters(chosen, model.detach(), SOURCES, rank=3, prompt_length=100)
    assert count.with_prompt(5) == model.num_trained_parameters()
    assert count.per_prompt_token == backbone.config.d_model
