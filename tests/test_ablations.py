"""PEMT without its parts, negative controls, and the kinds single, sequential and joint."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_methods import SOURCES, built, initial, logits, method
from tiny import World, random_experts, random_target_tensors, tiny_batch, tiny_t5
from torch import Tensor
from torch.nn import functional as F

from pemt_core.artifacts.adapter import load_adapter
from pemt_core.artifacts.description import TargetDescription
from pemt_core.artifacts.experts import load_experts
from pemt_core.artifacts.target import load_target, restore_target
from pemt_core.backbone.shapes import backbone_of_shapes
from pemt_core.backbone.store import load_backbone
from pemt_core.errors import SettingsError
from pemt_core.model.assemble import Expert, build_source_model, fold_experts, source_shapes
from pemt_core.model.mixture import MixtureOutput, SparsityGradient
from pemt_core.model.source_controls import exchanged_adapters, random_adapters, shuffled_prompts
from pemt_core.model.stacks import layer_norms
from pemt_core.prediction.predictor import load_predictor
from pemt_core.schema.names import JOINT
from pemt_core.tasks import get_task


def gates_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.endswith(".gate")}


# Parts of PEMT


@pytest.mark.parametrize("gradient", ["full", "cosines_detached", "weights_detached"])
def test_a_detached_part_of_the_sparsity_loss_gets_no_gradient(gradient: SparsityGradient) -> None:
    """The value is the same, and the other part has the gradient of the published form."""
    experts = random_experts(tiny_t5(), 3)
    with built(tiny_t5(), random_target_tensors(tiny_t5(), 3), experts) as model:
        layer: MixtureOutput = model.backbone.encoder.block[0].layer[-1].DenseReluDense.wo
    found = {}
    for name in ("full", gradient):
        torch.manual_seed(0)
        y, channels = torch.randn(4, 6, 16, requires_grad=True), layer.experts.channels(torch.randn(4, 6, 24))
        weights = torch.rand(4, 3, requires_grad=True)
        layer.sparsity_gradient = name
        loss = layer.task_sparsity(y, channels, weights)
        loss.backward()
        found[name] = loss.item(), y.grad, weights.grad
    assert found[gradient][0] == found["full"][0]
    for index, stopped in ((1, "cosines_detached"), (2, "weights_detached")):
        expected = None if gradient == stopped else found["full"][index]
        assert (found[gradient][index] is None) == (expected is None)
        assert expected is None or torch.equal(found[gradient][index], expected)  # type: ignore[arg-type]


def test_the_gradient_is_the_sum_of_those_of_its_parts() -> None:
    """The product rule, for every trained tensor; without a weight, there is no sparsity loss at all."""
    backbone, experts, tensors = tiny_t5(), random_experts(tiny_t5(), 3), random_target_tensors(tiny_t5(), 3)
    losses, gradients = [], []
    for name, coefficient in (("full", 0.0), ("full", 1.0), ("cosines_detached", 1.0), ("weights_detached", 1.0)):
        options = {"sparsity_gradient": name, "sparsity_coefficient": coefficient}
        with built(backbone, tensors, experts, **options) as model:
            output = model(**tiny_batch())
            output.loss.backward()
        losses.append((output.loss.item(), output.lm_loss.item(), output.sparsity_loss))
        gradients.append({key: each.grad for key, each in model.trained.items() if each.grad is not None})
    assert losses[0][0] == losses[0][1]
    assert losses[0][2] is None
    assert losses[1] == losses[2] == losses[3]
    without, full, of_weights, of_cosines = gradients
    for key, gradient in full.items():
        torch.testing.assert_close(gradient, of_weights[key] + of_cosines[key] - without[key], rtol=1e-3, atol=1e-4)
    key = "decoder.2.adapter.up.bias"  # of the last layer: only the cosines depend on it
    torch.testing.assert_close(of_weights[key], without[key])
    assert not torch.allclose(of_cosines[key], without[key])


def test_without_guidance_the_prompt_enters_alone() -> None:
    """As with source prompts of zero."""
    backbone, batch, tensors = tiny_t5(), tiny_batch(), random_target_tensors(tiny_t5(), 3)
    experts = random_experts(backbone, 3)
    model = built(backbone, tensors, experts, guided_prompt=False)
    assert torch.equal(model.prompt(), tensors["prompt"])
    found = logits(model, batch)
    silent = [replace(each, tensors={**each.tensors, "prompt": torch.zeros(3, 16)}) for each in experts]
    torch.testing.assert_close(found, logits(built(backbone, tensors, silent), batch))
    assert not torch.allclose(found, logits(built(backbone, tensors, experts), batch), atol=1e-3)


def test_the_mean_as_guide_is_the_sum_over_the_number_of_sources() -> None:
    """As with a guide from one source where all sources have the same prompt."""
    backbone, batch, tensors = tiny_t5(), tiny_batch(), random_target_tensors(tiny_t5(), 3)
    first, *others = random_experts(backbone, 3)
    alike = [replace(each, tensors={**each.tensors, "prompt": first.tensors["prompt"]}) for each in (first, *others)]
    model = built(backbone, tensors, alike, guide="mean")
    attention = (tensors["prompt"] @ first.tensors["prompt"].T).softmax(-1)
    torch.testing.assert_close(model.prompt(), tensors["prompt"] + attention @ first.tensors["prompt"])
    found = logits(model, batch)
    assert not torch.allclose(found, logits(built(backbone, tensors, alike), batch), atol=1e-3)


def test_without_target_adapters_the_mixture_is_the_output() -> None:
    """As with target adapters that add nothing."""
    backbone, batch, tensors = tiny_t5(), tiny_batch(), random_target_tensors(tiny_t5(), 3)
    experts = random_experts(backbone, 3)
    none = {name: tensor for name, tensor in tensors.items() if ".adapter." not in name}
    model = built(backbone, none, experts, target_adapter=False)
    assert set(model.trained) == set(none) == set(initial(tiny_t5(), experts, target_adapter=False))
    zero = {name: torch.zeros_like(each) if ".adapter.up." in name else each for name, each in tensors.items()}
    torch.testing.assert_close(logits(model, batch), logits(built(backbone, zero, experts), batch))


@pytest.mark.parametrize("experts", [0, 3])
def test_frozen_norms_stay_those_of_the_backbone(experts: int) -> None:
    backbone, batch = tiny_t5(), tiny_batch()
    bank, start = random_experts(backbone, experts), initial(backbone, random_experts(backbone, experts))
    norms = {name for name, *_ in layer_norms(backbone)}
    frozen = initial(backbone, bank, norms="frozen")
    assert set(start) - set(frozen) == norms
    model = built(backbone, frozen, bank, norms="frozen")
    before = {name: backbone.get_parameter(name).clone() for name in norms}
    optimizer = torch.optim.Adam(model.trained.values(), lr=0.1)
    first = model(**batch)
    torch.testing.assert_close(first.loss, built(tiny_t5(), start, bank)(**batch).loss)
    first.loss.backward()
    optimizer.step()
    assert model(**batch).loss < first.loss
    model.detach()
    assert all(torch.equal(backbone.get_parameter(name), before[name]) for name in norms)


def test_nothing_but_the_prompt_is_trained_without_all_parts() -> None:
    backbone = tiny_t5()
    options = {"sources": [], "target_adapter": False, "norms": "frozen"}
    start = initial(backbone, [], **options)
    assert set(start) == {"prompt"}
    model = built(backbone, start, [], **options)
    found = logits(model, tiny_batch())
    with build_source_model(tiny_t5(), {**random_experts(backbone, 1)[0].tensors, **start}, scale=0.0) as plain:
        torch.testing.assert_close(found, plain.eval()(**tiny_batch()).logits)


def test_another_text_starts_the_prompt() -> None:
    assert method().prompt_text("Decide it.") == "Decide it."
    assert method(description="Other words.").prompt_text("Decide it.") == "Other words."
    with pytest.raises(SettingsError, match="key 'description' is ''"):
        method(description="")


def test_a_duplicate_expert_shares_the_weight_of_its_twin() -> None:
    """With equal logits of both and the weight of one, the mixture is the same."""
    backbone, batch, tensors = tiny_t5(), tiny_batch(), random_target_tensors(tiny_t5(), 3)
    experts = random_experts(backbone, 3)
    halves = {"guided_prompt": False, "sparsity_coefficient": 0.0, "gate": "static"}
    logit = torch.tensor([0.5, -0.3, 1.0])
    three = {**tensors, **dict.fromkeys(gates_of(tensors), logit)}
    shared = torch.cat([logit[:2], (logit[2:].exp() / 2).log().repeat(2)])
    four = {**tensors, **dict.fromkeys(gates_of(tensors), shared)}
    found = logits(built(backbone, four, [*experts, replace(experts[2], task="twin")], **halves), batch)
    torch.testing.assert_close(found, logits(built(backbone, three, experts, **halves), batch), rtol=1e-4, atol=1e-5)


# Negative controls


@pytest.mark.parametrize("gate", ["input", "token", "static"])
def test_pemt_cannot_notice_that_adapters_are_exchanged(gate: str) -> None:
    """Training with exchanged adapters is training PEMT with the gates' columns in another order.

    The guided prompt is a sum over sources and the gates start at zero, so nothing connects a prompt with an adapter.
    """
    backbone, batch = tiny_t5(), tiny_batch()
    experts = random_experts(backbone, 3)
    start = initial(backbone, experts, gate=gate)
    trained = []
    for adapters in ("own", "permuted"):
        model = built(backbone, start, experts, gate=gate, source_adapters=adapters)
        optimizer = torch.optim.SGD(model.trained.values(), lr=0.05)
        for _ in range(5):
            optimizer.zero_grad()
            loss = model(**batch).loss
            loss.backward()
            optimizer.step()
        trained.append((loss.item(), model.tensors(), logits(model, batch)))
    (loss, own, found), (same_loss, permuted, same) = trained
    assert loss == pytest.approx(same_loss, rel=1e-4)
    torch.testing.assert_close(found, same, rtol=1e-3, atol=1e-4)
    for name, tensor in own.items():
        expected = tensor[..., [1, 2, 0]] if name.endswith(".gate") else tensor  # source k has the adapter of k + 1
        torch.testing.assert_close(permuted[name], expected, rtol=1e-3, atol=1e-4)
    assert any(not torch.equal(tensor, start[name]) for name, tensor in gates_of(own).items())


def test_exchanged_adapters_keep_their_prompts() -> None:
    experts = random_experts(tiny_t5(), 3)
    changed = exchanged_adapters(experts)
    for k, (before, after) in enumerate(zip(experts, changed, strict=True)):
        giver = experts[(k + 1) % 3]
        assert (after.task, after.scale) == (before.task, giver.scale)
        assert torch.equal(after.tensors["prompt"], before.tensors["prompt"])
        assert all(after.tensors[name] is giver.tensors[name] for name in giver.tensors if name != "prompt")
    with pytest.raises(SettingsError, match="'permuted', which needs two sources; there is only source1"):
        method(source_adapters="permuted", sources=["source1"]).draws_on(SOURCES)


def test_random_adapters_have_the_norms_of_the_trained_ones() -> None:
    experts = random_experts(tiny_t5(), 3)
    changed, again, other = (
        random_adapters(bank, seed) for bank, seed in ((experts, 0), (experts[1:], 0), (experts, 1))
    )
    for before, after in zip(experts, changed, strict=True):
        assert after.scale == before.scale
        assert torch.equal(after.tensors["prompt"], before.tensors["prompt"])
        for name in before.tensors.keys() - {"prompt"}:
            torch.testing.assert_close(after.tensors[name].norm(), before.tensors[name].norm())
            cosine = F.cosine_similarity(after.tensors[name].flatten(), before.tensors[name].flatten(), dim=0)
            assert abs(cosine.item()) < 0.5
    up = "decoder.1.up"
    assert torch.equal(changed[1].tensors[up], again[0].tensors[up])  # whatever other sources there are
    assert not torch.allclose(changed[1].tensors[up], other[1].tensors[up])
    assert not torch.allclose(changed[0].tensors[up] * 2, changed[1].tensors[up] * 2, atol=0.1)


def test_shuffled_prompts_have_the_same_numbers_in_another_order() -> None:
    experts = random_experts(tiny_t5(), 2)
    for before, after, again in zip(experts, shuffled_prompts(experts, 3), shuffled_prompts(experts, 3), strict=True):
        found, prompt = after.tensors["prompt"], before.tensors["prompt"]
        assert torch.equal(found, again.tensors["prompt"])
        assert not torch.equal(found, prompt)
        assert torch.equal(found.flatten().sort().values, prompt.flatten().sort().values)
        assert all(after.tensors[name] is before.tensors[name] for name in before.tensors if name != "prompt")


@pytest.mark.parametrize("control", [{"source_adapters": "random"}, {"source_prompts": "shuffled"}], ids=str)
def test_controls_change_the_model(control: dict[str, Any]) -> None:
    backbone, batch, tensors = tiny_t5(), tiny_batch(), random_target_tensors(tiny_t5(), 3)
    experts = random_experts(backbone, 3)
    plain = logits(built(backbone, tensors, experts), batch)
    shared = fold_experts(backbone, experts)  # as a server passes it, of the unchanged experts
    changed = logits(method(**control).build(backbone, tensors, experts, shared).eval(), batch)
    assert torch.equal(changed, logits(built(backbone, tensors, experts, **control), batch))
    assert not torch.allclose(changed, plain, atol=1e-2)
    if "source_adapters" in control:
        other = built(backbone, tensors, experts, **control, source_seed=1)
        assert not torch.allclose(changed, logits(other, batch), atol=1e-2)


# Kinds with one source


def test_single_and_sequential_offer_every_source() -> None:
    known = [*SOURCES, JOINT]
    for kind in ("single", "sequential"):
        options = method(kind=kind, without=["source1"]).options(known)
        assert [option.draws_on(known) for option in options] == [["source0"], ["source2"]]
        assert method(kind=kind).draws_on(known) == SOURCES
        assert method(kind=kind, source="source2").options(known) == [method(kind=kind, source="source2")]
        with pytest.raises(SettingsError, match=r"source is 'source3', which .*; did you mean 'source"):
            method(kind=kind, source="source3").draws_on(known)
        with pytest.raises(SettingsError, match="sources is empty"):
            method(kind=kind, sources=[]).draws_on(known)
        with pytest.raises(RuntimeError, match="build one of the method's options"):
            method(kind=kind).build(tiny_t5(), {}, [])


def test_the_joint_source_is_used_where_it_is_named() -> None:
    known = [*SOURCES, JOINT]
    assert method().draws_on(known) == SOURCES
    assert method(sources=["source1", JOINT]).draws_on(known) == ["source1", JOINT]
    assert method().about(known) == ""
    assert method(kind="joint").draws_on(known) == [JOINT]
    with pytest.raises(SettingsError, match="there is no source 'joint'"):
        method(kind="joint").draws_on(SOURCES)


def test_joint_is_pemt_with_the_joint_expert() -> None:
    backbone, batch, tensors = tiny_t5(), tiny_batch(), random_target_tensors(tiny_t5(), 0)
    (expert,) = random_experts(backbone, 1)
    model = method(kind="joint").build(backbone, tensors, [replace(expert, task=JOINT)]).eval()
    assert set(model.trained) == set(tensors)
    found = logits(model, batch)
    alone = {**random_target_tensors(backbone, 1), **tensors}
    torch.testing.assert_close(found, logits(built(backbone, alone, [expert], sources=["source0"]), batch))


def test_sequential_transfer_starts_as_the_source() -> None:
    backbone, batch = tiny_t5(), tiny_batch()
    experts = random_experts(backbone, 3)
    sequential = method(kind="sequential", source="source1")
    ids, generator = torch.arange(3, 8), torch.Generator()
    start = sequential.initial_tensors(backbone, ids, [experts[1]], generator)
    found = sequential.build(backbone, start, [experts[1]]).eval()
    assert set(found.trained) == set(experts[1].tensors)
    with build_source_model(tiny_t5(), experts[1].tensors, scale=experts[1].scale) as source:
        assert torch.equal(logits(found, batch), source.eval()(**batch).logits)
    model = backbone_of_shapes("t5-base")
    shapes = source_shapes(model, 20, lambda _: 64)
    expert = Expert("mnli", {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}, 1.0)
    count = sum(each.numel() for each in sequential.initial_tensors(model, ids, [expert], generator).values())
    assert count == 5_898_240 + 768 * 20


# Reports


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"gate": "arrow", "top_k": 4}, "PEMT with the gate 'arrow' (top_k 4)"),
        ({"gate_input": "normalised"}, "PEMT with the gate 'input' (gate_input normalised)"),
        ({"gate_rate": 0.01}, "PEMT with the gates' learning rate times 0.01"),
        ({"sparsity_coefficient": 0.0}, "PEMT without the sparsity loss"),
        ({"sparsity_coefficient": 1.0}, "PEMT with the sparsity weight 1"),
        ({"sparsity_gradient": "cosines_detached"}, "PEMT with a sparsity loss that has no gradient into the cosines"),
        ({"guided_prompt": False}, "PEMT without a guided prompt"),
        ({"guide": "mean"}, "PEMT with the mean of the sources' prompts as guide"),
        ({"prompt_init": "normal"}, "PEMT with a random prompt at the start"),
        ({"description": "Add."}, "PEMT with a prompt that starts from another text"),
        ({"target_adapter": False, "norms": "frozen"}, "PEMT without target adapters and with frozen layer norms"),
        ({"source_adapters": "permuted"}, "PEMT with adapters exchanged between the sources"),
        ({"source_adapters": "random"}, "PEMT with untrained source adapters of the same norm"),
        ({"source_prompts": "shuffled"}, "PEMT with shuffled source prompts"),
        ({"sources": []}, "stage 2 without sources: target prompt, target adapters and layer norms alone"),
        ({"sources": [], "norms": "frozen"}, "stage 2 without sources: target prompt and target adapters alone"),
        ({"kind": "single"}, "PEMT with the source that is best on validation alone"),
        ({"kind": "single", "source": "source1", "guided_prompt": False},
         "PEMT with the source source1 alone and without a guided prompt"),
        ({"kind": "joint"}, "PEMT with one expert trained on all sources together"),
        ({"kind": "sequential", "source": "source0"},
         "the adapter and the prompt of the source source0, trained further on the target"),
    ],
    ids=str,
)  # fmt: skip
def test_reports_say_what_differs(entry: dict[str, Any], expected: str) -> None:
    assert method(**entry).about([*SOURCES, JOINT]) == expected


# From training to the stored model

STORED: dict[str, dict[str, Any]] = {
    "single": {"source": "beta"},
    "sequential": {"source": "beta"},
    "random_bank": {"kind": "pemt", "source_adapters": "random", "source_prompts": "shuffled", "source_seed": 5},
    "bare": {"kind": "pemt", "target_adapter": False, "norms": "frozen", "guided_prompt": False, "gate": "lorahub"},
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, world: World) -> Path:
    output = tmp_path_factory.mktemp("ablations") / "gamma"
    world.transfer(output, methods=STORED, seeds=[1], learning_rates=[0.01], epochs=1)
    return output


@pytest.mark.parametrize("name", STORED)
def test_a_stored_cell_gives_the_same_logits(name: str, trained: Path, world: World) -> None:
    backbone = load_backbone(world.folder / "backbone")
    bank = load_experts(world.folder / "experts", backbone)
    folder = trained / f"{name}-kfull-seed1"
    adapter = load_target(folder, "gamma", backbone, bank)
    assert adapter.tensors.keys() == load_adapter(folder, backbone.fingerprint, TargetDescription).tensors.keys()
    assert adapter.description.sources == (["beta"] if "source" in STORED[name] else ["alpha", "beta"])
    batch = tiny_batch(vocab_size=len(backbone.tokenizer))
    first, second = (logits(restore_target(backbone.model, adapter, bank).eval(), batch) for _ in range(2))
    assert torch.equal(first, second)
    chosen = method(**{"kind": name, **STORED[name]})
    again = chosen.build(backbone.model, adapter.tensors, bank.select(adapter.description.sources)).eval()
    assert torch.equal(first, logits(again, batch))
    with restore_target(backbone.model, adapter, bank).eval() as model:
        ids = model.generate(batch["input_ids"], batch["attention_mask"], max_new_tokens=3, do_sample=False)
    assert len(ids) == 4


@pytest.mark.parametrize("name", STORED)
def test_a_stored_cell_is_served(name: str, trained: Path, world: World) -> None:
    """Its experts' weights are shown, unless it mixes none, though other targets may share the unchanged experts."""
    predictor = load_predictor(
        world.folder / "backbone",
        world.folder / "experts",
        {"gamma": trained / f"{name}-kfull-seed1"},
        {"gamma": world.folder / "data" / "gamma"},
        {"gamma": get_task("cb").conversion},
        batch_size=4,
    )
    first, second = predictor.predict(["text: red", "text: blue"])
    assert {first.task, second.task} == {"gamma"}
    sources = {"single": ["beta"], "sequential": []}.get(name, ["alpha", "beta"])
    assert list(first.expert_weights) == sources
