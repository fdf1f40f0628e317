"""LoRAs of PEFT on any linear layer, as experts, on every family: equal to PEFT, to closed forms, and to themselves."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from test_methods import SOURCES, built, initial, logits, method
from tiny import Batch, change_record, random_experts, tiny_batch, tiny_t5
from tiny_models import MODELS, tiny_model
from torch import Tensor

from pemt_core.artifacts.adapter import Adapter
from pemt_core.artifacts.description import SourceDescription
from pemt_core.artifacts.experts import MANIFEST, TENSORS, ImportedExpert, load_experts, save_experts
from pemt_core.artifacts.files import sha256_of_file
from pemt_core.backbone.families import family_of
from pemt_core.backbone.store import Backbone
from pemt_core.errors import ArtifactError
from pemt_core.lora.layout import PROMPT
from pemt_core.lora.reader import load_lora, lora_ranks
from pemt_core.methods.count import trained_parameters
from pemt_core.methods.gates import gate_modules
from pemt_core.methods.gates.arrow import prototypes
from pemt_core.model.assemble import Expert, initial_source_tensors
from pemt_core.model.stacks import linear_layers, width

# peft 0.21 reads an attribute that transformers 5.23 has renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

FINGERPRINT = "f" * 64
PLAIN: dict[str, Any] = {
    "guided_prompt": False, "target_adapter": False, "norms": "frozen", "sparsity_coefficient": 0.0,
}  # fmt: skip
GREEDY: dict[str, Any] = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False}
ATTENTION, INNER, EVERYWHERE = ("q", "v"), ("o", "wi"), ("q", "k", "v", "o", "wi", "wo")


def lora_of(model: Any, folder: Path, roles: Sequence[str], **options: Any) -> Any:
    """Save a LoRA with random matrices and a random prompt in `folder`; returns PEFT's model."""
    task = "SEQ_2_SEQ_LM" if family_of(model).has_encoder else "CAUSAL_LM"
    settings = {"r": 3, "lora_alpha": 4, "init_lora_weights": False, "task_type": task, **options}
    config = peft.LoraConfig(target_modules=_within_blocks(model, roles), **settings)
    with torch.random.fork_rng():
        torch.manual_seed(len(roles))
        theirs = peft.get_peft_model(copy.deepcopy(model), config).eval()
    theirs.save_pretrained(str(folder))
    generator = torch.Generator().manual_seed(len(roles))
    save_file({"prompt": torch.randn(4, width(model), generator=generator)}, folder / PROMPT)
    return theirs


def _within_blocks(model: Any, roles: Sequence[str]) -> list[str]:
    """Names of modules, in full: T5Gemma 2 has a vision tower with attentions of its own."""
    return [place.name for place in linear_layers(model) if place.role in roles]


def imported(model: Any, folder: Path, name: str = "own") -> Expert:
    return load_lora(folder, name, None, Backbone(model, None, FINGERPRINT)).expert


def stage_1_expert(model: Any, name: str = "trained") -> Expert:
    generator = torch.Generator().manual_seed(9)
    prompt = torch.randn(3, width(model), generator=generator)
    tensors = initial_source_tensors(model, prompt, rank=2, init="kaiming", generator=generator)
    return Expert(name, tensors, 0.75)


def batch_of(model: Any) -> Batch:
    return tiny_batch(vocab_size=64 if width(model) == 16 else 120)


def moved(tensors: Mapping[str, Tensor], seed: int = 5) -> dict[str, Tensor]:
    """The tensors as after some training."""
    generator = torch.Generator().manual_seed(seed)
    return {name: tensor + 0.3 * torch.randn(tensor.shape, generator=generator) for name, tensor in tensors.items()}


def chosen(tensors: Mapping[str, Tensor], k: int) -> dict[str, Tensor]:
    """The tensors with every static gate one-hot, exactly: softmax of (0, 1000, 0) is (0, 1, 0) in float32."""
    gates = {name: torch.zeros_like(tensor) for name, tensor in tensors.items() if name.endswith(".gate")}
    for gate in gates.values():
        gate[k] = 1000.0
    return {**tensors, **gates}


# --- equality with PEFT

LORAS: dict[str, dict[str, Any]] = {
    "queries and values": {"roles": ATTENTION},
    "rank-stabilised, with ranks and scales of their own": {
        "roles": EVERYWHERE, "use_rslora": True,
        "rank_pattern": {".*[.]0[.].*": 5}, "alpha_pattern": {".*v(_proj)?": 9},
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", LORAS)
def test_a_one_hot_gate_has_the_logits_of_peft(kind: str, name: str, tmp_path: Path) -> None:
    """Among an expert of stage 1, and LoRAs on other layers: each alone, then none of the others adds anything."""
    model = tiny_model(kind)
    theirs = [lora_of(model, tmp_path / "own", **LORAS[name]), lora_of(model, tmp_path / "inner", INNER)]
    experts = [stage_1_expert(model), imported(model, tmp_path / "own"), imported(model, tmp_path / "inner", "inner")]
    batch, options = batch_of(model), {**PLAIN, "gate": "static"}
    start = initial(model, experts, **options)
    for k, lora in enumerate(theirs, start=1):
        expected = logits(built(lora.get_base_model(), {"prompt": start["prompt"]}, [], **PLAIN, sources=[]), batch)
        found = logits(built(copy.deepcopy(model), chosen(start, k), experts, **options), batch)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
        plain = logits(built(copy.deepcopy(model), {"prompt": start["prompt"]}, [], **PLAIN, sources=[]), batch)
        assert not torch.allclose(found, plain, atol=1e-2)


def test_a_mixture_adds_the_weighted_updates_of_peft(tmp_path: Path) -> None:
    """With weights 0.3 and 0.7 in every layer, the model is that of weights W + 0.3 dW_1 + 0.7 dW_2."""
    model = tiny_model("llama")
    theirs = [lora_of(model, tmp_path / str(k), roles) for k, roles in enumerate((ATTENTION, EVERYWHERE))]
    experts = [imported(model, tmp_path / str(k), str(k)) for k in range(2)]
    options = {**PLAIN, "gate": "static"}
    start = initial(model, experts, **options)
    weights = torch.tensor([0.3, 0.7])
    tensors = {name: weights.log() if name.endswith(".gate") else tensor for name, tensor in start.items()}
    merged = copy.deepcopy(model)
    for weight, lora in zip(weights, theirs, strict=True):
        for place in linear_layers(merged):
            module = lora.get_base_model().get_submodule(place.name)
            if hasattr(module, "get_delta_weight"):
                place.layer.weight.data += weight * module.get_delta_weight("default")
    expected = logits(built(merged, {"prompt": start["prompt"]}, [], **PLAIN, sources=[]), batch_of(model))
    found = logits(built(model, tensors, experts, **options), batch_of(model))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


# --- what the gates of attentions read


@pytest.mark.parametrize("kind", ["t5", "t5gemma2", "llama"])
def test_the_gate_reads_the_layers_input_or_the_encoders_output_at_the_prompt(kind: str, tmp_path: Path) -> None:
    model, seen = tiny_model(kind), dict[str, Tensor]()
    lora_of(model, tmp_path / "own", EVERYWHERE)
    experts, batch = [stage_1_expert(model), imported(model, tmp_path / "own")], batch_of(model)
    tensors = moved(initial(model, experts))
    mixed = built(model, tensors, experts, prompt_dropout=0.0).eval()
    family = family_of(model)
    for place in linear_layers(model):
        module = getattr(place.parent, place.attribute)
        module.register_forward_pre_hook(lambda _, inputs, key=place.key: seen.update({key: inputs[0]}))
    if family.has_encoder:
        model.get_encoder().register_forward_hook(lambda _, __, output: seen.update(encoder=output.last_hidden_state))
    with torch.no_grad():
        mixed(**batch)
    length, before = len(tensors["prompt"]), int(family.starts_with_bos)
    start = before if family.has_encoder else before + batch["input_ids"].shape[1]
    for place in linear_layers(model):
        read = seen[place.key] if place.encoder_width is None else seen["encoder"]
        mean = read[:, start : start + length].mean(1)
        expected = (mean @ tensors[f"{place.key}.gate"]).softmax(-1)
        torch.testing.assert_close(mixed.signal.expert_weights[place.key], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_generation_and_scores_do_not_depend_on_cache_or_batch(kind: str, tmp_path: Path) -> None:
    model = tiny_model(kind)
    lora_of(model, tmp_path / "own", EVERYWHERE)
    experts, batch = [stage_1_expert(model), imported(model, tmp_path / "own")], batch_of(model)
    mixed = built(model, moved(initial(model, experts)), experts).eval()
    inputs = batch["input_ids"], batch["attention_mask"]
    assert torch.equal(mixed.generate(*inputs, **GREEDY), mixed.generate(*inputs, use_cache=False, **GREEDY))
    candidates = batch["labels"].clamp_min(2).unsqueeze(0).expand(4, -1, -1)
    with mixed.encoded(*inputs) as rows:
        found = rows.log_probabilities(candidates)
    for column in range(4):
        with torch.no_grad():
            labels = candidates[:, column]
            together = mixed(*inputs, labels).logits.log_softmax(-1)
            alone = [[part[row : row + 1] for part in (*inputs, labels)] for row in range(4)]
            one_by_one = torch.cat([mixed(*parts).logits for parts in alone])
        expected = together.gather(-1, labels.unsqueeze(-1)).sum((1, 2))
        torch.testing.assert_close(found[:, column], expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(one_by_one.log_softmax(-1), together, rtol=1e-3, atol=1e-4)


# --- every gate, control and kind of method


def three_experts(folder: Path) -> list[Expert]:
    """On a tiny T5: one of stage 1, a LoRA on q and v, and one on all linear layers."""
    backbone = tiny_t5()
    lora_of(backbone, folder / "attention", ATTENTION)
    lora_of(backbone, folder / "everywhere", EVERYWHERE)
    names = ("attention", "everywhere")
    own = replace(random_experts(backbone, 1)[0], task=SOURCES[0])
    others = (imported(backbone, folder / name, source) for name, source in zip(names, SOURCES[1:], strict=True))
    return [own, *others]


@pytest.mark.parametrize("gate", gate_modules())
def test_every_gate_mixes_them(gate: str, tmp_path: Path) -> None:
    """All its tensors get gradients, generation with and without a cache agrees, and the count is exact."""
    backbone, experts, batch = tiny_t5(), three_experts(tmp_path), tiny_batch()
    tensors = moved(initial(backbone, experts, gate=gate))
    model = built(backbone, tensors, experts, gate=gate)
    model(**batch).loss.backward()
    attention = [name for name in model.trained if "Attention" in name]
    assert bool(attention) == (gate not in ("uniform", "arrow", "lorahub"))
    for name, parameter in model.trained.items():
        assert parameter.grad is not None, name
        if not name.endswith("key.bias"):  # softmax ignores what is added to all scores
            assert parameter.grad.abs().max() > 0, name
    inputs = batch["input_ids"], batch["attention_mask"]
    model.eval()
    assert torch.equal(model.generate(*inputs, **GREEDY), model.generate(*inputs, use_cache=False, **GREEDY))
    folders = zip(SOURCES[1:], ("attention", "everywhere"), strict=True)
    ranks = {name: lora_ranks(tmp_path / folder, backbone) for name, folder in folders}
    count = trained_parameters(method(gate=gate), model.detach(), SOURCES, 3, 100, ranks)
    assert count.with_prompt(len(tensors["prompt"])) == model.num_trained_parameters()


def test_arrow_gives_no_weight_of_its_own_to_an_expert_without_a_pair(tmp_path: Path) -> None:
    backbone, experts = tiny_t5(), three_experts(tmp_path)
    with built(backbone, initial(backbone, experts, gate="arrow"), experts, gate="arrow"):
        found = prototypes(backbone.encoder.block[0].layer[0].SelfAttention.q.experts)
    assert found.norm(dim=1).tolist() == pytest.approx([0, 1, 1])


@pytest.mark.parametrize("control", ["permuted", "random"])
def test_controls_change_imported_adapters_too(control: str, tmp_path: Path) -> None:
    backbone, experts, batch = tiny_t5(), three_experts(tmp_path), tiny_batch()
    start = initial(backbone, experts)
    own = logits(built(backbone, start, experts), batch)
    found = logits(built(backbone, start, experts, source_adapters=control), batch)
    assert torch.allclose(found, own, atol=1e-4) == (control == "permuted")  # at the start, all weigh the same
    moved_on = moved(start)
    changed = logits(built(backbone, moved_on, experts, source_adapters=control), batch)
    assert not torch.allclose(changed, logits(built(backbone, moved_on, experts), batch), atol=1e-2)


def test_sequential_transfer_continues_a_lora_on_queries_and_values(tmp_path: Path) -> None:
    backbone, batch = tiny_t5(), tiny_batch()
    theirs = lora_of(backbone, tmp_path / "lora", ATTENTION)
    expert = imported(backbone, tmp_path / "lora")
    sequential = method(kind="sequential", source="source1")
    model = sequential.build(backbone, expert.tensors, [expert]).eval()
    prompt = {"prompt": expert.tensors["prompt"]}
    expected = logits(built(theirs.get_base_model(), prompt, [], **PLAIN, sources=[]), batch)
    torch.testing.assert_close(logits(model, batch), expected, rtol=1e-4, atol=1e-5)
    ranks = {"source1": lora_ranks(tmp_path / "lora", backbone)}
    count = trained_parameters(sequential, backbone, SOURCES, rank=7, prompt_length=100, imported=ranks)
    assert count.with_prompt(4) == sum(tensor.numel() for tensor in expert.tensors.values())


def test_the_sparsity_loss_compares_experts_at_feed_forwards_alone(tmp_path: Path) -> None:
    """Experts on queries and values have the cosine 0 with the output of `wo`: each layer's term is sum_k g_k = 1."""
    backbone, batch = tiny_t5(), tiny_batch()
    experts = three_experts(tmp_path)[1:2]
    model = built(backbone, moved(initial(backbone, experts)), experts, sparsity_coefficient=0.1).eval()
    output = model(**batch)
    torch.testing.assert_close(output.sparsity_loss, torch.tensor(1.0))
    torch.testing.assert_close(output.loss, output.lm_loss + 0.1)


# --- stored experts


@pytest.fixture
def bank(tmp_path: Path) -> tuple[Path, Backbone, list[Expert]]:
    """The folder of stored experts, one of stage 1 and two imported."""
    first, *others = experts = three_experts(tmp_path)
    description = SourceDescription(first.task, "", FINGERPRINT, "", 1, {}, "generate", first.scale)
    adapters = [Adapter(description, dict(first.tensors), "")]
    save_experts(tmp_path / "experts", adapters, [ImportedExpert(each, FINGERPRINT, "") for each in others])
    return tmp_path / "experts", Backbone(tiny_t5(), None, FINGERPRINT), experts


def test_stored_experts_are_read_back(bank: tuple[Path, Backbone, list[Expert]]) -> None:
    folder, backbone, experts = bank
    for read, expert in zip(load_experts(folder, backbone).experts, experts, strict=True):
        assert (read.task, read.scale, set(read.tensors)) == (expert.task, expert.scale, set(expert.tensors))
        assert all(torch.equal(tensor, expert.tensors[name]) for name, tensor in read.tensors.items())
    tensors, batch = moved(initial(backbone.model, experts)), tiny_batch()
    before = logits(built(backbone.model, tensors, experts), batch)
    read_back = list(load_experts(folder, backbone).experts)
    assert torch.equal(before, logits(built(backbone.model, tensors, read_back), batch))


QUERY = "encoder.block.0.layer.0.SelfAttention.q"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({f"1/{QUERY}.up": torch.zeros(5, 3)}, rf"'1/{QUERY}.up' has the shape \[5, 3\], expected \[16, 3\]"),
        ({f"1/{QUERY}.up": None}, rf"lacks the tensor '1/{QUERY}.up'"),
        ({f"1/{QUERY}.down": None}, rf"has a tensor '1/{QUERY}.up', not expected by the backbone"),
        ({"1/lm_head.down": torch.zeros(3, 16)}, "has a tensor '1/lm_head.down', not expected by the backbone"),
        ({f"1/{QUERY}.up": torch.zeros(16, 3).half()}, r"is torch.float16, expected torch.float32"),
    ],
)
def test_experts_that_do_not_fit_are_refused(
    changes: dict[str, Tensor | None], expected: str, bank: tuple[Path, Backbone, list[Expert]]
) -> None:
    folder, backbone, _ = bank
    tensors = {**load_file(folder / TENSORS), **changes}
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, folder / TENSORS)
    change_record(folder / MANIFEST, sha256=sha256_of_file(folder / TENSORS))
    with pytest.raises(ArtifactError, match=expected):
        load_experts(folder, backbone)
