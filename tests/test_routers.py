"""Gates against closed forms, hand references and peft; identities; counts; a task that one source solves."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_methods import SOURCES, UNIFORM_START, built, initial, logits, method
from test_peft import KEPT, peft_logits
from tiny import KINDS, Batch, random_experts, random_target_tensors, tiny_batch, tiny_t5
from torch import Tensor, nn
from torch.nn import functional as F

from pemt_core.artifacts.adapter import Adapter
from pemt_core.artifacts.description import SourceDescription
from pemt_core.backbone.shapes import backbone_of_shapes
from pemt_core.backbone.store import Backbone
from pemt_core.backbone.tokenizer import load_tokenizer
from pemt_core.errors import SettingsError
from pemt_core.lora.writer import save_lora
from pemt_core.methods.count import trained_parameters
from pemt_core.methods.gates import gate_modules
from pemt_core.methods.gates.arrow import ArrowGate, prototypes
from pemt_core.methods.gates.fusion import FusionGate
from pemt_core.methods.gates.scalearn import ScaledOutputs
from pemt_core.methods.gates.token import TokenGate
from pemt_core.methods.gates.top1 import Top1Gate
from pemt_core.model.assemble import Expert
from pemt_core.model.experts import FoldedExperts
from pemt_core.model.gate import Gate, InputGate
from pemt_core.model.signal import ForwardSignal
from pemt_core.model.stacks import feed_forwards

GATES = list(gate_modules())
LAYER = {"guided_prompt": False, "target_adapter": False, "norms": "frozen", "sparsity_coefficient": 0.0}
B, S, F_, D, E, R = 3, 5, 12, 8, 4, 2


def layer(seed: int = 0) -> tuple[FoldedExperts, nn.Linear, list[Tensor], list[Tensor]]:
    """The experts of one layer, folded and as matrices; each U has its scale."""
    generator = torch.Generator().manual_seed(seed)
    wo = nn.Linear(F_, D, bias=False).requires_grad_(False)
    downs = [torch.randn(R, F_, generator=generator) for _ in range(E)]
    ups = [torch.randn(D, R, generator=generator) for _ in range(E)]
    scales = [0.5 + k for k in range(E)]
    return FoldedExperts(wo, downs, ups, scales=scales), wo, downs, [s * u for s, u in zip(scales, ups, strict=True)]


def outputs(x: Tensor, downs: list[Tensor], ups: list[Tensor]) -> Tensor:
    """e_k for every position: (B, S, E, D)."""
    return torch.stack([x @ down.T @ up.T for down, up in zip(downs, ups, strict=True)], dim=2)


def moved(tensors: Mapping[str, Tensor], seed: int = 5) -> dict[str, Tensor]:
    """Tensors as after some training."""
    generator = torch.Generator().manual_seed(seed)
    return {name: tensor + 0.3 * torch.randn(tensor.shape, generator=generator) for name, tensor in tensors.items()}


def with_gates(tensors: Mapping[str, Tensor], gate: Callable[[str, Tensor], Tensor]) -> dict[str, Tensor]:
    """The tensors with those of gates changed by name and value."""
    return {name: gate(name, each) if "gate" in name.split(".") else each for name, each in tensors.items()}


def without_gates(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: each for name, each in tensors.items() if "gate" not in name.split(".")}


def rest(backbone: Any) -> dict[str, Tensor]:
    """Trained tensors of stage 2 besides gates."""
    return random_target_tensors(backbone, 0)


def one_hot(k: int, size: int = 3) -> Tensor:
    return torch.eye(size)[k]


# Identities between methods


@pytest.mark.parametrize("k", range(3))
def test_single_is_pemt_with_one_source_and_a_merged_matrix(k: int) -> None:
    backbone, merged, batch = tiny_t5(), tiny_t5(), tiny_batch()
    experts, tensors = random_experts(backbone, 3), rest(backbone)
    single = method(kind="single", source=SOURCES[k])
    assert single.draws_on(SOURCES) == [SOURCES[k]]
    model = single.build(backbone, tensors, [experts[k]]).eval()
    guided, result = model.prompt().detach(), model(**batch)
    assert {tuple(weights.unique().tolist()) for weights in model.signal.expert_weights.values()} == {(1.0,)}
    model.detach()

    alone = {f"{place.key}.gate": torch.randn(_gate_size(place), 1) for place in feed_forwards(backbone)}
    pemt = built(backbone, {**tensors, **alone}, [experts[k]], sources=[SOURCES[k]])
    same = pemt(**batch)
    pemt.detach()
    torch.testing.assert_close(result.logits, same.logits)
    torch.testing.assert_close(result.loss, same.loss)  # the sparsity loss included

    with torch.no_grad():
        for place in feed_forwards(merged):
            pair = experts[k].tensors[f"{place.key}.up"] @ experts[k].tensors[f"{place.key}.down"]
            place.layer.weight += experts[k].scale * pair
    plain = built(merged, {**tensors, "prompt": guided}, [], sources=[])
    torch.testing.assert_close(logits(plain, batch), result.logits.detach(), rtol=1e-4, atol=1e-4)


def _gate_size(place: Any) -> int:
    return int(place.layer.in_features if place.stack == "encoder" else place.layer.out_features)


@pytest.mark.parametrize("omega", ["vector", "scalar"])
@pytest.mark.parametrize("k", [None, 1])
def test_scalearn_with_equal_or_one_hot_numbers_is_uniform_or_single(k: int | None, omega: str) -> None:
    backbone, batch = tiny_t5(), tiny_batch()
    experts = random_experts(backbone, 3)
    options = {**LAYER, "gate": "scalearn", "omega": omega}
    start = initial(backbone, experts, **options)
    numbers = torch.full((3,), 1 / 3) if k is None else one_hot(k)
    tensors = with_gates(start, lambda _, each: numbers[:, None].expand_as(each).clone())
    found = logits(built(backbone, tensors, experts, **options), batch)
    chosen = experts if k is None else [experts[k]]
    expected = logits(built(backbone, without_gates(start), chosen, **LAYER, gate="uniform"), batch)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_lorahub_with_one_hot_weights_is_single_and_its_updates_are_a_static_gate() -> None:
    backbone, batch = tiny_t5(), tiny_batch()
    experts = random_experts(backbone, 3)
    options = {**LAYER, "gate": "lorahub"}
    start = initial(backbone, experts, **options)
    assert set(start) == {"prompt", "gate"}
    assert torch.equal(start["gate"], torch.full((3,), 1 / 3))
    rest_of, half = without_gates(start), 0.5 * one_hot(1)
    single = logits(built(backbone, rest_of, [experts[1]], **LAYER, gate="uniform"), batch)
    found = logits(built(backbone, {**rest_of, "gate": one_hot(1)}, experts, **options), batch)
    torch.testing.assert_close(found, single, rtol=1e-4, atol=1e-5)

    quarter = [Expert("source1", experts[1].tensors, experts[1].scale / 4)]  # half of both factors
    found = logits(built(backbone, {**rest_of, "gate": half}, experts, **options), batch)
    expected = logits(built(backbone, rest_of, quarter, **LAYER, gate="uniform"), batch)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    scores = torch.tensor([0.3, -1.0, 0.7])
    static = {f"{place.key}.gate": scores for place in feed_forwards(backbone)}
    updates = {**rest_of, "gate": scores.softmax(0)}
    torch.testing.assert_close(
        logits(built(backbone, updates, experts, **options, mixes="updates"), batch),
        logits(built(backbone, {**rest_of, **static}, experts, **LAYER, gate="static"), batch),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip


def test_mixed_factors_have_cross_terms() -> None:
    """Against the product of the mixed matrices."""
    backbone, batch = tiny_t5(), tiny_batch()
    experts, weights = random_experts(backbone, 3), torch.tensor([0.5, -1.0, 1.5])
    same = [Expert(expert.task, expert.tensors, 0.75) for expert in experts]
    options = {**LAYER, "gate": "lorahub"}
    rest_of = without_gates(initial(backbone, same, **options))
    factors = {
        name: sum(w * expert.tensors[name] for w, expert in zip(weights, same, strict=True))
        for name in same[0].tensors
        if name != "prompt"
    }
    mixed = Expert("source0", {**same[0].tensors, **factors}, 0.75)  # type: ignore[dict-item]
    torch.testing.assert_close(
        logits(built(backbone, {**rest_of, "gate": weights}, same, **options), batch),
        logits(built(backbone, rest_of, [mixed], **LAYER, gate="uniform"), batch),
        rtol=1e-4, atol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize("values", [True, False])
def test_fusion_without_a_query_is_uniform(values: bool) -> None:
    backbone, batch = tiny_t5(), tiny_batch()
    experts = random_experts(backbone, 3)
    options = {"gate": "fusion", "value_matrix": values}
    tensors = {**initial(backbone, experts, **options), **rest(backbone)}

    def change(name: str, tensor: Tensor) -> Tensor:
        if ".query." in name:
            return torch.zeros_like(tensor)
        return torch.eye(len(tensor)) if ".value." in name else torch.randn_like(tensor)

    found = built(backbone, with_gates(tensors, change), experts, **options)(**batch)
    expected = built(tiny_t5(), without_gates(tensors), experts, gate="uniform")(**batch)
    torch.testing.assert_close(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.loss, expected.loss)  # W_V is the identity, so there is no penalty


def test_a_token_gate_on_constant_inputs_is_a_gate_for_the_sequence() -> None:
    experts, *_ = layer()
    x, weight = torch.randn(B, 1, F_).expand(-1, S, -1), nn.Parameter(torch.randn(F_, E))
    signal = ForwardSignal()
    with signal.open(torch.ones(B, 2, dtype=torch.bool)):
        per_sequence = InputGate(weight, signal)(x, experts)
        per_position = TokenGate(weight, signal)(x, experts)
    assert per_position.weights.shape == (B, S, E)
    torch.testing.assert_close(per_position.weights[:, 3], per_sequence.weights)
    torch.testing.assert_close(per_position.output, per_sequence.output)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_gate_without_a_text_is_the_published_gate(kind: str) -> None:
    backbone, batch = tiny_t5(kind), tiny_batch()
    experts = random_experts(backbone, 3)
    tensors = random_target_tensors(backbone, 3)
    empty = {**batch, "attention_mask": torch.zeros_like(batch["attention_mask"])}
    for each, equal in ((empty, True), (batch, False)):
        found, published = (logits(built(backbone, tensors, experts, gate=g), each) for g in ("text", "input"))
        assert torch.allclose(found, published, rtol=1e-4, atol=1e-5) == equal


def test_a_text_gate_reads_the_mean_of_the_text_without_padding() -> None:
    backbone, batch = tiny_t5(), tiny_batch()
    experts, tensors = random_experts(backbone, 3), random_target_tensors(backbone, 3)
    model = built(backbone, tensors, experts, gate="text")
    seen: dict[str, Tensor] = {}
    model.backbone.encoder.block[0].layer[-1].DenseReluDense.wo.register_forward_pre_hook(
        lambda _, inputs: seen.update(encoder=inputs[0])
    )
    model.backbone.encoder.register_forward_hook(lambda *each: seen.update(decoder=each[2].last_hidden_state))
    weights = (logits(model, batch), dict(model.signal.expert_weights))[1]
    for key in ("encoder.0", "decoder.2"):
        for row in range(4):
            length = int(batch["attention_mask"][row].sum())
            mean = seen[key.split(".")[0]][row, 5 : 5 + length].mean(0)
            torch.testing.assert_close(weights[key][row], (mean @ tensors[f"{key}.gate"]).softmax(0))


def test_a_normalised_input_has_length_one() -> None:
    x, weight, signal = torch.randn(B, S, F_), nn.Parameter(torch.randn(F_, E)), ForwardSignal()
    with signal.open(torch.ones(B, 2, dtype=torch.bool)):
        once, thrice = (InputGate(weight, signal, normalised=True).weights(scale * x) for scale in (1, 3))
    mean = x[:, :2].mean(1)
    torch.testing.assert_close(once, (mean / mean.norm(dim=-1, keepdim=True) @ weight).softmax(-1))
    torch.testing.assert_close(once, thrice)


def test_top1_is_one_hot_with_the_gradient_of_the_softmax() -> None:
    class Soft(Gate):
        def __init__(self, scores: Tensor) -> None:
            super().__init__()
            self.scores = nn.Parameter(scores)

        def weights(self, x: Tensor) -> Tensor:
            return self.scores.softmax(-1)

    scores, direction = torch.tensor([[1.0, 3.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 0.0]]), torch.randn(3, 3)
    soft = Soft(scores)
    hard = Top1Gate(soft).weights(torch.zeros(3, S, F_))
    assert torch.equal(hard.detach(), torch.tensor([[0, 1, 0], [0.5, 0.5, 0], [1 / 3, 1 / 3, 1 / 3]]))
    (hard * direction).sum().backward()
    leaf = scores.clone().requires_grad_()
    (leaf.softmax(-1) * direction).sum().backward()
    torch.testing.assert_close(soft.scores.grad, leaf.grad)


# Mixtures against references by hand


def test_scaled_outputs_equal_the_sum_by_hand() -> None:
    experts, wo, downs, ups = layer()
    x, omega = torch.randn(B, S, F_), torch.randn(E, D)
    found = ScaledOutputs(nn.Parameter(omega)).eval()(x, experts)
    torch.testing.assert_close(found.output, wo(x) + (omega * outputs(x, downs, ups)).sum(2))
    torch.testing.assert_close(found.weights, omega.mean(-1).expand(B, -1))
    torch.manual_seed(0)
    gate, means = ScaledOutputs(nn.Parameter(omega)).train(), []
    for _ in range(1000):
        means.append(gate(x[:1, :1], experts).output)
    torch.testing.assert_close(torch.stack(means).mean(0), found.output[:1, :1], rtol=0.2, atol=0.5)


@pytest.mark.parametrize("values", [True, False])
def test_fusion_equals_attention_by_hand(values: bool) -> None:
    """As in adapters' BertFusion: keys and values of every expert, scores without scaling."""
    torch.manual_seed(0)
    experts, wo, downs, ups = layer()
    x = torch.randn(B, S, F_, requires_grad=True)
    query, key, value = (nn.Linear(D, D, bias=name != "value") for name in ("query", "key", "value"))
    names = {"query": query, "key": key} | ({"value": value} if values else {})
    parameters = {f"{n}.{p}": tensor for n, part in names.items() for p, tensor in part.named_parameters()}
    found = FusionGate(parameters, dropout=0.1).eval()(x, experts)
    e = outputs(x, downs, ups)
    scores = torch.einsum("bsd,bsed->bse", query(wo(x)), key(e))
    by_hand = wo(x) + torch.einsum("bse,bsed->bsd", scores.softmax(-1), value(e) if values else e)
    torch.testing.assert_close(found.weights, scores.softmax(-1))
    torch.testing.assert_close(found.output, by_hand)
    leaves = [x, *(tensor for name, tensor in parameters.items() if name != "key.bias")]
    pairs = zip(*(torch.autograd.grad(each.sin().sum(), leaves) for each in (found.output, by_hand)), strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_dropout_of_fusion_is_on_the_scores_before_the_softmax() -> None:
    experts, *_ = layer()
    parameters = {name: nn.Parameter(torch.randn(D, D)) for name in ("query.weight", "key.weight")}
    parameters |= {name: nn.Parameter(torch.randn(D)) for name in ("query.bias", "key.bias")}
    gate = FusionGate(parameters, dropout=1.0).train()
    torch.testing.assert_close(gate(torch.randn(B, S, F_), experts).weights, torch.full((B, S, E), 1 / E))


def test_penalties_are_added_to_the_loss() -> None:
    backbone, batch = tiny_t5(), tiny_batch()
    experts = random_experts(backbone, 3)
    tensors = moved(initial(backbone, experts, **LAYER, gate="fusion"))
    with built(backbone, tensors, experts, **LAYER, gate="fusion") as model:
        found = model(**batch)
    matrices = [tensor.numpy() for name, tensor in tensors.items() if name.endswith("value.weight")]
    penalty = 0.01 * sum(np.square(np.eye(len(each)) - each).sum() for each in matrices)
    assert len(matrices) == 5
    assert (found.loss - found.lm_loss).item() == pytest.approx(penalty, rel=1e-4)
    weights = {**without_gates(tensors), "gate": torch.tensor([0.5, -1.0, 1.5])}
    with built(backbone, weights, experts, **LAYER, gate="lorahub") as model:
        found = model(**batch)
        found.loss.backward()
    assert (found.loss - found.lm_loss).item() == pytest.approx(0.05, rel=1e-4)
    assert model.trained["gate"].grad is not None


@pytest.mark.parametrize("gate", ["lorahub", "scalearn"])
def test_the_sparsity_loss_leaves_out_free_numbers(gate: str) -> None:
    backbone, batch = tiny_t5(), tiny_batch()
    experts = random_experts(backbone, 3)
    with built(backbone, initial(backbone, experts, gate=gate), experts, gate=gate) as model:
        assert model(**batch).sparsity_loss is None


@pytest.mark.parametrize("positions", ["all", "unpadded"])
@pytest.mark.parametrize("gate", ["token", "fusion"])
def test_the_sparsity_loss_of_weights_per_position(gate: str, positions: str) -> None:
    """Each row's weights are averaged over the positions that count; the cosines are taken by hand."""
    backbone, batch = tiny_t5(), tiny_batch()
    experts = random_experts(backbone, 3)
    options = {"gate": gate, "sparsity_positions": positions}
    tensors = moved(initial(backbone, experts, **options))
    model = built(backbone, tensors, experts, **options)
    seen: dict[str, tuple[Tensor, Tensor, Tensor]] = {}
    for place in feed_forwards_attached(model):
        place.gate.register_forward_hook(
            lambda _, inputs, mixed, name=place.name: seen.update({name: (inputs[0], mixed.weights, mixed.output)})
        )
    with torch.no_grad():
        found = model(**batch).sparsity_loss
        masks = {
            "encoder": torch.cat([torch.ones(4, 5), batch["attention_mask"]], 1),
            "decoder": batch["labels"] != -100,
        }
        losses = []
        for place in feed_forwards_attached(model):
            x, weights, h = seen[place.name]
            mask = masks[place.stack].float() if positions == "unpadded" else torch.ones(weights.shape[:2])
            g = ((weights * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)).mean(0)
            for k, expert in enumerate(experts):
                e = x @ expert.tensors[f"{place.name}.down"].T @ expert.tensors[f"{place.name}.up"].T
                cosine = torch.cosine_similarity(place.adapter(h), e, dim=-1)
                losses.append(g[k] * (1 - (cosine * mask).sum() / mask.sum()))
    torch.testing.assert_close(found, sum(losses) / 5, rtol=1e-4, atol=1e-5)


def feed_forwards_attached(model: Any) -> list[Any]:
    blocks = [block for stack in ("encoder", "decoder") for block in getattr(model.backbone, stack).block]
    return [block.layer[-1].DenseReluDense.wo for block in blocks]


# Arrow


def test_prototypes_are_the_first_right_singular_vectors() -> None:
    experts, _, downs, ups = layer()
    found = prototypes(experts)
    for k, (down, up) in enumerate(zip(downs, ups, strict=True)):
        first = np.linalg.svd((up @ down).numpy())[2][0]
        assert abs(found[k].numpy() @ first) == pytest.approx(1, abs=1e-5)
        assert found[k].norm().item() == pytest.approx(1, abs=1e-5)


def test_arrow_weighs_the_closest_experts() -> None:
    experts, *_ = layer()
    x = torch.randn(B, S, F_)
    gate = ArrowGate(prototypes(experts), top_k=2, temperature=0.5)
    weights, scores = gate.weights(x), (x @ prototypes(experts).T).abs()
    for place in np.ndindex(B, S):
        order = scores[place].argsort(descending=True)
        expected = torch.zeros(E)
        expected[order[:2]] = (scores[place][order[:2]] / 0.5).softmax(0)
        torch.testing.assert_close(weights[place], expected)


def test_arrow_over_equal_prototypes_is_uniform() -> None:
    backbone, batch = tiny_t5(), tiny_batch()
    first, *others = random_experts(backbone, 3)
    same = [first, *(Expert(other.task, first.tensors, 2.0 * first.scale) for other in others)]
    options = {**LAYER, "gate": "arrow", "top_k": 9}
    start = initial(backbone, same, **options)
    uniform = built(backbone, start, same, **{**options, "gate": "uniform", "top_k": 3})
    expected = logits(uniform, batch)
    torch.testing.assert_close(logits(built(backbone, start, same, **options), batch), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_arrow_has_the_logits_of_peft(top_k: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With more steps of its power iteration, which approximates the singular vectors otherwise."""
    from peft import ArrowConfig, create_arrow_model
    from peft.tuners.lora.arrow import ArrowLoraLinearLayer

    iterate = partialmethod(ArrowLoraLinearLayer.top_right_singular_vec_from_BA, iters=500)
    monkeypatch.setattr(ArrowLoraLinearLayer, "top_right_singular_vec_from_BA", iterate)
    backbone, batch, experts = tiny_t5(), tiny_batch(), random_experts(tiny_t5(), 3)
    named = Backbone(backbone, load_tokenizer(str(KEPT)), "f" * 64)
    for expert in experts:
        description = SourceDescription(
            expert.task, "", "f" * 64, "", 1, {"rank": 3, "source_length": 32}, "generate", expert.scale
        )
        save_lora(tmp_path / expert.task, Adapter(description, dict(expert.tensors), ""), named, "backbone")
    config = ArrowConfig(top_k=top_k, router_temperature=0.7, rng_seed=0)
    paths = [str(tmp_path / expert.task) for expert in experts]
    theirs = create_arrow_model(copy.deepcopy(backbone), paths, config).eval()
    options = {**LAYER, "gate": "arrow", "top_k": top_k, "temperature": 0.7}
    tensors = initial(backbone, experts, **options)
    ours = logits(built(backbone, tensors, experts, **options), batch)
    torch.testing.assert_close(ours, peft_logits(theirs, tensors["prompt"], batch), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(ours, logits(built(backbone, tensors, experts, **LAYER, gate="uniform"), batch), atol=0.1)


# All gates


def trained_model(gate: str, kind: str = "t5", **options: Any) -> Any:
    backbone = tiny_t5(kind)
    experts = random_experts(backbone, 3)
    return built(backbone, moved(initial(backbone, experts, gate=gate)), experts, gate=gate, **options)


@pytest.mark.parametrize("gate", GATES)
def test_rows_do_not_depend_on_the_padding_of_their_batch(gate: str) -> None:
    """Logits and reported expert weights."""
    batch, model = tiny_batch(rows=5), trained_model(gate)
    with torch.no_grad():
        together, weights = model(**batch).logits, dict(model.signal.expert_weights)
        for row in range(5):
            length, target = int(batch["attention_mask"][row].sum()), int((batch["labels"][row] != -100).sum())
            alone = model(
                batch["input_ids"][row : row + 1, :length],
                batch["attention_mask"][row : row + 1, :length],
                batch["labels"][row : row + 1, :target],
            ).logits
            torch.testing.assert_close(alone[0], together[row, :target], rtol=1e-4, atol=1e-4)
            for name, weight in model.signal.expert_weights.items():
                assert weight.shape == (1, 3)
                torch.testing.assert_close(weight[0], weights[name][row], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gate", GATES)
def test_generation_with_and_without_a_cache_agrees(gate: str) -> None:
    """Texts, and expert weights; those of a position are averaged over a text without its end and padding."""
    batch, model = tiny_batch(rows=6), trained_model(gate)
    inputs = (batch["input_ids"], batch["attention_mask"])
    options = {"max_new_tokens": 8, "do_sample": False, "num_beams": 1, "min_new_tokens": 3}
    found = []
    for use_cache in (True, False):
        ids = model.generate(*inputs, use_cache=use_cache, **options)
        found.append((ids, dict(model.signal.expert_weights)))
    assert torch.equal(found[0][0], found[1][0])
    labels = found[0][0][:, 1:].clone()
    ends = (labels == model.backbone.config.eos_token_id).cumsum(1) > 0
    labels[ends & (labels != model.backbone.config.eos_token_id)] = -100
    with torch.no_grad():
        model(*inputs, labels)
    for name, weight in model.signal.expert_weights.items():
        for _, weights in found:
            torch.testing.assert_close(weights[name], weight, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("gate", GATES)
def test_scored_candidates_show_the_weights_of_the_first(gate: str) -> None:
    """Its log-probabilities and its weights are those of a forward pass, whatever is read beside it."""
    batch, model = tiny_batch(rows=4), trained_model(gate)
    others = batch["labels"].flip(0).masked_fill(batch["labels"].flip(0) != -100, 5)
    candidates = torch.stack([batch["labels"], others, others.roll(1, 0)], dim=1)
    with torch.no_grad():
        found = model(**batch)
        weights = dict(model.signal.expert_weights)
    losses = F.cross_entropy(found.logits.flatten(0, 1), batch["labels"].flatten(), reduction="none").view(4, -1)
    with model.encoded(batch["input_ids"], batch["attention_mask"]) as rows:
        scored = rows.log_probabilities(candidates)
    torch.testing.assert_close(scored[:, 0], -losses.sum(-1), rtol=1e-4, atol=1e-4)
    for name, weight in model.signal.expert_weights.items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gate", GATES)
def test_a_model_is_built_again_from_its_tensors(gate: str, kind: str) -> None:
    model, batch = trained_model(gate, kind), tiny_batch()
    tensors, experts = model.tensors(), random_experts(tiny_t5(kind), 3)
    assert set(tensors) == set(initial(tiny_t5(kind), experts, gate=gate))
    found = logits(model, batch)
    assert torch.equal(found, logits(built(tiny_t5(kind), tensors, experts, gate=gate), batch))


@pytest.mark.parametrize("gate", GATES)
def test_every_tensor_of_a_gate_gets_a_gradient(gate: str) -> None:
    """Also in bfloat16; the exception is the keys' bias, which a softmax cannot see without dropout."""
    model = trained_model(gate).to(torch.bfloat16)
    model(**tiny_batch()).loss.backward()
    for name, parameter in model.trained.items():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0 or name.endswith("key.bias"), name


def test_the_start_of_target_adapters_does_not_depend_on_the_gate() -> None:
    backbone = tiny_t5()
    experts = random_experts(backbone, 3)
    starts = [without_gates(initial(backbone, experts, gate=gate)) for gate in GATES]
    for start in starts[1:]:
        assert start.keys() == starts[0].keys()
        assert all(torch.equal(start[name], starts[0][name]) for name in start)


def test_published_starts() -> None:
    backbone = tiny_t5(d_model=64)
    experts = random_experts(backbone, 4)
    omega = initial(backbone, experts, gate="scalearn")["encoder.0.gate"]
    assert (omega.shape, omega.mean().item()) == ((4, 64), pytest.approx(0.5, abs=1e-3))
    assert omega.std().item() == pytest.approx(0.001, rel=0.2)
    fusion = initial(backbone, experts, gate="fusion")
    assert fusion["decoder.0.gate.query.weight"].std().item() == pytest.approx(0.02, rel=0.1)
    value = fusion["decoder.0.gate.value.weight"]
    assert value.diagonal().unique().tolist() == [1.0]
    assert (value - torch.eye(64)).unique().tolist() == pytest.approx([0, 1e-6])
    assert not fusion["encoder.1.gate.key.bias"].any()


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"top_k": 2}, "key 'top_k' is 2: the gate 'input' has no such setting, only 'arrow'"),
        ({"gate": "token", "mixes": "updates"}, "the gate 'token' has no such setting, only 'lorahub'"),
        ({"gate": "static", "gate_input": "normalised"}, "only 'input' or 'text' or 'token' or 'top1'"),
        ({"gate": "arrow", "temperature": 0.0}, "key 'temperature' is 0.0"),
        ({"kind": "single", "gate": "input"}, "key 'gate' is 'input'"),
    ],
)
def test_a_setting_of_another_gate_is_refused(entry: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        method(**entry)
    assert expected in str(caught.value)


def test_the_gates_have_a_learning_rate_of_their_own() -> None:
    names = ["prompt", "gate", "encoder.0.gate", "decoder.1.gate.query.weight", "encoder.0.adapter.up.bias"]
    assert method().learning_rate_factors(names) == {}
    assert method(gate_rate=0.01).learning_rate_factors(names) == dict.fromkeys(names[1:4], 0.01)


# Counts


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({}, 2_113_152),
        ({"gate": "uniform"}, 1_836_672),
        ({"gate": "static"}, 1_836_672 + 144),
        ({"gate": "text"}, 2_113_152),
        ({"gate": "top1"}, 2_113_152),
        ({"gate": "arrow"}, 1_836_672),
        ({"gate": "token"}, 1_836_672 + 442_368),
        ({"gate": "scalearn"}, 1_836_672 + 110_592),
        ({"gate": "scalearn", "omega": "scalar"}, 1_836_672 + 144),
        ({"gate": "lorahub"}, 1_836_672 + 6),
        ({"gate": "fusion"}, 1_836_672 + 42_504_192),
        ({"gate": "fusion", "value_matrix": False}, 1_836_672 + 28_348_416),
        ({"target_adapter": False}, 324_096),
        ({"norms": "frozen"}, 2_065_536),
        ({"gate": "fusion", "target_adapter": False, "norms": "frozen"}, 42_504_192),
        ({"kind": "single"}, 1_836_672),
        ({"kind": "joint"}, 1_836_672),
    ],
    ids=str,
)
def test_counts_on_t5_base(entry: dict[str, Any], expected: int) -> None:
    sources = ["mnli", "qnli", "qqp", "sst2", "squad", "record", "joint"]
    count = trained_parameters(method(**entry, reduction_factor=16), backbone_of_shapes("t5-base"), sources, 64, 100)
    assert (count.fixed, count.per_prompt_token) == (expected, 768)


def test_eighteen_sources_on_t5_base() -> None:
    sources = [f"source{k}" for k in range(18)]
    count = trained_parameters(method(reduction_factor=16), backbone_of_shapes("t5-base"), sources, 64, 100)
    assert count.fixed == 1_836_672 + 829_440


# A planted task


@dataclass(frozen=True)
class Planted:
    """A task that one of the sources solves: its model's probabilities are the target."""

    backbone: Any
    experts: list[Expert]
    solved_by: int
    batch: Batch
    target: Tensor

    def loss(self, model: Any) -> Tensor:
        """The mean divergence from the target, 0 for the right source."""
        found = model(**self.batch).logits.log_softmax(-1)
        return F.kl_div(found, self.target, log_target=True, reduction="none").sum(-1).mean()


@pytest.fixture(scope="module")
def planted() -> Planted:
    backbone, k, batch = tiny_t5(seed=3), 1, tiny_batch(rows=32)
    experts = [replace(expert, scale=2.0) for expert in random_experts(backbone, 3, seed=4)]
    teacher = built(
        backbone, initial(backbone, experts, **LAYER, gate="uniform"), [experts[k]], **LAYER, gate="uniform"
    )
    return Planted(backbone, experts, k, batch, logits(teacher, batch).log_softmax(-1))


@pytest.mark.parametrize(("gate", "rate"), [("input", 0.1), ("token", 0.1), ("fusion", 0.02)])
def test_gates_find_the_source_that_solves_the_task(gate: str, rate: float, planted: Planted) -> None:
    options = {**LAYER, "gate": gate}
    model = built(planted.backbone, initial(planted.backbone, planted.experts, **options), planted.experts, **options)
    gates = [tensor for name, tensor in model.trained.items() if "gate" in name.split(".")]
    optimizer, losses = torch.optim.Adam(gates, lr=rate), []
    for _ in range(40):
        optimizer.zero_grad()
        losses.append(planted.loss(model))
        losses[-1].backward()
        optimizer.step()
    weights = torch.stack([each.mean(0) for each in model.signal.expert_weights.values()])
    model.detach()
    assert losses[-1].item() < 0.05 * losses[0].item()
    assert (weights.argmax(-1) == planted.solved_by).all()
    assert weights[:, planted.solved_by].mean() > 0.8


def test_the_best_single_source_is_the_one_that_solves_the_task(planted: Planted) -> None:
    losses = []
    for option in method(kind="single", **LAYER).options(SOURCES):
        (expert,) = (each for each in planted.experts if each.task in option.draws_on(SOURCES))
        tensors = initial(planted.backbone, [expert], **LAYER, gate="uniform")
        with option.build(planted.backbone, tensors, [expert]).eval() as model, torch.no_grad():
            losses.append(planted.loss(model).item())
    assert int(np.argmin(losses)) == planted.solved_by
    assert min(losses) < 1e-6


def test_all_gates_of_shares_are_tested() -> None:
    assert set(UNIFORM_START) | {"arrow", "fusion", "lorahub", "scalearn"} == set(GATES)
