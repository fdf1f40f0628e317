"""Kinds without sources: counts, equality with PEFT and with closed forms, exact restoration, one world for all."""

import copy
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from test_components import run_here
from test_model import snapshot
from test_report import new_origin
from test_serving import Project
from tiny import KINDS, Batch, World, tiny_batch, tiny_t5, transfer_settings, write_task
from torch import Tensor, nn
from transformers import T5Config, T5ForConditionalGeneration
from workspace import write_params

from components.methods import main, make_parser
from pemt_core.artifacts.experts import load_experts
from pemt_core.artifacts.result import load_results
from pemt_core.artifacts.target import load_target, restore_target
from pemt_core.backbone.store import load_backbone
from pemt_core.data.prepared import PreparedTask
from pemt_core.methods import Method, kinds, method_of
from pemt_core.methods.count import trained_parameters
from pemt_core.methods.without_sources import WithoutSources
from pemt_core.model.prompted import PromptedModel
from pemt_core.prediction.predictor import load_predictor
from pemt_core.report.names import MethodNames
from pemt_core.report.table import Tables
from pemt_core.settings import EvaluateSettings, ReportSettings
from pemt_core.steps.evaluate import evaluate
from pemt_core.steps.record import record
from pemt_core.steps.report import report
from pemt_core.tasks import get_task

# peft 0.21 reads an attribute that transformers 5.23 has renamed
# and announces layers that it knows as little as T5's norms
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning"),
]

GREEDY: dict[str, Any] = {"do_sample": False, "num_beams": 1}
ENTRIES: dict[str, dict[str, Any]] = {
    "full": {},
    "adapter": {},
    "lora": {},
    "lora_biases": {"kind": "lora", "biases": True, "rank": 4, "alpha": 8.0},
    "lora_everywhere": {"kind": "lora", "places": ["q", "k", "v", "o", "wi", "wo"], "rank": 3, "alpha": 2.0},
    "lora_wo": {"rank": 4, "alpha": 6.0},
    "ia3": {},
    "bitfit": {},
    "bitfit_headless": {"kind": "bitfit", "head": False},
    "norms": {},
}


SHAPED = ["t5", "wide", "v1.1"]  # mT5 has the modules of v1.1
TRAINED = ["full", "adapter", "lora_biases", "lora_wo", "ia3", "bitfit", "norms"]  # one of each kind


def method(name: str, **changes: Any) -> Method:
    """A method of ENTRIES with differences, on the toy settings."""
    shared = {key: value for key, value in transfer_settings().methods["pemt"].items() if key != "kind"}
    return method_of(name, {**ENTRIES.get(name, {}), **changes}, shared, f"methods.{name}")


def start(chosen: Method, backbone: Any) -> dict[str, Tensor]:
    ids = torch.arange(3, 8)
    return chosen.initial_tensors(backbone, ids, [], torch.Generator().manual_seed(0))


def moved(chosen: Method, backbone: Any) -> dict[str, Tensor]:
    """The tensors as after some training."""
    generator = torch.Generator().manual_seed(1)
    return {n: t + 0.1 * torch.randn(t.shape, generator=generator) for n, t in start(chosen, backbone).items()}


def built(chosen: Method, backbone: Any, tensors: Mapping[str, Tensor]) -> PromptedModel:
    return chosen.build(backbone, tensors, []).eval()


@torch.no_grad()
def logits(model: Any, batch: Batch) -> Tensor:
    found: Tensor = model(**batch).logits
    return found


@torch.no_grad()
def greedy(model: Any, batch: Batch, **options: Any) -> Tensor:
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    if not isinstance(model, PromptedModel):
        options["use_cache"] = False  # transformers gives the cache as many layers as the encoder has
    ids: Tensor = model.generate(**inputs, max_new_tokens=5, **GREEDY, **options)
    return ids


# Counts


def t5_base(vocab_size: int = 32_100) -> Any:
    with torch.device("meta"):
        return T5ForConditionalGeneration(
            T5Config(vocab_size=vocab_size, d_model=768, d_kv=64, d_ff=3072, num_layers=12, num_heads=12)
        )


@pytest.mark.parametrize(
    ("name", "entry", "count"),
    [
        ("full", {}, 222_882_048),
        ("adapter", {}, 1_855_104),
        ("lora", {}, 3_538_944),
        ("lora", {"biases": True}, 3_819_876),
        ("lora", {"rank": 19}, 2_101_248),
        ("lora", {"rank": 8, "places": ["q", "k", "v", "o"]}, 1_769_472),
        ("lora_wo", {"rank": 64}, 5_898_240),
        ("lora_wo", {"rank": 23}, 2_119_680),
        ("ia3", {}, 129_024),
        ("bitfit", {}, 280_932),
        ("bitfit", {"head": False}, 248_832),
        ("norms", {}, 47_616),
    ],
)
def test_the_counts_on_t5_base_are_the_published_ones(name: str, entry: dict[str, Any], count: int) -> None:
    """With the vocabulary of 32,100 tokens that the published tables have, and the published settings by default."""
    entry = {"kind": name, **entry}
    found = trained_parameters(method("any", **entry), t5_base(), [], rank=64, prompt_length=100)
    assert (found.fixed, found.per_prompt_token) == (count, 0)


def test_the_vocabulary_counts_in_full_fine_tuning() -> None:
    assert trained_parameters(method("full"), t5_base(32_128), [], rank=64, prompt_length=100).fixed == 222_903_552


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ENTRIES)
def test_counts_follow_the_formulas_on_unequal_backbones(name: str, kind: str) -> None:
    backbone, chosen = tiny_t5(kind), method(name)
    config = backbone.config
    d, f, vocabulary = config.d_model, config.d_ff, config.vocab_size
    a, encoder, decoder = config.num_heads * config.d_kv, config.num_layers, config.num_decoder_layers
    layers, attentions, inputs = encoder + decoder, encoder + 2 * decoder, 1 + (kind in ("v1.1", "mt5"))
    norms, bottleneck = d * (2 * encoder + 3 * decoder + 2), max(1, d // 32)
    biases = attentions * (3 * a + d) + layers * (inputs * f + d) + norms - 2 * d
    everywhere = 3 * (4 * attentions * (d + a) + (inputs + 1) * layers * (d + f))
    expected = {
        "full": backbone.num_parameters(),
        "adapter": 2 * layers * (2 * d * bottleneck + bottleneck + d) + norms,
        "lora": 2 * 32 * (d + a) * attentions,
        "lora_biases": 2 * 4 * (d + a) * attentions + biases + vocabulary,
        "lora_everywhere": everywhere,
        "lora_wo": 4 * (d + f) * layers,
        "ia3": 2 * a * attentions + f * layers,
        "bitfit": biases + vocabulary,
        "bitfit_headless": biases,
        "norms": norms,
    }
    model = built(chosen, backbone, start(chosen, backbone))
    assert model.num_trained_parameters() == expected[name]
    assert trained_parameters(chosen, model.detach(), [], rank=3, prompt_length=100).with_prompt(9) == expected[name]


# The start


@pytest.mark.parametrize("kind", SHAPED)
@pytest.mark.parametrize("name", ENTRIES)
def test_step_0_equals_the_backbone(name: str, kind: str) -> None:
    """For the adapter, whose weights start at random, with W_up = 0."""
    backbone, chosen, batch = tiny_t5(kind), method(name), tiny_batch()
    expected, ids = logits(backbone, batch), greedy(backbone, batch)
    tensors = start(chosen, backbone)
    if name == "adapter":
        assert 0.005 < tensors["encoder.block.0.layer.0.SelfAttention.o.adapter.up.weight"].std() < 0.02
        tensors = {n: torch.zeros_like(t) if n.endswith("up.weight") else t for n, t in tensors.items()}
    model = built(chosen, backbone, tensors)
    torch.testing.assert_close(logits(model, batch), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(greedy(model, batch), ids)
    assert model.signal.expert_weights == {}
    assert model(**batch).sparsity_loss is None


def test_a_kaiming_start_differs_from_the_backbone() -> None:
    backbone, batch = tiny_t5(), tiny_batch()
    expected, chosen = logits(backbone, batch), method("lora_wo", init="kaiming")
    assert not torch.allclose(logits(built(chosen, backbone, start(chosen, backbone)), batch), expected)


# PEFT


def of_lora(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    ends = {"down": "lora_A.default.weight", "up": "lora_B.default.weight"}
    return {f"{name.rpartition('.')[0]}.{ends[name.rpartition('.')[2]]}": t for name, t in tensors.items()}


def of_ia3(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    """PEFT keeps a column for outputs and a row for the input of `wo`.

    In an mT5, it scales the output of `wi_1`, which scales the product that `wo` gets.
    """
    named = {name.replace("factors", "ia3_l.default"): tensor for name, tensor in tensors.items()}
    if kind == "mt5":
        named = {name.replace(".wo.", ".wi_1."): tensor for name, tensor in named.items()}
    return {name: tensor[None] if ".wo." in name else tensor[:, None] for name, tensor in named.items()}


def of_norms(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {name.replace("layer_norm.", "layer_norm.ln_tuning_layers.default."): t for name, t in tensors.items()}


def lora_config(peft: Any, **options: Any) -> Any:
    return peft.LoraConfig(**{"task_type": "SEQ_2_SEQ_LM", "lora_dropout": 0.1, **options})


PEFT: dict[str, tuple[Callable[[Any, str], Any], Callable[[Mapping[str, Tensor], str], dict[str, Tensor]]]] = {
    "lora": (lambda p, _: lora_config(p, r=32, lora_alpha=32, target_modules=["q", "v"]), of_lora),
    "lora_everywhere": (
        lambda p, kind: lora_config(
            p, r=3, lora_alpha=2,
            target_modules=["q", "k", "v", "o", "wo", *(["wi_0", "wi_1"] if kind in ("v1.1", "mt5") else ["wi"])],
        ),
        of_lora,
    ),
    "ia3": (lambda p, _: p.IA3Config(task_type="SEQ_2_SEQ_LM"), of_ia3),
    "norms": (lambda p, _: p.LNTuningConfig(task_type="SEQ_2_SEQ_LM"), of_norms),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PEFT)
def test_peft_computes_the_same(name: str, kind: str) -> None:
    import peft

    config, renamed = PEFT[name]
    backbone, batch, chosen = tiny_t5(kind), tiny_batch(), method(name)
    tensors = moved(chosen, backbone)
    other = peft.get_peft_model(copy.deepcopy(backbone), config(peft, kind)).eval()
    given = {f"base_model.model.{n}": t for n, t in renamed(tensors, kind).items()}
    trained = {n: parameter for n, parameter in other.named_parameters() if parameter.requires_grad}
    assert {n: p.shape for n, p in trained.items()} == {n: t.shape for n, t in given.items()}
    with torch.no_grad():
        for parameter_name, parameter in trained.items():
            parameter.copy_(given[parameter_name])
    before = logits(backbone, batch)
    model = built(chosen, backbone, tensors)
    found = logits(model, batch)
    assert not torch.allclose(found, before, atol=1e-2)
    torch.testing.assert_close(found, logits(other, batch), rtol=1e-5, atol=1e-5)
    assert torch.equal(greedy(model, batch), greedy(other, batch))


# Closed forms


def test_dropout_acts_in_training_and_draws_from_torchs_generator() -> None:
    backbone, batch, chosen = tiny_t5(), tiny_batch(), method("lora", dropout=0.5)
    model = built(chosen, backbone, moved(chosen, backbone))
    assert torch.equal(logits(model, batch), logits(model, batch))

    def drawn(seed: int) -> Tensor:
        torch.manual_seed(seed)
        return logits(model.train(), batch)

    with torch.random.fork_rng():
        assert torch.equal(drawn(1), drawn(1))
        assert not torch.equal(drawn(1), drawn(2))
        assert not torch.equal(drawn(1), logits(model.eval(), batch))


def adding(module: nn.Module, added: Tensor) -> None:
    """Let `module` add to its output, by a hook."""
    module.register_forward_hook(lambda _module, _inputs, output: output + added)


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_without_input_shifts_self_attention_and_feed_forward(kind: str) -> None:
    """W_up = 0 and b_up = c add c to both outputs in every layer, and nothing to cross-attention."""
    backbone, batch, chosen, plain = tiny_t5(kind), tiny_batch(), method("adapter"), tiny_t5(kind)
    generator, tensors = torch.Generator().manual_seed(5), start(chosen, backbone)
    for name, tensor in tensors.items():
        if name.endswith("up.weight"):
            tensors[name] = torch.zeros_like(tensor)
        elif name.endswith("up.bias"):
            tensors[name] = torch.randn(tensor.shape, generator=generator)
            adding(plain.get_submodule(name.removesuffix(".adapter.up.bias")), tensors[name])
    assert not [name for name in tensors if "EncDecAttention" in name]
    torch.testing.assert_close(logits(built(chosen, backbone, tensors), batch), logits(plain, batch))


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_is_a_bottleneck_with_a_skip(kind: str) -> None:
    backbone, batch, chosen, plain = tiny_t5(kind), tiny_batch(), method("adapter", reduction_factor=4), tiny_t5(kind)
    tensors = moved(chosen, backbone)
    for name in tensors:
        if name.endswith("adapter.down.weight"):
            down, up = (
                [tensors[name.replace("down.weight", f"{part}.{kind}")] for kind in ("weight", "bias")]
                for part in ("down", "up")
            )

            def bottleneck(
                _module: nn.Module, _inputs: Any, z: Tensor, down: list[Tensor] = down, up: list[Tensor] = up
            ) -> Tensor:
                inner = z @ down[0].T + down[1]
                cubic = (2 / torch.pi) ** 0.5 * (inner + 0.044715 * inner**3)
                return z + (0.5 * inner * (1 + cubic.tanh())) @ up[0].T + up[1]

            plain.get_submodule(name.removesuffix(".adapter.down.weight")).register_forward_hook(bottleneck)
        elif "adapter" not in name:
            plain.get_parameter(name).data.copy_(tensors[name])
    torch.testing.assert_close(
        logits(built(chosen, backbone, tensors), batch), logits(plain, batch), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["bitfit", "bitfit_headless"])
def test_biases_are_added_to_every_output(name: str, kind: str) -> None:
    backbone, batch, chosen, plain = tiny_t5(kind), tiny_batch(), method(name), tiny_t5(kind)
    tensors = moved(chosen, backbone)
    for each, tensor in tensors.items():
        adding(plain.get_submodule(each.removesuffix(".bias")), tensor)
    assert not [each for each in tensors if "final" in each or "relative" in each]
    assert len(tensors) == len(list(_linear(plain))) - (name != "bitfit") + 2 * 2 + 3 * KINDS[kind].get(
        "num_decoder_layers", 3
    ) + 2 * (KINDS[kind].get("num_layers", 2) - 2)
    torch.testing.assert_close(logits(built(chosen, backbone, tensors), batch), logits(plain, batch))


def _linear(backbone: nn.Module) -> list[nn.Module]:
    return [module for module in backbone.modules() if isinstance(module, nn.Linear)]


def test_the_bias_of_the_head_shifts_the_logits() -> None:
    backbone, batch, chosen = tiny_t5(), tiny_batch(), method("bitfit")
    expected, tensors = logits(backbone, batch), start(chosen, backbone)
    tensors["lm_head.bias"] = torch.randn(64, generator=torch.Generator().manual_seed(3))
    assert torch.equal(logits(built(chosen, backbone, tensors), batch), expected + tensors["lm_head.bias"])


def test_a_bias_of_the_last_wo_is_added_before_the_final_norm() -> None:
    backbone, batch, chosen, plain = tiny_t5(), tiny_batch(), method("bitfit"), tiny_t5()
    tensors, c = start(chosen, backbone), torch.randn(16, generator=torch.Generator().manual_seed(3))
    tensors["decoder.block.2.layer.2.DenseReluDense.wo.bias"] = c
    plain.decoder.final_layer_norm.register_forward_pre_hook(lambda _module, inputs: (inputs[0] + c,))
    torch.testing.assert_close(logits(built(chosen, backbone, tensors), batch), logits(plain, batch))


def test_lora_with_biases_is_the_sum_of_both() -> None:
    backbone, batch, chosen, plain = tiny_t5(), tiny_batch(), method("lora_biases"), tiny_t5()
    tensors = moved(chosen, backbone)
    for name, tensor in tensors.items():
        layer = plain.get_submodule(name.rpartition(".")[0])
        if name.endswith(".down"):
            layer.weight.data += 8 / 4 * tensors[name.replace(".down", ".up")] @ tensor
        elif name.endswith(".bias"):
            adding(layer, tensor)
    torch.testing.assert_close(
        logits(built(chosen, backbone, tensors), batch), logits(plain, batch), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("kind", KINDS)
def test_lora_on_wo_is_a_source_adapter_without_prompt(kind: str) -> None:
    """It equals a merged `wo`, and has the names of a source adapter, so that each can start from the other."""
    backbone, batch, chosen, plain = tiny_t5(kind), tiny_batch(), method("lora_wo"), tiny_t5(kind)
    tensors = moved(chosen, backbone)
    for stack in ("encoder", "decoder"):
        for layer, block in enumerate(getattr(plain, stack).block):
            down, up = tensors[f"{stack}.{layer}.down"], tensors[f"{stack}.{layer}.up"]
            block.layer[-1].DenseReluDense.wo.weight.data += 6 / 4 * up @ down
    model = built(chosen, backbone, tensors)
    torch.testing.assert_close(logits(model, batch), logits(plain, batch), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_of_full_fine_tuning_is_that_of_transformers_model(kind: str) -> None:
    """AdamW on transformers' model and loss; embeddings, which may be tied to the head, are one parameter."""
    backbone, alone, batch, chosen = tiny_t5(kind), tiny_t5(kind), tiny_batch(), method("full")
    model = built(chosen, backbone, start(chosen, backbone))
    assert list(model.trained) == [name for name, _ in alone.named_parameters()]
    for trained, loss in ((list(model.trained.values()), model), (list(alone.parameters()), alone)):
        optimizer = torch.optim.AdamW(trained, lr=1e-3, weight_decay=0.0)
        for _ in range(2):
            optimizer.zero_grad()
            loss(**batch).loss.backward()
            optimizer.step()
    for name, parameter in alone.named_parameters():
        torch.testing.assert_close(model.trained[name], parameter, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits(model, batch), logits(alone, batch), rtol=1e-4, atol=1e-4)
    assert torch.equal(greedy(model, batch), greedy(alone, batch))


# Attaching, training, detaching


@pytest.mark.parametrize("kind", ["t5", "v1.1"])
@pytest.mark.parametrize("name", ENTRIES)
def test_training_and_detaching_leave_the_backbone_as_it_was(name: str, kind: str) -> None:
    """Weights, modules, parameters, flags, hooks and logits; what was trained has moved, also in its model."""
    backbone, batch, chosen = tiny_t5(kind, dropout=0.1), tiny_batch(), method(name)
    backbone.shared.weight.requires_grad_(False)
    before, expected, tensors = snapshot(backbone), logits(backbone, batch), start(chosen, backbone)
    kept = {each: tensor.clone() for each, tensor in tensors.items()}
    model = built(chosen, backbone, tensors).train()
    assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in model.trained.values()}
    optimizer = torch.optim.AdamW(model.trained.values(), lr=1e-2)
    for _ in range(3):
        model(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    for each, tensor in model.tensors().items():
        assert not torch.equal(tensor, kept[each]), each
    found = logits(model.eval(), batch)
    assert model.detach() is backbone
    assert snapshot(backbone) == before
    assert torch.equal(logits(backbone, batch), expected)
    assert all(torch.equal(tensor, kept[each]) for each, tensor in tensors.items())
    with model.attached():
        assert torch.equal(logits(model, batch), found)
    assert snapshot(backbone) == before
    again = built(chosen, backbone, model.tensors())
    assert torch.equal(logits(again, batch), found)


@pytest.mark.parametrize("name", ENTRIES)
def test_generation_is_the_same_with_and_without_cache(name: str) -> None:
    backbone, batch, chosen = tiny_t5("wide"), tiny_batch(), method(name)
    model = built(chosen, backbone, moved(chosen, backbone))
    assert torch.equal(greedy(model, batch), greedy(model, batch, use_cache=False))


@pytest.mark.parametrize("name", ENTRIES)
def test_padding_changes_nothing(name: str) -> None:
    backbone, batch, chosen = tiny_t5(), tiny_batch(), method(name)
    model = built(chosen, backbone, moved(chosen, backbone))
    found = logits(model, batch)
    for row in range(4):
        length = int(batch["attention_mask"][row].sum())
        alone = {n: t[row : row + 1] if n == "labels" else t[row : row + 1, :length] for n, t in batch.items()}
        torch.testing.assert_close(logits(model, alone)[0], found[row], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ENTRIES)
def test_bfloat16_runs_as_autocast_and_as_weights(name: str) -> None:
    batch, gradients = tiny_batch(), []
    for enabled in (False, True):
        backbone, chosen = tiny_t5("v1.1"), method(name)
        model = built(chosen, backbone, moved(chosen, backbone))
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = model(**batch).loss
        loss.backward()
        assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in model.trained.values())
        gradients.append(torch.cat([p.grad.flatten() for p in model.trained.values() if p.grad is not None]))
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.97
    halves = model.to(torch.bfloat16)
    assert logits(halves, batch).dtype == torch.bfloat16
    assert greedy(halves, batch).shape[0] == 4


def test_a_layer_that_has_a_module_attached_is_named() -> None:
    backbone = tiny_t5()
    model = built(method("lora"), backbone, start(method("lora"), backbone))
    with pytest.raises(RuntimeError, match=r"encoder\.block\.0.*SelfAttention\.v has a LowRankOutput attached"):
        start(method("ia3"), backbone)
    model.detach()
    start(method("ia3"), backbone)


def test_a_published_default_does_not_follow_the_settings_of_other_methods() -> None:
    """transfer.reduction_factor is that of target adapters; a method's entry sets the adapter's."""
    assert method("adapter").model_dump()["reduction_factor"] == 32
    assert method("adapter", reduction_factor=8).model_dump()["reduction_factor"] == 8
    assert {method(name).kind for name in TRAINED} == {
        name for name, each in kinds().items() if issubclass(each, WithoutSources)
    }


# Through the steps

CELL = "kfull-seed4096"
SCORING = EvaluateSettings(answer="generate", batch_size=8, precision="float32", max_rows=None)


@pytest.fixture(scope="module")
def project(world: World, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A target, trained and scored by every entry, in the pipeline's folders."""
    folder = tmp_path_factory.mktemp("plain") / "project"
    shutil.copytree(world.folder, folder)
    write_task(folder / "data", "cb")
    entries = {name: {"kind": name, **ENTRIES[name]} for name in TRAINED}
    World(folder).transfer(
        folder / "targets" / "cb", task="cb", methods=entries, learning_rates=[0.01], max_steps=2, evaluate_every=2
    )
    targets = {"cb": folder / "targets" / "cb"}
    evaluate(targets, folder / "data", folder / "backbone", folder / "experts", SCORING, output_dir=folder / "scores")
    return Project(folder)


@pytest.mark.parametrize("name", TRAINED)
def test_a_trained_cell_predicts_what_it_was_scored_by(name: str, project: Project) -> None:
    """Trained, stored, restored, evaluated, served; all from the cell's folder."""
    folder = project.folder
    backbone = load_backbone(folder / "backbone")
    bank = load_experts(folder / "experts", backbone)
    adapter = load_target(folder / "targets" / "cb" / f"{name}-{CELL}", "cb", backbone, bank)
    before, batch = snapshot(backbone.model), tiny_batch(vocab_size=len(backbone.tokenizer))
    model = restore_target(backbone.model, adapter, bank).eval()
    assert adapter.description.sources == []
    assert {each: t.shape for each, t in model.tensors().items()} == {n: t.shape for n, t in adapter.tensors.items()}
    assert all(torch.equal(tensor, adapter.tensors[each]) for each, tensor in model.tensors().items())
    assert any(not torch.equal(t, adapter.tensors[each]) for each, t in _restarted(name, model).items())
    assert logits(model, batch).isfinite().all()
    model.detach()
    assert snapshot(backbone.model) == before
    (result,) = (each for each in load_results(folder / "scores") if each.method == name)
    assert (result.expert_weights, result.sources) == (None, [])
    assert result.trained_parameters == model.num_trained_parameters()
    predictor = load_predictor(
        folder / "backbone", folder / "experts", {"cb": folder / "targets" / "cb" / f"{name}-{CELL}"},
        {"cb": folder / "data" / "cb"}, {"cb": get_task("cb").conversion}, batch_size=4,
    )  # fmt: skip
    rows = PreparedTask.load(folder / "data" / "cb").rows("test")
    answers = predictor.predict(rows["source"].to_pylist())
    hits = [answer.prediction == target for answer, target in zip(answers, rows["target"].to_pylist(), strict=True)]
    assert 100 * sum(hits) / len(hits) == pytest.approx(result.test["accuracy"])
    assert all(answer.expert_weights == {} and answer.layers == {} for answer in answers)


def _restarted(name: str, model: PromptedModel) -> dict[str, Tensor]:
    backbone = model.detach()
    tensors = start(method(name), backbone)
    model.attachment.attach()
    return tensors


def test_reports_and_tracking_show_methods_without_experts(project: Project, tmp_path: Path) -> None:
    results = load_results(project.folder / "scores")
    assert {result.method for result in results} == {*TRAINED}
    chosen = {name: method(name) for name in TRAINED}
    about = {name: each.about([]) for name, each in chosen.items()}
    names = MethodNames({name: each.title for name, each in chosen.items()}, {n: a for n, a in about.items() if a})
    tables = Tables.of(results, names, 0.95)
    report(tables, new_origin(), 3, project.folder / "results")
    page = (project.folder / "results" / "report.html").read_text()
    assert all(each.title in page for each in chosen.values())
    settings = ReportSettings(confidence=0.95, layer_groups=2)
    for cell in (f"full-{CELL}", f"norms-{CELL}"):
        project.record_run(cell)
        shutil.copytree(project.folder / "scores" / "cb" / cell, tmp_path / "cb" / cell)
    recorded = Tables.of(load_results(tmp_path), names, 0.95)
    record(recorded, tmp_path, [], settings, project.tracker(), project.folder)
    assert project.client().search_runs(["1"], "attributes.run_name LIKE '%full%'")


def test_an_export_of_a_target_without_a_mixture_is_refused(
    project: Project, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    cell = project.folder / "targets" / "cb" / f"lora_wo-{CELL}"
    arguments = [cell, "--backbone", project.folder / "backbone", "--output", tmp_path / "lora"]
    assert "its method is of the kind 'lora_wo': expected pemt, single" in run_here(
        monkeypatch, "export_adapter", *arguments
    )


def test_the_command_lists_counts_without_a_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    entries = {name: {"kind": name, **entry} for name, entry in ENTRIES.items()}
    params = write_params(tmp_path / "params.yaml", {"methods": {**entries, "pemt": {}, "control": {"kind": "pemt"}}})
    main(make_parser().parse_args(["--backbone", "t5-base", "--params", str(params)]))
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert re.split(" {2,}", lines["lora"]) == ["lora", "lora", "3,538,944", "1.59 %", "none"]
    assert re.split(" {2,}", lines["full"]) == ["full", "full", "222,903,552", "100.00 %", "none"]
    assert "768 per prompt token" in lines["pemt"]
