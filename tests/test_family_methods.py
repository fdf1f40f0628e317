"""Every kind of method and every gate on a decoder-only model, a Gemma and a T5Gemma; peft where it knows them."""

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from plain_decoder import unpadded
from test_families import GREEDY, TOLERANCE, assert_rows_equal, bare_logits, batch_of, lively
from test_model import relative_error
from tiny import random_experts, transfer_settings
from torch import Tensor

from pemt_core.methods import Method, kinds, method_of
from pemt_core.methods.count import trained_parameters
from pemt_core.methods.gates import gate_modules
from pemt_core.model.assemble import Expert
from pemt_core.model.prompted import PromptedModel
from pemt_core.model.stacks import width

# peft 0.21 reads an attribute that transformers 5.23 has renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

PLACES = [("llama", "behind"), ("gemma3", "both"), ("t5gemma", "front")]
LENGTH = 4  # of prompts
PROMPTLESS = ("full", "adapter", "lora", "lora_wo", "ia3", "bitfit", "norms")
UNTRAINED = ("zero_shot", "source")
FROM_PROMPTS = ("prompt_tuning", "spot", "mpt", "dept")
ENTRIES: dict[str, dict[str, Any]] = {
    **{kind: {} for kind in kinds()},
    "lora": {"places": ["q", "k", "v", "o", "wi", "wo"], "rank": 3, "biases": True, "dropout": 0.0},
    "single": {"source": "source1"},
    "sequential": {"source": "source1"},
    "source": {"source": "source1"},
    "prompt_tuning": {"length": LENGTH},
    "spot": {"source": "source1"},
    "dept": {"length": LENGTH, "rank": 2, "source_length": 9},
    "attempt": {"bottleneck": 5},
    **{f"gate {gate}": {"kind": "pemt", "gate": gate} for gate in gate_modules()},
    "control": {"kind": "pemt", "sources": []},
}


def method(name: str, **changes: Any) -> Method:
    shared = {key: value for key, value in transfer_settings().methods["pemt"].items() if key != "kind"}
    entry = {"kind": name, **ENTRIES[name], **changes} if name in kinds() else {**ENTRIES[name], **changes}
    return method_of(name, entry, {**shared, "prompt_dropout": 0.0}, f"methods.{name}")


def experts_of(chosen: Method, backbone: Any) -> list[Expert]:
    """Experts with prompts as if trained alone; `joint` is the last."""
    generator = torch.Generator().manual_seed(4)
    names = ["source0", "source1", "source2", "joint"]
    experts = [
        replace(expert, task=name, lone_prompt=torch.randn(LENGTH, width(backbone), generator=generator))
        for expert, name in zip(random_experts(backbone, 4), names, strict=True)
    ]
    return [expert for expert in experts if expert.task in chosen.draws_on(names)]


def start(name: str, backbone: Any) -> dict[str, Tensor]:
    chosen, ids = method(name), torch.arange(3, 8)
    return chosen.initial_tensors(backbone, ids, experts_of(chosen, backbone), torch.Generator().manual_seed(0))


def built(name: str, backbone: Any, tensors: Mapping[str, Tensor]) -> PromptedModel:
    chosen = method(name)
    return chosen.build(backbone, tensors, experts_of(chosen, backbone)).eval()


def trained(name: str, backbone: Any) -> PromptedModel:
    """A model with tensors as after some training."""
    generator = torch.Generator().manual_seed(1)
    tensors = start(name, backbone).items()
    return built(name, backbone, {n: t + 0.1 * torch.randn(t.shape, generator=generator) for n, t in tensors})


def test_full_fine_tuning_trains_what_reads_text_alone() -> None:
    """Not the vision tower, which never gets a gradient."""
    backbone = lively("t5gemma2", "front")
    model = trained("full", backbone)
    model(**batch_of()).loss.backward()
    assert [name for name, parameter in model.trained.items() if parameter.grad is None] == []
    unused = {name for name, _ in backbone.named_parameters()} - {*model.trained}
    assert any("vision_tower" in name for name in unused)
    assert all("vision_tower" in name or "multi_modal_projector" in name for name in unused)


@pytest.mark.parametrize(("kind", "layout"), PLACES)
@pytest.mark.parametrize("name", [*PROMPTLESS, *FROM_PROMPTS])
def test_step_0_is_the_backbone_or_the_backbone_with_the_prompt(name: str, kind: str, layout: str) -> None:
    backbone, batch, tensors = lively(kind, layout), batch_of(), start(name, lively(kind, layout))
    tensors = {n: torch.zeros_like(t) if n.endswith("adapter.up.weight") else t for n, t in tensors.items()}
    prompt = tensors.get("prompt", torch.empty(0, width(backbone)))
    expected = bare_logits(backbone, prompt, batch)
    with built(name, backbone, tensors) as model, torch.no_grad():
        assert_rows_equal(model(**batch).logits, expected)


@pytest.mark.parametrize(("kind", "layout"), PLACES)
@pytest.mark.parametrize("name", ENTRIES)
def test_a_model_trains_generates_and_comes_back(name: str, kind: str, layout: str) -> None:
    """Every tensor gets a gradient; generation is the arg max of the forward pass, and rows are alone what they are in
    a batch; the same tensors give the same model, and the backbone stays as it was."""
    backbone, batch = lively(kind, layout), batch_of(rows=3)
    before = {n: tensor.clone() for n, tensor in backbone.state_dict().items()}
    model = trained(name, backbone)
    output = model(**batch)
    output.loss.backward()
    silent = [n for n, each in model.trained.items() if each.grad is None or not each.grad.any()]
    assert silent == []
    inputs = batch["input_ids"], batch["attention_mask"]
    with model.encoded(*inputs) as rows:
        ids = rows.generate(max_new_tokens=4, eos_token_id=None, **GREEDY)[:, rows.num_start_tokens :]
        weights = dict(model.signal.expert_weights)
        scores = rows.log_probabilities(ids.unsqueeze(1)).squeeze(1)
    with torch.no_grad():
        logits = model(*inputs, ids).logits
    assert torch.equal(logits.argmax(-1), ids)
    expected = logits.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).sum((1, 2))
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    for key, weight in model.signal.expert_weights.items():
        torch.testing.assert_close(weights[key], weight, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        for row, text in enumerate(unpadded(*inputs)):
            alone = model(text.unsqueeze(0), torch.ones(1, len(text), dtype=torch.long), ids[row : row + 1]).logits
            assert relative_error(alone[0], logits[row]) < 1e-4
    tensors = model.tensors()
    model.detach()
    assert all(torch.equal(tensor, before[n]) for n, tensor in backbone.state_dict().items())
    with built(name, backbone, tensors) as again, torch.no_grad():
        assert torch.equal(again(*inputs, ids).logits, logits)


@pytest.mark.parametrize(("kind", "layout"), PLACES)
@pytest.mark.parametrize("name", ENTRIES)
def test_counts_from_shapes_are_those_of_the_tensors(name: str, kind: str, layout: str) -> None:
    backbone, chosen = lively(kind, layout), method(name)
    known = ["source0", "source1", "source2", "joint"]
    count = trained_parameters(chosen, backbone, known, rank=3, prompt_length=LENGTH).with_prompt(5)
    tensors = start(name, backbone)
    if name == "sequential":  # its prompt is as long as the source's
        tensors["prompt"] = torch.empty(5, width(backbone))
    assert count == chosen.num_trained(tensors)
    assert name in UNTRAINED or count == sum(tensor.numel() for tensor in tensors.values())


def test_attempt_reads_an_empty_text_as_zeros() -> None:
    """Alone, when there is no position to pool, and beside another text; no other value becomes NaN."""
    backbone = lively("llama", "behind")
    ids, mask = torch.tensor([[5, 6, 7], [0, 0, 0]]), torch.tensor([[1, 1, 1], [0, 0, 0]])
    labels = torch.tensor([[8, 1], [9, 1]])
    with trained("attempt", backbone) as model, torch.no_grad():
        both = model(ids, mask, labels).logits
        alone = model(ids[1:, :0], mask[1:, :0], labels[1:]).logits
    assert both.isfinite().all()
    torch.testing.assert_close(alone[0], both[1], rtol=1e-4, atol=1e-4)


# --- PEFT


def peft_model(backbone: Any, config: Any, tensors: Mapping[str, Tensor]) -> Any:
    """PEFT's model on a copy, its trained parameters set to `tensors`."""
    import peft

    model = peft.get_peft_model(copy.deepcopy(backbone), config).eval()
    found = {n: parameter for n, parameter in model.named_parameters() if parameter.requires_grad}
    assert {n: each.shape for n, each in found.items()} == {n: each.shape for n, each in tensors.items()}
    with torch.no_grad():
        for name, parameter in found.items():
            parameter.copy_(tensors[name])
    return model


def named_as_lora(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    ends = {"down": "lora_A.default.weight", "up": "lora_B.default.weight"}
    parts = ((name.rpartition("."), tensor) for name, tensor in tensors.items())
    return {f"base_model.model.{layer}.{ends[end]}": tensor for (layer, _, end), tensor in parts}


def named_as_ia3(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """PEFT keeps a column for outputs and a row for inputs."""
    named = {f"base_model.model.{name.replace('factors', 'ia3_l.default')}": each for name, each in tensors.items()}
    return {name: each[None] if ".down_proj." in name else each[:, None] for name, each in named.items()}


@pytest.mark.parametrize("kind", ["llama", "qwen3", "smollm3", "gemma3"])
@pytest.mark.parametrize("name", ["lora", "ia3"])
def test_peft_computes_the_same(name: str, kind: str) -> None:
    import peft

    backbone, batch = lively(kind, "behind"), batch_of()
    if name == "lora":
        places = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        chosen = method("lora", biases=False)
        config: Any = peft.LoraConfig(task_type="CAUSAL_LM", r=3, lora_alpha=32, target_modules=places)
    else:
        chosen, places = method("ia3"), ["k_proj", "v_proj", "down_proj"]
        config = peft.IA3Config(task_type="CAUSAL_LM", target_modules=places, feedforward_modules=["down_proj"])
    generator = torch.Generator().manual_seed(1)
    tensors = chosen.initial_tensors(backbone, torch.arange(3, 8), [], generator)
    tensors = {n: tensor + 0.1 * torch.randn(tensor.shape, generator=generator) for n, tensor in tensors.items()}
    named = named_as_lora(tensors) if name == "lora" else named_as_ia3(tensors)
    theirs = peft_model(backbone, config, named).get_base_model()
    nothing = torch.empty(0, width(backbone))
    before = bare_logits(backbone, nothing, batch)[0]
    with chosen.build(backbone, tensors, []).eval() as model, torch.no_grad():
        assert_rows_equal(model(**batch).logits, bare_logits(theirs, nothing, batch))
        assert relative_error(model(**batch).logits[0], before) > 0.01


@pytest.mark.parametrize("kind", ["llama", "gemma3", "t5gemma"])
def test_a_prompt_in_front_is_pefts_prompt_tuning(kind: str) -> None:
    """PEFT has no BOS before its prompt, so it is a virtual token there."""
    import peft

    backbone, batch = lively(kind, "front"), batch_of(rows=2)
    is_decoder = not backbone.config.is_encoder_decoder
    model = trained("prompt_tuning", backbone)
    bos = backbone.get_input_embeddings()(torch.tensor([backbone.config.bos_token_id])).detach()
    vectors = torch.cat([bos, model.trained["prompt"].detach()])
    config = peft.PromptTuningConfig(
        task_type="CAUSAL_LM" if is_decoder else "SEQ_2_SEQ_LM",
        num_virtual_tokens=len(vectors),
        num_transformer_submodules=1,
        token_dim=width(backbone),
        num_layers=3,
        num_attention_heads=4,
    )
    theirs = peft_model(lively(kind, "front"), config, {"prompt_encoder.default.embedding.weight": vectors})
    with torch.no_grad():
        found = model(**batch).logits
        for row, text in enumerate(unpadded(batch["input_ids"], batch["attention_mask"])):
            answer = batch["labels"][row][batch["labels"][row] != -100]
            expected = peft_logits(theirs, text, answer, is_decoder=is_decoder)
            assert relative_error(found[row, : len(answer)], expected) < TOLERANCE


def peft_logits(model: Any, text: Tensor, answer: Tensor, *, is_decoder: bool) -> Tensor:
    ids = torch.cat([text, answer[:-1]]) if is_decoder else text
    labels = {} if is_decoder else {"labels": answer.unsqueeze(0)}
    mask = torch.ones(1, len(ids), dtype=torch.long)
    logits: Tensor = model(input_ids=ids.unsqueeze(0), attention_mask=mask, **labels).logits
    return logits[0, -len(answer) :]
