"""The whole model: equality with plain_model.py, exact attaching, parameter counts, generation and precision."""

import hashlib
from typing import Any

import pytest
import torch
from plain_model import PlainExpert, PlainTarget, plain_source
from tiny import KINDS, Batch, random_experts, random_target_tensors, target_model, tiny_batch, tiny_t5
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DynamicCache, EncoderDecoderCache, T5Config, T5ForConditionalGeneration

from pemt_core.model.assemble import (
    Expert,
    build_source_model,
    build_target_model,
    initial_prompt,
    initial_source_tensors,
    initial_target_tensors,
)
from pemt_core.model.prompted import PromptedModel

GREEDY: dict[str, Any] = {"do_sample": False, "num_beams": 1}


def source_tensors(backbone: Any, init: str = "kaiming", prompt_length: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    prompt = initial_prompt(backbone, torch.arange(2, 2 + prompt_length), "vocab", generator)
    return initial_source_tensors(backbone, prompt, rank=3, init=init, generator=generator)  # type: ignore[arg-type]


def relative_error(value: Tensor, reference: Tensor) -> float:
    return ((value - reference).abs().max() / reference.abs().max().clamp_min(1e-6)).item()


def hash_of(tensor: Tensor) -> str:
    return hashlib.sha256(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()


def snapshot(backbone: nn.Module) -> dict[str, Any]:
    """Record everything that attaching could change."""
    return {
        "state": {name: hash_of(tensor) for name, tensor in backbone.state_dict().items()},
        "identities": {name: id(parameter) for name, parameter in backbone.named_parameters()},
        "modules": {name: id(module) for name, module in backbone.named_modules()},
        "requires_grad": {name: parameter.requires_grad for name, parameter in backbone.named_parameters()},
        "hooks": {
            name: (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
            for name, m in backbone.named_modules()
        },
        "attributes": {name: sorted(vars(module)) for name, module in backbone.named_modules()},
    }


# --- comparison with the plain loop


@pytest.mark.parametrize("positions", ["all", "unpadded"])
@pytest.mark.parametrize(("kind", "num_experts"), [*((kind, 3) for kind in KINDS), ("t5", 1), ("t5", 12)])
def test_stage_2_equals_the_plain_loop(kind: str, num_experts: int, positions: str) -> None:
    """Outputs, losses, gates and gradients agree: unequal stacks, gated feed-forwards, mT5, one or several experts."""
    backbone, batch = tiny_t5(kind), tiny_batch()
    experts, tensors = random_experts(backbone, num_experts), random_target_tensors(backbone, num_experts)
    plain = PlainTarget(
        backbone, tensors, [PlainExpert(e.tensors, e.scale) for e in experts], coefficient=0.1, positions=positions
    )
    expected = plain(**batch)
    expected.loss.backward()
    model = build_target_model(
        backbone,
        tensors,
        experts,
        prompt_dropout=0.1,
        sparsity_coefficient=0.1,
        sparsity_positions=positions,  # type: ignore[arg-type]
    ).eval()
    found = model(**batch)
    found.loss.backward()
    assert found.sparsity_loss is not None
    assert relative_error(found.logits, expected.logits) < 1e-5
    assert relative_error(found.lm_loss, expected.lm_loss) < 1e-5
    assert relative_error(found.sparsity_loss, expected.sparsity_loss) < 1e-5
    assert relative_error(found.loss, expected.loss) < 1e-5
    assert model.signal.expert_weights.keys() == expected.gates.keys()
    for name, gate in expected.gates.items():
        assert relative_error(model.signal.expert_weights[name], gate) < 1e-5
    assert model.trained.keys() == plain.tensors.keys()
    for name, leaf in plain.tensors.items():
        gradient = model.trained[name].grad
        assert gradient is not None, name
        assert leaf.grad is not None, name
        if num_experts == 1 and name.endswith(".gate"):  # a single expert always has weight 1
            assert gradient.abs().max() < 1e-6
        else:
            assert relative_error(gradient, leaf.grad) < 5e-5, name


@pytest.mark.parametrize("kind", KINDS)
def test_stage_1_equals_the_plain_formula(kind: str) -> None:
    backbone, batch = tiny_t5(kind), tiny_batch()
    tensors = source_tensors(backbone)
    logits, loss, gradients = plain_source(backbone, tensors, 0.5, batch)
    model = build_source_model(backbone, tensors, scale=0.5).eval()
    found = model(**batch)
    found.loss.backward()
    assert found.sparsity_loss is None
    assert relative_error(found.logits, logits) < 1e-5
    assert relative_error(found.loss, loss) < 1e-5
    assert model.trained.keys() == gradients.keys()
    for name, reference in gradients.items():
        gradient = model.trained[name].grad
        assert gradient is not None
        assert relative_error(gradient, reference) < 5e-5, name


@pytest.mark.parametrize("kind", KINDS)
def test_stage_1_starts_as_the_backbone_with_the_prompt(kind: str) -> None:
    """With zero init, the loss equals that of transformers' T5 with the description's tokens before the text."""
    backbone, batch = tiny_t5(kind), tiny_batch()
    ids = torch.tensor([9, 4, 33, 1]).expand(len(batch["labels"]), -1)
    with torch.no_grad():
        bare = backbone(
            input_ids=torch.cat([ids, batch["input_ids"]], dim=1),
            attention_mask=F.pad(batch["attention_mask"], (4, 0), value=1),
            labels=batch["labels"],
        )
    generator = torch.Generator().manual_seed(0)
    prompt = initial_prompt(backbone, ids[0], "vocab", generator)
    tensors = initial_source_tensors(backbone, prompt, rank=2, init="zero", generator=generator)
    model = build_source_model(backbone, tensors, scale=1.0).eval()
    found = model(**batch)
    model.detach()
    torch.testing.assert_close(found.logits, bare.logits)
    torch.testing.assert_close(found.loss, bare.loss)
    trained = initial_source_tensors(backbone, prompt, rank=2, init="kaiming", generator=generator)
    moved = build_source_model(backbone, trained, scale=1.0).eval()(**batch)
    assert not torch.allclose(moved.loss, bare.loss)


def test_initial_tensors_follow_the_method() -> None:
    backbone = tiny_t5(d_model=32, d_ff=4000)
    generator = torch.Generator().manual_seed(0)
    normal = initial_prompt(backbone, torch.arange(500) % 60, "normal", generator)
    assert normal.mean().item() == pytest.approx(0, abs=0.03)
    assert normal.std().item() == pytest.approx(1, abs=0.03)
    source = initial_source_tensors(backbone, normal, rank=8, init="zero", generator=generator)
    bound = 4000**-0.5  # Kaiming-uniform with a = sqrt 5: U(-1/sqrt(fan in), 1/sqrt(fan in))
    assert source["encoder.0.down"].abs().max().item() == pytest.approx(bound, rel=1e-2)
    assert source["encoder.0.down"].std().item() == pytest.approx(bound / 3**0.5, rel=2e-2)
    assert not source["encoder.0.up"].any()
    kaiming = initial_source_tensors(backbone, normal, rank=8, init="kaiming", generator=generator)
    assert kaiming["decoder.2.up"].abs().max().item() == pytest.approx(8**-0.5, rel=2e-2)
    target = initial_target_tensors(
        backbone, normal, random_experts(backbone, 3), reduction_factor=16, generator=generator
    )
    assert target["encoder.1.gate"].shape == (4000, 3)
    assert target["decoder.1.gate"].shape == (32, 3)
    assert not any(t.any() for name, t in target.items() if name.endswith(("gate", "bias")))
    weights = torch.cat([t.flatten() for name, t in target.items() if name.endswith(("down.weight", "up.weight"))])
    assert weights.std().item() == pytest.approx(0.01, rel=0.1)
    state = backbone.state_dict()
    norms = {name for name in state if name.endswith("layer_norm.weight")}
    assert {name for name in target if "layer_norm" in name} == norms
    assert all(torch.equal(target[name], state[name]) for name in norms)


# --- batches, generation


def rows_of(batch: Batch, row: int) -> Batch:
    return {name: tensor[row : row + 1] for name, tensor in batch.items()}


@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_of_one_equals_its_row_in_a_batch(kind: str) -> None:
    backbone, batch = tiny_t5(kind), tiny_batch(rows=5)
    model = target_model(backbone)
    with torch.no_grad():
        together = model(**batch)
        weights = dict(model.signal.expert_weights)
        for row in range(5):
            alone = model(**rows_of(batch, row))
            torch.testing.assert_close(alone.logits[0], together.logits[row], rtol=1e-4, atol=1e-5)
            for name, weight in model.signal.expert_weights.items():
                assert weight.shape == (1, 3)
                torch.testing.assert_close(weight[0], weights[name][row], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [1, 4])
def test_greedy_generation_equals_arg_max_step_by_step(kind: str, rows: int) -> None:
    """The decoder has fewer, as many and more layers than the encoder; transformers' cache must fit each."""
    backbone, batch = tiny_t5(kind), tiny_batch(rows=rows)
    experts, tensors = random_experts(backbone, 3), random_target_tensors(backbone, 3)
    plain = PlainTarget(backbone, tensors, [PlainExpert(e.tensors, e.scale) for e in experts], coefficient=0.1)
    with torch.no_grad():
        expected = plain.greedy(batch["input_ids"], batch["attention_mask"], 6)
    model = target_model(backbone)
    found = model.generate(batch["input_ids"], batch["attention_mask"], max_new_tokens=6, min_new_tokens=6, **GREEDY)
    forbidden = (expected == backbone.config.eos_token_id).any()  # generate stops at this token, the loop does not
    assert not forbidden
    assert torch.equal(found, expected)
    labels = torch.cat([expected[:, 1:], torch.full((rows, 1), -100)], dim=1)
    with torch.no_grad():
        forward = model(batch["input_ids"], batch["attention_mask"], labels).logits
    assert torch.equal(forward[:, :-1].argmax(-1), expected[:, 1:])


@pytest.mark.parametrize(("kind", "layers"), [("t5", {"num_decoder_layers": 2}), ("t5", {}), ("wide", {}), ("mt5", {})])
def test_encoding_once_gives_the_results_of_transformers(kind: str, layers: dict[str, int]) -> None:
    """The results are bit-identical to `generate(inputs_embeds=...)` and a forward pass, which each run the encoder."""
    model, batch = target_model(tiny_t5(kind, **layers)), tiny_batch()
    backbone, inputs, encodings = model.backbone, (batch["input_ids"], batch["attention_mask"]), []
    options = {"max_new_tokens": 6, **GREEDY}
    prefix = model.prefix(*inputs)
    embeddings, mask = prefix.embeddings, prefix.mask.long()
    cache = {} if layers else {"past_key_values": EncoderDecoderCache(DynamicCache(), DynamicCache())}
    with torch.no_grad(), model.signal.open(prefix.prompt_mask):
        ids = backbone.generate(inputs_embeds=embeddings, attention_mask=mask, **cache, **options)
        weights = dict(model.signal.expert_weights)
        logits = backbone(inputs_embeds=embeddings, attention_mask=mask, labels=batch["labels"]).logits
    losses = F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten(), reduction="none").view(4, -1)

    backbone.encoder.register_forward_pre_hook(lambda *_: encodings.append(1))
    with model.encoded(*inputs) as rows:
        assert torch.equal(rows.generate(**options), ids)
        assert all(torch.equal(weight, weights[name]) for name, weight in model.signal.expert_weights.items())
        once = rows.log_probabilities(batch["labels"].unsqueeze(1))
        assert torch.equal(once.squeeze(1), -losses.sum(-1))
        twice = rows.log_probabilities(batch["labels"].unsqueeze(1).expand(-1, 2, -1))
        torch.testing.assert_close(twice, once.expand(-1, 2))
        assert torch.equal(rows.generate(**options), ids)
    assert encodings == [1]


def test_generation_with_beams_and_without_cache() -> None:
    """The decoder's gates follow the expansion of rows to beams, for one beam with four rows and the reverse."""
    batch = tiny_batch(rows=2)
    model = target_model(tiny_t5())
    options = {"max_new_tokens": 5, "do_sample": False}
    beams = model.generate(batch["input_ids"], batch["attention_mask"], num_beams=3, **options)
    one = rows_of(batch, 0)
    assert torch.equal(
        model.generate(one["input_ids"], one["attention_mask"], num_beams=3, **options)[0, :3], beams[0, :3]
    )
    cached = model.generate(batch["input_ids"], batch["attention_mask"], **options)
    plain = model.generate(batch["input_ids"], batch["attention_mask"], use_cache=False, **options)
    assert torch.equal(cached, plain)


def test_generation_ends_at_the_closing_token() -> None:
    """A row that has generated the closing token is padded; the other rows continue."""
    model, batch = target_model(tiny_t5(), 3), tiny_batch(rows=6)
    inputs = batch["input_ids"], batch["attention_mask"]
    free = model.generate(*inputs, max_new_tokens=6, eos_token_id=None, **GREEDY)
    assert free.shape == (6, 7)
    closing = int(free[0, 1])
    assert (free[:, 1] != closing).any()
    ended = model.generate(*inputs, max_new_tokens=6, eos_token_id=closing, **GREEDY)
    for row, reference in zip(ended.tolist(), free.tolist(), strict=True):
        length = reference.index(closing) + 1 if closing in reference else 7
        assert row == (reference[:length] + [0] * 7)[:7]


def test_expert_weights_are_uniform_at_zero_gates_and_sum_to_one() -> None:
    backbone, batch = tiny_t5(), tiny_batch()
    generator = torch.Generator().manual_seed(0)
    prompt = initial_prompt(backbone, torch.arange(5), "vocab", generator)
    fresh = initial_target_tensors(
        backbone, prompt, random_experts(backbone, 5), reduction_factor=4, generator=generator
    )
    model = build_target_model(
        backbone, fresh, random_experts(backbone, 5), prompt_dropout=0.0, sparsity_coefficient=0.1
    ).eval()
    model(**batch)
    assert sorted(model.signal.expert_weights) == ["decoder.0", "decoder.1", "decoder.2", "encoder.0", "encoder.1"]
    for weights in model.signal.expert_weights.values():
        torch.testing.assert_close(weights, torch.full((4, 5), 0.2))
    model.detach()
    model = target_model(backbone)
    model(**batch)
    for name, weights in model.signal.expert_weights.items():
        torch.testing.assert_close(weights.sum(1), torch.ones(4))
        assert weights.std() > 0.01, name
    encoder, decoder = model.signal.expert_weights["encoder.1"], model.signal.expert_weights["decoder.2"]
    assert not torch.allclose(encoder[0], encoder[1])  # the gate depends on the text
    assert not torch.allclose(decoder[0], decoder[1])


def test_without_experts_there_is_no_gate_and_no_sparsity_loss() -> None:
    """The control method trains only the target adapter, prompt and layer norms."""
    backbone, batch = tiny_t5(), tiny_batch()
    tensors = random_target_tensors(backbone, 0)
    model = build_target_model(backbone, tensors, [], prompt_dropout=0.1, sparsity_coefficient=0.1).eval()
    output = model(**batch)
    assert output.sparsity_loss is None
    assert torch.equal(output.loss, output.lm_loss)
    assert model.signal.expert_weights == {}
    assert not any("gate" in name for name in model.trained)
    plain = PlainTarget(backbone, tensors | zero_gates(model.detach()), silent_experts(backbone), coefficient=0.0)
    torch.testing.assert_close(output.logits, plain(**batch).logits, rtol=1e-4, atol=1e-5)


def zero_gates(backbone: Any) -> dict[str, Tensor]:
    sizes = {"encoder": backbone.config.d_ff, "decoder": backbone.config.d_model}
    return {
        f"{stack}.{layer}.gate": torch.zeros(size, 1)
        for stack, size in sizes.items()
        for layer in range(len(getattr(backbone, stack).block))
    }


def silent_experts(backbone: Any) -> list[PlainExpert]:
    """Return one expert that adds nothing and has a prompt of one zero vector."""
    tensors = {name: torch.zeros_like(t) for name, t in source_tensors(backbone).items()}
    return [PlainExpert(tensors | {"prompt": torch.zeros(1, backbone.config.d_model)}, 1.0)]


def test_experts_of_different_rank_mix() -> None:
    backbone, batch = tiny_t5(), tiny_batch()
    experts = [random_experts(backbone, 1, rank=rank, seed=rank)[0] for rank in (1, 5, 3)]
    tensors = random_target_tensors(backbone, 3)
    expected = PlainTarget(backbone, tensors, [PlainExpert(e.tensors, e.scale) for e in experts], coefficient=0.1)(
        **batch
    )
    model = build_target_model(backbone, tensors, experts, prompt_dropout=0.0, sparsity_coefficient=0.1).eval()
    found = model(**batch)
    assert relative_error(found.logits, expected.logits) < 1e-5
    assert found.sparsity_loss is not None
    assert relative_error(found.sparsity_loss, expected.sparsity_loss) < 1e-5


def test_a_coefficient_of_zero_collects_nothing() -> None:
    output = target_model(tiny_t5(), sparsity_coefficient=0.0)(**tiny_batch())
    assert output.sparsity_loss is None
    assert torch.equal(output.loss, output.lm_loss)


# --- attach and detach, frozen tensors


def new_model(backbone: Any, stage: str) -> PromptedModel:
    if stage == "source":
        return build_source_model(backbone, source_tensors(backbone), scale=1.0)
    return target_model(backbone, 0 if stage == "control" else 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stage", ["source", "target", "control"])
def test_detaching_leaves_the_backbone_as_it_was(kind: str, stage: str) -> None:
    """Weights, modules, parameters, flags, hooks and logits are identical, also after training steps."""
    backbone, batch = tiny_t5(kind), tiny_batch()
    backbone.shared.weight.requires_grad_(False)  # detaching must restore the flags, not set them
    before, logits = snapshot(backbone), backbone(**batch).logits
    model = new_model(backbone, stage)
    original = set(before["identities"].values())
    assert not any(parameter.requires_grad for parameter in model.parameters() if id(parameter) in original)
    optimizer = torch.optim.AdamW(model.trained.values(), lr=0.1)
    for _ in range(2):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.generate(batch["input_ids"], batch["attention_mask"], max_new_tokens=2, **GREEDY)
    assert model.detach() is backbone
    assert snapshot(backbone) == before
    assert torch.equal(backbone(**batch).logits, logits)
    model.attachment.detach()  # a second call changes nothing
    assert snapshot(backbone) == before


@pytest.mark.parametrize("stage", ["source", "target", "control"])
def test_attaching_twice_requires_detaching_first(stage: str) -> None:
    backbone = tiny_t5()
    model = new_model(backbone, stage)
    for other in ("source", "target", "control"):
        with pytest.raises(
            RuntimeError, match=r"encoder.block.0.layer.1.DenseReluDense.wo has a .* attached: detach it first"
        ):
            new_model(backbone, other)
    model.detach()
    new_model(backbone, "source")


@pytest.mark.parametrize("stage", ["source", "target", "control"])
def test_an_error_leaves_the_backbone_as_it_was(stage: str) -> None:
    """While the model is in use, though the error is still referred to with all that it has seen."""
    backbone = tiny_t5()
    before = snapshot(backbone)
    model = new_model(backbone, stage)
    assert snapshot(backbone) != before
    with pytest.raises(TypeError) as caught, model:
        model(labels="none")
    assert snapshot(backbone) == before
    new_model(backbone, stage).detach()
    assert snapshot(backbone) == before
    assert caught.value.__traceback__ is not None


@pytest.mark.parametrize("missing", ["decoder.2.adapter.up.bias", "decoder.final_layer_norm.weight"])
def test_an_error_while_a_model_is_built_leaves_the_backbone_as_it_was(missing: str) -> None:
    backbone = tiny_t5()
    before, tensors = snapshot(backbone), random_target_tensors(backbone, 2)
    experts = random_experts(backbone, 2)
    del tensors[missing]
    with pytest.raises(KeyError, match=missing):
        build_target_model(backbone, tensors, experts, prompt_dropout=0.1, sparsity_coefficient=0.1)
    assert snapshot(backbone) == before


@pytest.mark.parametrize("stage", ["source", "target"])
def test_training_moves_every_trained_tensor_and_nothing_else(stage: str) -> None:
    backbone, batch = tiny_t5(), tiny_batch()
    held = {name: tensor.clone() for name, tensor in source_tensors(backbone).items()}
    experts = random_experts(backbone, 3)
    model = new_model(backbone, stage)
    trained = {id(parameter) for parameter in model.trained.values()}
    assert trained == {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    frozen = {n: hash_of(t) for n, t in [*model.named_parameters(), *model.named_buffers()] if id(t) not in trained}
    assert len(frozen) > 20
    start = model.tensors()
    optimizer = torch.optim.AdamW(model.trained.values(), lr=1e-2)
    for _ in range(3):
        model.train()
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    now = {n: hash_of(t) for n, t in [*model.named_parameters(), *model.named_buffers()] if id(t) not in trained}
    assert now == frozen
    for name, tensor in model.tensors().items():
        assert not torch.equal(tensor, start[name]), name
    assert all(torch.equal(t, held[name]) for name, t in source_tensors(backbone_of(model)).items())
    for expert, again in zip(experts, random_experts(backbone_of(model), 3), strict=True):
        assert all(torch.equal(t, again.tensors[name]) for name, t in expert.tensors.items())


def backbone_of(model: PromptedModel) -> Any:
    return model.detach()


def test_building_and_loading_copy_the_callers_tensors() -> None:
    backbone, batch = tiny_t5(), tiny_batch()
    tensors = random_target_tensors(backbone, 3)
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    model = build_target_model(
        backbone, tensors, random_experts(backbone, 3), prompt_dropout=0.0, sparsity_coefficient=0.1
    ).eval()
    logits = model(**batch).logits
    given = model.tensors()
    with torch.no_grad():
        for parameter in model.trained.values():
            parameter.add_(1.0)
    assert all(torch.equal(tensors[name], kept[name]) for name in tensors)
    assert all(torch.equal(given[name], kept[name]) for name in tensors)
    assert not torch.allclose(model(**batch).logits, logits)


# --- sizes of t5-base


def t5_base_on_meta() -> Any:
    config = T5Config(d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12)
    with torch.device("meta"):
        return T5ForConditionalGeneration(config)


def test_trained_parameters_of_t5_base() -> None:
    """The counts match those of method.md, part by part, for prompts of 21 and 30 tokens."""
    backbone = t5_base_on_meta()
    assert sum(parameter.numel() for parameter in backbone.parameters()) == 222_903_552
    generator = torch.Generator()
    source_prompt = initial_prompt(backbone, torch.arange(21), "vocab", generator)
    source = initial_source_tensors(backbone, source_prompt, rank=64, init="zero", generator=generator)
    model = build_source_model(backbone, source, scale=1.0)
    assert model.num_trained_parameters() == 5_898_240 + 768 * 21
    model.detach()
    target_prompt = initial_prompt(backbone, torch.arange(30), "vocab", generator)
    experts = [Expert(str(k), source, 1.0) for k in range(6)]
    target = initial_target_tensors(backbone, target_prompt, experts, reduction_factor=16, generator=generator)
    model = build_target_model(backbone, target, experts, prompt_dropout=0.1, sparsity_coefficient=0.1)
    assert model.num_trained_parameters() == 2_113_152 + 768 * 30
    sizes = {name: parameter.numel() for name, parameter in model.trained.items()}
    parts = {
        "adapter": sum(size for name, size in sizes.items() if ".adapter." in name),
        "encoder gates": sum(size for name, size in sizes.items() if name.startswith("encoder") and "gate" in name),
        "decoder gates": sum(size for name, size in sizes.items() if name.startswith("decoder") and "gate" in name),
        "layer norms": sum(size for name, size in sizes.items() if "layer_norm" in name),
        "prompt": sizes["prompt"],
    }
    assert parts == {
        "adapter": 1_789_056,
        "encoder gates": 221_184,
        "decoder gates": 55_296,
        "layer norms": 47_616,
        "prompt": 768 * 30,
    }
    bank = sum(tensor.numel() for expert in experts for tensor in expert.tensors.values())
    assert bank == 6 * (5_898_240 + 768 * 21)
    assert round(bank / 1e6, 1) == 35.5
    assert model.num_trained_parameters() / 222_903_552 == pytest.approx(0.0096, abs=0.0001)


# --- bfloat16 and autocast


def test_bfloat16_runs_forward_backward_and_generates() -> None:
    backbone, batch = tiny_t5(), tiny_batch()
    reference = target_model(tiny_t5())(**batch)
    model = target_model(backbone).to(torch.bfloat16)
    output = model(**batch)
    output.loss.backward()
    assert output.logits.dtype == torch.bfloat16
    assert output.loss.dtype == output.lm_loss.dtype == torch.float32
    assert output.sparsity_loss is not None
    assert output.sparsity_loss.dtype == torch.float32
    assert all(weights.dtype == torch.float32 for weights in model.signal.expert_weights.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.trained.values())
    assert reference.sparsity_loss is not None
    assert output.lm_loss.item() == pytest.approx(reference.lm_loss.item(), rel=0.05)
    assert output.sparsity_loss.item() == pytest.approx(reference.sparsity_loss.item(), rel=0.05)
    ids = model.generate(batch["input_ids"], batch["attention_mask"], max_new_tokens=4, **GREEDY)
    assert ids.shape[0] == 4


@pytest.mark.parametrize("stage", ["source", "target"])
def test_an_autocast_step_stays_close_to_float32(stage: str) -> None:
    """Weights and gradients stay float32, and the gradients point in the same direction."""
    batch = tiny_batch()
    gradients, losses = [], []
    for enabled in (False, True):
        model = new_model(tiny_t5(), stage).eval()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            output = model(**batch)
        output.loss.backward()
        assert all(weights.dtype == torch.float32 for weights in model.signal.expert_weights.values())
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.trained.values())
        gradients.append(torch.cat([p.grad.flatten() for p in model.trained.values() if p.grad is not None]))
        losses.append(output.loss.item())
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    assert losses[1] != losses[0]
    assert F.cosine_similarity(gradients[0], gradients[1], dim=0).item() > 0.97
