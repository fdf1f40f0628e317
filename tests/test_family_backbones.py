"""Backbones of every family on disk: fingerprints, layouts, and weights in bfloat16."""

import copy
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_model import PlainTarget
from safetensors.torch import load_file
from test_families import GREEDY, IDS, TOLERANCE, bare_logits, batch_of, plain_experts, target
from test_model import relative_error
from test_plain_methods import built, method, moved, start
from tiny import random_experts, random_target_tensors
from tiny_models import DECODERS, MODELS, tiny_model
from tiny_tokenizers import byte_tokenizer

from pemt_core.artifacts.files import read_json, write_json
from pemt_core.backbone.adopt import adopt
from pemt_core.backbone.checkpoint import fetch_checkpoint
from pemt_core.backbone.families import family_of
from pemt_core.backbone.family import LAYOUTS
from pemt_core.backbone.store import Backbone, fingerprint_of, load_backbone, save_backbone
from pemt_core.errors import ArtifactError, SettingsError
from pemt_core.methods.count import trained_parameters
from pemt_core.model.assemble import initial_prompt
from pemt_core.training.accelerator import make_accelerator
from pemt_core.training.optimizer import make_optimizer

HALVES = ["t5_1_1", "t5gemma", "t5gemma2", "llama", "gemma3"]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return byte_tokenizer(tmp_path_factory.mktemp("tokenizer"), bos=True, pad=True)


def adopted(kind: str, tokenizer: Any, layout: str = "auto", **changes: Any) -> Any:
    model = tiny_model(kind, vocab_size=len(tokenizer), **changes)
    adopt(model, tokenizer, layout)
    return model


# --- the stored form


@pytest.mark.parametrize("kind", MODELS)
def test_a_stored_backbone_loads_unchanged(kind: str, tokenizer: Any, tmp_path: Path) -> None:
    """Fingerprint, configuration, outputs and generation."""
    model, batch = adopted(kind, tokenizer), batch_of()
    fingerprint = save_backbone(tmp_path / "backbone", model, tokenizer)
    loaded = load_backbone(tmp_path / "backbone")
    assert loaded.fingerprint == fingerprint == fingerprint_of(model, tokenizer)
    assert type(loaded.model) is type(model)
    prompt = initial_prompt(model, IDS, "vocab", torch.Generator())
    assert torch.equal(initial_prompt(loaded.model, IDS, "vocab", torch.Generator()), prompt)
    pairs = zip(bare_logits(loaded.model, prompt, batch), bare_logits(model, prompt, batch), strict=True)
    for found, expected in pairs:  # tensors from a file may lie elsewhere in memory, and be added in another order
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    inputs = batch["input_ids"], batch["attention_mask"]
    with target(model) as one, target(loaded.model) as other:
        ids = [each.generate(*inputs, max_new_tokens=6, **GREEDY) for each in (one, other)]
    assert torch.equal(*ids)
    assert save_backbone(tmp_path / "again", loaded.model, loaded.tokenizer) == fingerprint


def keys_of(model: Any) -> Iterator[tuple[str, str, Any]]:
    """The path, key and value of everything in a configuration that the family's fingerprint covers."""
    family = family_of(model)
    for path in family.config_parts:
        for key in family.fingerprint:
            value = getattr(attrgetter(path)(model.config) if path else model.config, key, None)
            if value is not None:
                yield path, key, value


def another(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, dict):
        return {**value, "rope_theta": 123.0}
    if isinstance(value, list):
        return [*value, "another"]
    return f"{value}_" if isinstance(value, str) else value + 1


@pytest.mark.parametrize("kind", MODELS)
def test_the_fingerprint_covers_every_listed_key(kind: str, tokenizer: Any) -> None:
    """Of the nested configurations too."""
    model = adopted(kind, tokenizer)
    found = {"as it is": fingerprint_of(model, tokenizer)}
    config, keys = model.config, list(keys_of(model))
    assert len(keys) >= 12 * len(family_of(model).config_parts)
    types = list(family_of(model).models)
    for path, key, value in keys:
        model.config = copy.deepcopy(config)
        part = attrgetter(path)(model.config) if path else model.config
        part.__dict__[key] = types[types.index(value) - 1] if value in types else another(value)
        found[f"{path}.{key}"] = fingerprint_of(model, tokenizer)
    alone = len(types) == 1 and keys[0][0] == ""  # no other type has these places
    assert len(set(found.values())) == len(keys) + 1 - alone
    model.config = config
    assert fingerprint_of(model, tokenizer) == found["as it is"]


@pytest.mark.parametrize("kind", MODELS)
def test_the_fingerprint_covers_weights_and_tokenizer(kind: str, tokenizer: Any, tmp_path: Path) -> None:
    model = adopted(kind, tokenizer)
    found = [fingerprint_of(model, tokenizer), fingerprint_of(model, byte_tokenizer(tmp_path, pad=True))]
    with torch.no_grad():
        list(model.parameters())[-1].flatten()[3] += 1e-5
    found += [fingerprint_of(model, tokenizer), fingerprint_of(model.to(torch.bfloat16), tokenizer)]
    assert len(set(found)) == 4


def test_no_key_of_a_fingerprint_is_unknown_to_all_models(tokenizer: Any) -> None:
    """A misspelt key would be None for every model. Families of one record share their keys."""
    found: dict[tuple[str, ...], set[str]] = {}
    for kind in MODELS:
        model = adopted(kind, tokenizer)
        found.setdefault(family_of(model).fingerprint, set()).update(key for _, key, _ in keys_of(model))
    optional = {"chat_template"}
    assert len(found) == 2
    assert all(set(keys) - known <= optional for keys, known in found.items())


@pytest.mark.parametrize("kind", MODELS)
def test_adopting_sets_special_tokens_and_layout(kind: str, tokenizer: Any) -> None:
    """A T5 keeps its configuration as it is."""
    model = tiny_model(kind, vocab_size=len(tokenizer), eos_token_id=[5, 6])
    model.generation_config.update(do_sample=True, temperature=0.6)
    before = model.config.to_dict()
    adopt(model, tokenizer, "auto")
    family = family_of(model)
    if not family.starts_with_bos:
        assert model.config.to_dict() == before
        return
    ids = (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id)
    parts = [attrgetter(path)(model.config) if path else model.config for path in family.config_parts]
    for each in (model.config, *parts, model.generation_config):
        assert (each.pad_token_id, each.bos_token_id, each.eos_token_id) == ids
    assert not model.generation_config.do_sample
    assert getattr(model.config, "prompt_layout", None) == ("behind" if kind in DECODERS else None)


def test_every_layout_has_a_fingerprint_of_its_own(tokenizer: Any) -> None:
    models = [adopted("llama", tokenizer, layout) for layout in ("auto", *LAYOUTS)]
    found = [fingerprint_of(model, tokenizer) for model in models]
    assert found[0] == found[1 + LAYOUTS.index("behind")]
    assert len(set(found)) == 3
    with pytest.raises(SettingsError, match=r"layout is 'before': Llama has only behind or both or front or"):
        adopt(models[0], tokenizer, "before")
    with pytest.raises(SettingsError, match=r"layout is 'behind': T5 has only front or auto"):
        adopt(tiny_model("t5"), tokenizer, "behind")


def test_a_tokenizer_without_bos_takes_the_models_or_the_eos(tmp_path: Path) -> None:
    plain = byte_tokenizer(tmp_path)
    model = tiny_model("qwen3", vocab_size=len(plain), bos_token_id=7)
    adopt(model, plain, "auto")
    assert (model.config.bos_token_id, model.config.pad_token_id) == (7, plain.eos_token_id)
    model.config.bos_token_id = None
    adopt(model, plain, "auto")
    assert model.config.bos_token_id == plain.eos_token_id


def test_a_size_that_no_checkpoint_has_is_refused(tokenizer: Any, tmp_path: Path) -> None:
    """The path of a nested configuration is named."""
    adopted("t5gemma2", tokenizer).save_pretrained(tmp_path)
    config = read_json(tmp_path / "config.json")
    config["encoder"]["text_config"]["intermediate_size"] = 2**30
    write_json(tmp_path / "config.json", config)
    with pytest.raises(ArtifactError, match=r"encoder\.text_config\.intermediate_size is 1073741824"):
        fetch_checkpoint(str(tmp_path), "")


# --- stacks of different sizes


def unequal_t5gemma() -> Any:
    """As in T5Gemma 9B-2B: the encoder is wider and deeper than the decoder."""
    import transformers as t

    special = {"vocab_size": 120, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    decoder = {**special, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
               "num_key_value_heads": 1, "head_dim": 8, "sliding_window": 16}  # fmt: skip
    encoder = {**decoder, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3}
    torch.manual_seed(0)
    model = t.T5GemmaForConditionalGeneration(t.T5GemmaConfig(encoder=encoder, decoder=decoder, **special))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape)
    return model.eval()


def test_stacks_of_different_widths_equal_the_plain_loop() -> None:
    """Sliding windows too, though transformers' cache is replaced where the depths differ."""
    backbone, batch = unequal_t5gemma(), batch_of(length=40)
    experts, tensors = random_experts(backbone, 3), random_target_tensors(backbone, 3)
    plain = PlainTarget(backbone, tensors, plain_experts(experts), coefficient=0.1)
    model = target(backbone)
    with torch.no_grad():
        expected, found = plain(**batch), model(**batch)
        ids = plain.greedy(batch["input_ids"], batch["attention_mask"], 20)
    assert found.sparsity_loss is not None
    for name in ("logits", "lm_loss", "sparsity_loss"):
        assert relative_error(getattr(found, name), getattr(expected, name)) < TOLERANCE, name
    options = {"max_new_tokens": 20, "eos_token_id": None, **GREEDY}
    assert torch.equal(model.generate(batch["input_ids"], batch["attention_mask"], **options), ids)


@pytest.mark.parametrize("name", ["adapter", "lora_biases", "lora_wo", "ia3", "bitfit", "norms", "full"])
def test_methods_fit_stacks_of_different_widths(name: str) -> None:
    backbone, batch, chosen = unequal_t5gemma(), batch_of(), method(name)
    model = built(chosen, backbone, moved(chosen, backbone))
    model(**batch).loss.backward()
    assert all(parameter.grad is not None for parameter in model.trained.values())
    assert trained_parameters(chosen, model.detach(), [], rank=3, prompt_length=5).fixed == sum(
        parameter.numel() for parameter in model.trained.values()
    )


# --- weights in bfloat16


@pytest.fixture
def halves(request: pytest.FixtureRequest, tokenizer: Any, tmp_path: Path) -> tuple[Any, Backbone]:
    """A model in float32, and the backbone that is made of it in bfloat16."""
    model = adopted(request.param, tokenizer)
    model.save_pretrained(tmp_path / "checkpoint")
    fetched, _ = fetch_checkpoint(str(tmp_path / "checkpoint"), "", "bfloat16")
    adopt(fetched, tokenizer, "auto")
    fingerprint = save_backbone(tmp_path / "backbone", fetched, tokenizer)
    backbone = load_backbone(tmp_path / "backbone")
    assert backbone.fingerprint == fingerprint != fingerprint_of(model, tokenizer)
    stored = load_file(tmp_path / "backbone" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    return model, backbone


@pytest.mark.usefixtures("fresh_accelerator")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("halves", HALVES, indirect=True)
def test_a_step_on_weights_in_bfloat16(halves: tuple[Any, Backbone], precision: str) -> None:
    """What is trained stays in float32. A sum of 3 layers with rounding errors of 2**-9 moves the loss by percents."""
    exact, backbone = halves
    assert {parameter.dtype for parameter in backbone.model.parameters()} == {torch.bfloat16}
    batch = batch_of()
    expected = target(exact, sparsity_positions="unpadded")(**batch)
    model = target(backbone.model, sparsity_positions="unpadded")
    accelerator = make_accelerator(precision)
    optimizer = make_optimizer(model.trained, 1e-3, {})
    before = model.tensors()
    prepared, optimizer = accelerator.prepare(model, optimizer)
    losses = []
    for _ in range(5):
        output = prepared(**batch)
        accelerator.backward(output.loss)
        assert all(each.grad is not None and each.grad.dtype == torch.float32 for each in model.trained.values())
        optimizer.step()
        optimizer.zero_grad()
        losses.append(output.loss.item())
    assert losses[0] == pytest.approx(expected.loss.item(), rel=0.05)
    assert losses[-1] < losses[0]
    states = [tensor for state in optimizer.state.values() for tensor in state.values()]
    assert {tensor.dtype for tensor in [*states, *model.trained.values()]} == {torch.float32}
    assert all(not torch.equal(tensor, before[name]) for name, tensor in model.tensors().items())
    ids = model.eval().generate(batch["input_ids"], batch["attention_mask"], max_new_tokens=4, **GREEDY)
    assert len(ids) == len(batch["input_ids"])


@pytest.mark.parametrize("halves", ["t5_1_1", "gemma3"], indirect=True)
@pytest.mark.parametrize("name", ["full", "adapter", "lora_biases", "lora_wo", "ia3", "bitfit", "norms"])
def test_every_method_trains_float32_on_weights_in_bfloat16(name: str, halves: tuple[Any, Backbone]) -> None:
    exact, backbone = halves
    batch, chosen = batch_of(), method(name)
    tensors = start(chosen, backbone.model)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    model = built(chosen, backbone.model, tensors)
    found = model(**batch).loss
    found.backward()
    assert {parameter.grad.dtype for parameter in model.trained.values() if parameter.grad is not None} == {
        torch.float32
    }
    with built(chosen, exact, start(chosen, exact)) as reference, torch.no_grad():
        assert found.item() == pytest.approx(reference(**batch).loss.item(), rel=0.05)
    model.detach()
    assert {parameter.dtype for parameter in backbone.model.parameters()} == {torch.bfloat16}
