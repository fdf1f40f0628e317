"""Every family of backbones: equal to the backbone, to plain loops, to itself in other batches and with a cache."""

from functools import partial
from typing import Any

import pytest
import torch
from plain_decoder import PlainDecoder, unpadded
from plain_model import PlainExpert, PlainTarget, plain_source, read
from test_model import GREEDY, relative_error, rows_of, snapshot
from tiny import Batch, random_experts, random_target_tensors, tiny_batch
from tiny_models import DECODERS, ENCODER_DECODERS, tiny_model
from torch import Tensor

from pemt_core.backbone.family import LAYOUTS
from pemt_core.methods.gate_settings import GateSettings
from pemt_core.methods.gates import token
from pemt_core.model.assemble import (
    Expert,
    build_source_model,
    build_target_model,
    initial_prompt,
    initial_source_tensors,
    initial_target_tensors,
)
from pemt_core.model.gate import PUBLISHED, Gates, build, initial_tensors
from pemt_core.model.prompted import PromptedModel

PLACES = [
    *((kind, "front") for kind in ENCODER_DECODERS),
    *((kind, layout) for kind in ("llama", "gemma3") for layout in LAYOUTS),
    ("qwen3", "behind"),
    ("smollm3", "both"),
]
READ_TEXT = Gates(initial_tensors, partial(build, part="text"))  # the gate `text`
PART_GATES = {"prompt": PUBLISHED, "text": READ_TEXT}
SPREAD = 0.3  # enough for generated tokens to vary
TOLERANCE = 3e-5  # of sums in another order, relative to the largest value
WINDOW = 16  # of the local layers of the Gemmas
IDS = torch.tensor([9, 4, 33, 7])  # of a description


def lively(kind: str, layout: str, **changes: Any) -> Any:
    return tiny_model(kind, layout=layout, spread=SPREAD, **changes)


def batch_of(rows: int = 4, length: int = 7, seed: int = 0) -> Batch:
    return tiny_batch(rows, length=length, vocab_size=120, seed=seed)


def plain_experts(experts: list[Expert]) -> list[PlainExpert]:
    return [PlainExpert(expert.tensors, expert.scale) for expert in experts]


def target(backbone: Any, *, gates: Gates = PUBLISHED, **options: Any) -> PromptedModel:
    """A stage-2 model with random experts and tensors as after some training."""
    options = {"prompt_dropout": 0.0, "sparsity_coefficient": 0.1, **options}
    tensors, experts = random_target_tensors(backbone, 3), random_experts(backbone, 3)
    return build_target_model(backbone, tensors, experts, gates=gates, **options).eval()


@torch.no_grad()
def bare_logits(backbone: Any, prompt: Tensor, batch: Batch) -> list[Tensor]:
    """The logits of the backbone itself behind a prompt, row by row without padding."""
    found = []
    rows = zip(unpadded(batch["input_ids"], batch["attention_mask"]), batch["labels"], strict=True)
    for ids, answer in ((text.unsqueeze(0), label[label != -100].unsqueeze(0)) for text, label in rows):
        if backbone.config.is_encoder_decoder:
            inputs, mask = read(backbone, prompt, ids, torch.ones_like(ids))
            found.append(backbone(inputs_embeds=inputs, attention_mask=mask, labels=answer).logits[0])
        else:
            found.append(continued_logits(backbone, prompt, ids, answer))
    return found


def continued_logits(backbone: Any, prompt: Tensor, ids: Tensor, answer: Tensor) -> Tensor:
    embedding, layout = backbone.get_input_embeddings(), backbone.config.prompt_layout
    bos = embedding(torch.tensor([backbone.config.bos_token_id]))
    parts = {"front": [prompt, embedding(ids[0])], "behind": [embedding(ids[0]), prompt]}
    parts["both"] = [prompt, *parts["behind"]]
    inputs = torch.cat([bos, *parts[layout], embedding(answer[0, :-1])]).unsqueeze(0)
    logits: Tensor = backbone(inputs_embeds=inputs, use_cache=False).logits[0, -answer.shape[1] :]
    return logits


def assert_rows_equal(logits: Tensor, expected: list[Tensor], tolerance: float = TOLERANCE) -> None:
    for row, reference in zip(logits, expected, strict=True):
        assert relative_error(row[: len(reference)], reference) < tolerance


# --- the start


@pytest.mark.parametrize(("kind", "layout"), PLACES)
def test_both_stages_start_as_the_backbone_with_the_prompt(kind: str, layout: str) -> None:
    """U = 0 in every expert, W_up = 0 in every target adapter, and the backbone's own norms change nothing."""
    backbone, batch, generator = lively(kind, layout), batch_of(), torch.Generator().manual_seed(0)
    prompt = initial_prompt(backbone, IDS, "vocab", generator)
    expected = bare_logits(backbone, prompt, batch)
    source = initial_source_tensors(backbone, prompt, rank=2, init="zero", generator=generator)
    with torch.no_grad(), build_source_model(backbone, source, scale=2.0).eval() as model:
        assert_rows_equal(model(**batch).logits, expected)
    experts = [Expert("a", source, 2.0), Expert("b", source, 1.0)]
    tensors = initial_target_tensors(backbone, prompt, experts, reduction_factor=4, generator=generator)
    tensors = {n: torch.zeros_like(t) if n.endswith("adapter.up.weight") else t for n, t in tensors.items()}
    options = {"prompt_dropout": 0.0, "sparsity_coefficient": 0.1, "guided_prompt": False}
    with torch.no_grad(), build_target_model(backbone, tensors, experts, **options).eval() as model:
        assert_rows_equal(model(**batch).logits, expected)
    trained = initial_source_tensors(backbone, prompt, rank=2, init="kaiming", generator=generator)
    with torch.no_grad(), build_source_model(backbone, trained, scale=2.0).eval() as model:
        assert relative_error(model(**batch).logits[0], expected[0]) > 0.01


@pytest.mark.parametrize("kind", [*ENCODER_DECODERS, *DECODERS])
def test_a_prompt_starts_as_the_embeddings_that_the_first_layer_gets(kind: str) -> None:
    """In some families the embedding module scales them, in others the stack does, or nobody."""
    backbone, seen = lively(kind, "front"), []
    prompt = initial_prompt(backbone, IDS, "vocab", torch.Generator())
    stack = backbone.get_encoder() if backbone.config.is_encoder_decoder else backbone.model
    modules = dict(stack.named_modules())
    first = next(modules[name] for name in ("block.0", "text_model.layers.0", "layers.0") if name in modules)

    def keep(_module: Any, arguments: Any, options: Any) -> None:
        seen.append(arguments[0] if arguments else options["hidden_states"])

    first.register_forward_pre_hook(keep, with_kwargs=True)
    with torch.no_grad():
        stack(input_ids=IDS.unsqueeze(0))
        stack(inputs_embeds=prompt.unsqueeze(0))
    from_ids, from_prompt = (each.square().mean().sqrt() for each in seen)
    torch.testing.assert_close(from_prompt, from_ids)
    torch.testing.assert_close(seen[1], seen[0])


# --- comparison with plain loops


@pytest.mark.parametrize("positions", ["all", "unpadded"])
@pytest.mark.parametrize("kind", ["umt5", "t5gemma", "t5gemma2"])
def test_stage_2_on_an_encoder_decoder_equals_the_plain_loop(kind: str, positions: Any) -> None:
    """test_model.py compares the others of the T5 family."""
    backbone, batch = lively(kind, "front"), batch_of()
    experts, tensors = random_experts(backbone, 3), random_target_tensors(backbone, 3)
    plain = PlainTarget(backbone, tensors, plain_experts(experts), coefficient=0.1, positions=positions)
    expected = plain(**batch)
    expected.loss.backward()
    model = target(backbone, sparsity_positions=positions)
    found = model(**batch)
    found.loss.backward()
    assert found.sparsity_loss is not None
    for name in ("logits", "lm_loss", "sparsity_loss", "loss"):
        assert relative_error(getattr(found, name), getattr(expected, name)) < TOLERANCE, name
    assert_gates_and_gradients(model, expected.gates, plain.tensors)
    with torch.no_grad():
        ids = plain.greedy(batch["input_ids"], batch["attention_mask"], 6)
    options = {"max_new_tokens": 6, "eos_token_id": None, **GREEDY}
    assert torch.equal(model.generate(batch["input_ids"], batch["attention_mask"], **options), ids)
    assert len(set(ids[:, 1:].flatten().tolist())) > 1


def assert_gates_and_gradients(model: PromptedModel, gates: dict[str, Tensor], leaves: dict[str, Tensor]) -> None:
    assert model.signal.expert_weights.keys() == gates.keys()
    for name, gate in gates.items():
        assert relative_error(model.signal.expert_weights[name], gate) < TOLERANCE
    assert model.trained.keys() == leaves.keys()
    for name, leaf in leaves.items():
        gradient = model.trained[name].grad
        assert gradient is not None, name
        assert leaf.grad is not None, name
        assert relative_error(gradient, leaf.grad) < 1e-3, name  # umT5 multiplies rounding most


@pytest.mark.parametrize("kind", ["umt5", "t5gemma", "t5gemma2"])
def test_stage_1_on_an_encoder_decoder_equals_the_plain_formula(kind: str) -> None:
    backbone, batch = lively(kind, "front"), batch_of()
    tensors = dict(random_experts(backbone, 1)[0].tensors)
    logits, loss, gradients = plain_source(backbone, tensors, 0.5, batch)
    model = build_source_model(backbone, tensors, scale=0.5).eval()
    found = model(**batch)
    found.loss.backward()
    read_by_loss = batch["labels"] != -100
    assert relative_error(found.logits[read_by_loss], logits[read_by_loss]) < TOLERANCE
    assert relative_error(found.loss, loss) < TOLERANCE
    assert_gates_and_gradients(model, {}, {n: _with_gradient(tensors[n], g) for n, g in gradients.items()})


def _with_gradient(tensor: Tensor, gradient: Tensor) -> Tensor:
    leaf = tensor.clone().requires_grad_()
    leaf.grad = gradient
    return leaf


@pytest.mark.parametrize(
    ("kind", "layout", "part"),
    [(kind, layout, "prompt") for kind in DECODERS for layout in LAYOUTS]
    + [(kind, layout, "text") for kind in ("llama", "gemma3") for layout in LAYOUTS],
)
def test_stage_2_on_a_decoder_equals_rows_read_alone(kind: str, layout: Any, part: Any) -> None:
    """Padding, position ids, batches, cache and folded experts change nothing."""
    backbone, batch = lively(kind, layout), batch_of(rows=3)
    experts, tensors = random_experts(backbone, 3), random_target_tensors(backbone, 3)
    plain = PlainDecoder(backbone, tensors, plain_experts(experts), layout=layout, gates_read=part, coefficient=0.1)
    expected = plain(**batch)
    expected.loss.backward()
    model = target(backbone, gates=PART_GATES[part], sparsity_positions="unpadded")
    found = model(**batch)
    found.loss.backward()
    assert found.sparsity_loss is not None
    assert_rows_equal(found.logits, expected.logits)
    for name in ("lm_loss", "sparsity_loss", "loss"):
        assert relative_error(getattr(found, name), getattr(expected, name)) < TOLERANCE, name
    assert_gates_and_gradients(model, expected.gates, plain.tensors)
    with torch.no_grad():
        ids = plain.greedy(batch["input_ids"], batch["attention_mask"], 5)
    options = {"max_new_tokens": 5, "eos_token_id": None, **GREEDY}
    assert torch.equal(model.generate(batch["input_ids"], batch["attention_mask"], **options), ids)
    for name, gate in expected.gates.items():
        assert relative_error(model.signal.expert_weights[name], gate) < TOLERANCE


def test_the_sparsity_loss_over_all_positions_of_one_row_equals_the_plain_loop() -> None:
    """A row has no padding, so there are no positions but those that the plain loop has."""
    backbone, batch = lively("qwen3", "both"), batch_of(rows=1)
    experts, tensors = random_experts(backbone, 3), random_target_tensors(backbone, 3)
    plain = PlainDecoder(backbone, tensors, plain_experts(experts), layout="both", counts_bos=True)
    expected = plain(**batch).sparsity_loss
    found = target(backbone, sparsity_positions="all")(**batch).sparsity_loss
    assert found is not None
    assert relative_error(found, expected) < TOLERANCE


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_stage_1_on_a_decoder_equals_rows_read_alone(kind: str, layout: Any) -> None:
    backbone, batch = lively(kind, layout), batch_of(rows=3)
    tensors = dict(random_experts(backbone, 1)[0].tensors)
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in tensors.items()}
    plain = PlainDecoder(
        backbone, {"prompt": leaves["prompt"]}, [PlainExpert(leaves, 0.5)], layout=layout, guides=False
    )
    leaves["prompt"] = plain.tensors["prompt"]
    expected = plain(**batch)
    expected.lm_loss.backward()
    model = build_source_model(backbone, tensors, scale=0.5).eval()
    found = model(**batch)
    found.loss.backward()
    assert_rows_equal(found.logits, expected.logits)
    assert relative_error(found.loss, expected.lm_loss) < TOLERANCE
    assert_gates_and_gradients(model, {}, leaves)


# --- batches, caches and long texts


@pytest.mark.parametrize(("kind", "layout"), PLACES)
def test_a_row_does_not_depend_on_its_batch(kind: str, layout: str) -> None:
    """Logits, gates, generated tokens and log-probabilities, also of texts longer than the window of local layers."""
    length = length_for(kind)
    model, batch = target(lively(kind, layout)), batch_of(rows=3, length=length, seed=3)
    batch["attention_mask"][2, length // 3 :] = 0
    batch["input_ids"] *= batch["attention_mask"]
    together, weights, ids, scores = results(model, batch)
    for row in range(3):
        one = rows_of(batch, row)
        kept = int(one["attention_mask"].sum())
        one = {**one, "input_ids": one["input_ids"][:, :kept], "attention_mask": one["attention_mask"][:, :kept]}
        logits, alone, found, score = results(model, one)
        answered = int((one["labels"] != -100).sum())
        assert relative_error(logits[0, :answered], together[row, :answered]) < 1e-4
        assert torch.equal(found[0], ids[row])
        torch.testing.assert_close(score[0], scores[row], rtol=1e-4, atol=1e-4)
        for name, weight in alone.items():
            torch.testing.assert_close(weight[0], weights[name][row], rtol=1e-4, atol=1e-5)


def length_for(kind: str) -> int:
    """Longer than the window of a model's local layers."""
    return 3 * WINDOW if "gemma" in kind else 9


@torch.no_grad()
def results(model: PromptedModel, batch: Batch) -> tuple[Tensor, dict[str, Tensor], Tensor, Tensor]:
    """Logits, gates, generated tokens, and log-probabilities of the labels."""
    logits = model(**batch).logits
    weights = dict(model.signal.expert_weights)
    with model.encoded(batch["input_ids"], batch["attention_mask"]) as rows:
        ids = rows.generate(max_new_tokens=5, eos_token_id=None, **GREEDY)
        return logits, weights, ids, rows.log_probabilities(batch["labels"].unsqueeze(1))


@pytest.mark.parametrize(("kind", "layout"), PLACES)
def test_cached_generation_is_the_arg_max_of_the_forward_pass(kind: str, layout: str) -> None:
    """And the probability of what was generated is that of the forward pass, with gates that read the same."""
    model, batch = target(lively(kind, layout)), batch_of(rows=3, length=length_for(kind), seed=3)
    inputs = batch["input_ids"], batch["attention_mask"]
    with model.encoded(*inputs) as rows:
        ids = rows.generate(max_new_tokens=6, eos_token_id=None, **GREEDY)[:, rows.num_start_tokens :]
        weights = dict(model.signal.expert_weights)
        scores = rows.log_probabilities(ids.unsqueeze(1))
    with torch.no_grad():
        logits = model(*inputs, ids).logits
    assert torch.equal(logits.argmax(-1), ids)
    expected = logits.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).sum((1, 2))
    torch.testing.assert_close(scores.squeeze(1), expected, rtol=1e-4, atol=1e-4)
    for name, weight in model.signal.expert_weights.items():
        torch.testing.assert_close(weights[name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "layout"), PLACES)
def test_candidates_share_one_pass_over_the_prefix(kind: str, layout: str) -> None:
    """Their log-probabilities are those of full forward passes, in any order and between generations with beams."""
    model, batch = target(lively(kind, layout)), batch_of(rows=3, length=2 * WINDOW)
    inputs = batch["input_ids"], batch["attention_mask"]
    generator = torch.Generator().manual_seed(6)
    candidates = torch.randint(3, 120, (3, 4, 5), generator=generator)
    candidates[:, 1, 3:], candidates[:, 2, 1:] = -100, -100
    expected = torch.stack([full_scores(model, inputs, each) for each in candidates.unbind(1)], dim=1)
    lengths = []
    stack = model.backbone.get_encoder() if model.backbone.config.is_encoder_decoder else model.backbone.model
    hook = stack.register_forward_hook(
        lambda _module, _inputs, output: lengths.append(output.last_hidden_state.shape[1])
    )
    with model.encoded(*inputs) as rows:
        for order in ([0, 1, 2, 3], [2], [0, 3], [1]):
            found = rows.log_probabilities(candidates[:, order])
            torch.testing.assert_close(found, expected[:, order], rtol=1e-4, atol=1e-4)
        read_once = sum(length > WINDOW for length in lengths)
        beams = rows.generate(max_new_tokens=4, do_sample=False, num_beams=3)
        assert len(beams) == 3
        torch.testing.assert_close(rows.log_probabilities(candidates[:, :1]), expected[:, :1], rtol=1e-4, atol=1e-4)
    hook.remove()
    assert read_once == 1


@torch.no_grad()
@pytest.mark.parametrize("padding", [0, 5])
def test_weights_per_position_do_not_count_what_pads_a_candidate(padding: int) -> None:
    """Whatever the id of the padding token is: a short label beside a long one has the weights that it has alone."""
    backbone, batch = lively("llama", "behind", pad_token_id=padding), batch_of(rows=2)
    per_token = Gates(initial_tensors, partial(token.build, settings=GateSettings()))
    model = target(backbone, gates=per_token)
    short, long = [7, 1, -100, -100], [8, 9, 10, 1]
    with model.encoded(batch["input_ids"], batch["attention_mask"]) as rows:
        rows.log_probabilities(torch.tensor([[short, long]]).expand(2, -1, -1))
        together = {name: weights[::2] for name, weights in model.signal.expert_weights.items()}
        rows.log_probabilities(torch.tensor([[short[:2]]]).expand(2, -1, -1))
    for name, weights in model.signal.expert_weights.items():
        torch.testing.assert_close(together[name], weights, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "layout"), [("t5", "front"), ("t5gemma", "front"), ("llama", "behind")])
def test_candidates_that_pass_in_parts_have_the_same_scores(
    kind: str, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = target(lively(kind, layout)), batch_of(rows=3)
    candidates = torch.randint(3, 120, (3, 5, 4), generator=torch.Generator().manual_seed(6))
    with model.encoded(batch["input_ids"], batch["attention_mask"]) as rows:
        whole = rows.log_probabilities(candidates)
        monkeypatch.setattr("pemt_core.model.encoder_decoder.MOST_POSITIONS", 8)  # two candidates side by side
        torch.testing.assert_close(rows.log_probabilities(candidates), whole)
        monkeypatch.setattr("pemt_core.model.prompted.MOST_LOGITS", 2 * 3 * 4 * 120)  # two candidates, then one
        torch.testing.assert_close(rows.log_probabilities(candidates), whole)
        monkeypatch.setattr("pemt_core.model.prompted.MOST_LOGITS", 1)
        torch.testing.assert_close(rows.log_probabilities(candidates), whole)


@torch.no_grad()
def full_scores(model: PromptedModel, inputs: tuple[Tensor, Tensor], labels: Tensor) -> Tensor:
    found = model(*inputs, labels).logits.log_softmax(-1).gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    return found.masked_fill(labels == -100, 0).sum(1)


@pytest.mark.parametrize(("kind", "layout"), PLACES)
def test_beams_of_a_row_do_not_depend_on_its_batch(kind: str, layout: str) -> None:
    model, batch = target(lively(kind, layout)), batch_of(rows=2)
    options = {"max_new_tokens": 4, "eos_token_id": None, "do_sample": False, "num_beams": 3}
    beams = model.generate(batch["input_ids"], batch["attention_mask"], **options)
    for row in range(2):
        one = rows_of(batch, row)
        found = model.generate(one["input_ids"], one["attention_mask"], **options)
        assert torch.equal(found[0], beams[row])


# --- attaching


@pytest.mark.parametrize("kind", DECODERS)
def test_the_output_layer_reads_contiguous_rows(kind: str) -> None:
    """Others are multiplied with a copy of the output layer for every row."""
    model, batch, seen = target(lively(kind, "behind")), batch_of(), list[Tensor]()
    handle = model.backbone.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(**batch)
    candidates = batch["labels"].clamp_min(3).unsqueeze(1).repeat(1, 2, 1)
    with model.encoded(batch["input_ids"], batch["attention_mask"]) as rows:
        rows.log_probabilities(candidates)
        rows.generate(**GREEDY, max_new_tokens=3)
    handle.remove()
    assert len(seen) > 3
    assert all(each.is_contiguous() for each in seen)
    assert {each.shape[1] for each in seen} == {batch["labels"].shape[1], batch["labels"].shape[1] - 1, 1}


@pytest.mark.parametrize(("kind", "layout"), PLACES)
def test_detaching_restores_the_backbone_exactly(kind: str, layout: str) -> None:
    """Tensors, modules, hooks, flags and outputs; an attached model comes back with its outputs."""
    backbone, batch = lively(kind, layout), batch_of()
    prompt = initial_prompt(backbone, IDS, "vocab", torch.Generator())
    before, outputs = snapshot(backbone), bare_logits(backbone, prompt, batch)
    model = target(backbone)
    attached = model(**batch)
    attached.loss.backward()
    model.generate(batch["input_ids"], batch["attention_mask"], max_new_tokens=3, **GREEDY)
    assert model.detach() is backbone
    assert snapshot(backbone) == before
    assert all(torch.equal(*pair) for pair in zip(bare_logits(backbone, prompt, batch), outputs, strict=True))
    with torch.no_grad(), model.attached():
        assert torch.equal(model(**batch).logits, attached.logits)
    assert snapshot(backbone) == before


# --- what gates see


@pytest.mark.parametrize("part", ["prompt", "text"])
@pytest.mark.parametrize(("kind", "layout"), PLACES)
def test_gates_depend_on_the_text_in_every_layer(kind: str, layout: str, part: str) -> None:
    """A prompt in front of the text of a decoder-only model is the exception: its gates are the same for every text."""
    model, batch = target(lively(kind, layout), gates=PART_GATES[part]), batch_of(rows=1, length=6)
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    other["input_ids"][0, 0] += 1
    with torch.no_grad():
        model(**batch)
        weights = dict(model.signal.expert_weights)
        model(**other)
    static = kind in DECODERS and layout == "front" and part == "prompt"
    for name, weight in model.signal.expert_weights.items():
        assert torch.equal(weight, weights[name]) == static, name


LONG = 6 * WINDOW
SEEN = {  # tokens of a long text by the gates of local layers, before the first global one
    "t5gemma2": [WINDOW // 2, WINDOW, 3 * WINDOW // 2],
    "t5gemma": [WINDOW],
    "gemma3": [WINDOW - 1, 2 * (WINDOW - 1), 3 * (WINDOW - 1)],
}


@pytest.mark.parametrize("kind", SEEN)
def test_gates_of_local_layers_see_part_of_a_long_text(kind: str) -> None:
    """The part next to the prompt, which grows from layer to layer; behind the first global layer, they see all."""
    layers = ["sliding_attention"] * len(SEEN[kind]) + ["full_attention", "sliding_attention"]
    model = target(lively(kind, "behind", layer_types=layers, num_hidden_layers=len(layers)))
    in_front = kind in ENCODER_DECODERS
    last_seen = [number - 1 if in_front else LONG - number for number in SEEN[kind]]
    first_hidden = [number if in_front else LONG - number - 1 for number in SEEN[kind]]
    farthest = LONG - 1 if in_front else 0
    for layer, (near, beyond) in enumerate(zip(last_seen, first_hidden, strict=True)):
        assert gates_that_see(model, near)[layer]
        assert not gates_that_see(model, beyond)[layer]
    local = [False] * len(SEEN[kind])
    assert gates_that_see(model, farthest) == [*local, True, True]


@torch.no_grad()
def gates_that_see(model: PromptedModel, position: int) -> list[bool]:
    """By layer of the stack that reads the text: whether the gate depends on one token of a long text."""
    batch, found = batch_of(rows=1, length=LONG), []
    for _ in range(2):
        model(**batch)
        weights = model.signal.expert_weights
        found.append([weights[name] for name in weights if name.startswith(next(iter(weights)).split(".")[0])])
        batch["input_ids"][0, position] += 1
    return [not torch.equal(*pair) for pair in zip(*found, strict=True)]


# --- counts


@pytest.mark.parametrize("kind", [*ENCODER_DECODERS, *DECODERS])
def test_trained_counts_follow_the_formula(kind: str) -> None:
    """Prompt P D; per layer F E or D E of the gate and 2 D B + B + D of the target adapter; D per norm."""
    backbone, prompt = lively(kind, "front"), 5
    layers, d, f, experts, bottleneck = 3, 32, 48, 3, 8
    adapters = 2 * d * bottleneck + bottleneck + d
    gates = {"encoder": f * experts, "decoder": (d if kind in ENCODER_DECODERS else f) * experts}
    norms_of_layer = {
        "t5": (2, 3), "t5_1_1": (2, 3), "mt5": (2, 3), "umt5": (2, 3), "t5gemma": (4, 6), "t5gemma2": (4, 4),
        "llama": (0, 2), "qwen3": (0, 2), "smollm3": (0, 2), "gemma3": (0, 4),
    }[kind]  # fmt: skip
    expected = prompt * d
    for stack, norms in zip(("encoder", "decoder"), norms_of_layer, strict=True):
        if norms:
            expected += layers * (gates[stack] + adapters + norms * d) + d
    stacks = 2 if kind in ENCODER_DECODERS else 1
    tensors = random_experts(backbone, 1, rank=3)[0].tensors
    assert target(backbone).num_trained_parameters() == expected
    assert sum(tensor.numel() for tensor in tensors.values()) == 3 * d + stacks * layers * 3 * (d + f)
