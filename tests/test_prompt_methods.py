"""Prompt tuning, DePT, SPoT, ATTEMPT and MPT against peft, formulas written out in numpy, and exact identities."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny import Batch, World, random_experts, tiny_batch, tiny_t5, transfer_settings
from torch import Tensor

from pemt_core.artifacts.experts import ExpertBank, load_experts
from pemt_core.artifacts.target import load_target, restore_target
from pemt_core.backbone.shapes import backbone_of_shapes
from pemt_core.backbone.store import load_backbone
from pemt_core.errors import ArtifactError, SettingsError
from pemt_core.methods import Method, method_of
from pemt_core.methods.count import trained_parameters
from pemt_core.model.assemble import Expert
from pemt_core.model.attended_prompt import AttendedPrompt
from pemt_core.model.prompt_tuning import build_prompt_model, initial_prompt_tensors
from pemt_core.model.prompted import PromptedModel
from pemt_core.prediction.predictor import load_predictor
from pemt_core.tasks import get_task

SOURCES = ["source0", "source1", "source2"]
KINDS = ["prompt_tuning", "dept", "spot", "attempt", "mpt"]
FROM_PROMPTS = ["spot", "attempt", "mpt"]
BACKBONES = ["t5", "wide", "v1.1"]
LENGTH = 4  # of the sources' prompts here
SHORT: dict[str, dict[str, Any]] = {
    "prompt_tuning": {"length": LENGTH},
    "dept": {"length": 3, "rank": 2, "source_length": 9},
    "attempt": {"bottleneck": 5},
}
IDS = torch.arange(3, 8)

# peft 0.21 reads an attribute that transformers 5.23 has renamed
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def method(kind: str, **entry: Any) -> Method:
    """A kind on the toy settings, with a short prompt unless the entry says otherwise."""
    shared = {**transfer_settings().methods["pemt"], "source_length": 32}
    shared.pop("kind")
    return method_of(kind, {**SHORT.get(kind, {}), **entry}, shared, f"methods.{kind}")


def experts_of(backbone: Any, length: int = LENGTH) -> list[Expert]:
    """Random experts of SOURCES, with prompts as if trained alone."""
    generator = torch.Generator().manual_seed(4)
    width = backbone.config.d_model
    experts = random_experts(backbone, len(SOURCES))
    return [replace(each, lone_prompt=torch.randn(length, width, generator=generator)) for each in experts]


def lone_prompts_of(experts: Sequence[Expert]) -> list[Tensor]:
    return [expert.lone_prompt for expert in experts if expert.lone_prompt is not None]


def initial(chosen: Method, backbone: Any, seed: int = 0) -> dict[str, Tensor]:
    experts = [expert for expert in experts_of(backbone) if expert.task in chosen.draws_on(SOURCES)]
    return chosen.initial_tensors(backbone, IDS, experts, torch.Generator().manual_seed(seed))


def moved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as after some training: none is at its start."""
    generator = torch.Generator().manual_seed(5)
    return {name: tensor + 0.5 * torch.randn(tensor.shape, generator=generator) for name, tensor in tensors.items()}


def built(chosen: Method, backbone: Any, tensors: Mapping[str, Tensor]) -> PromptedModel:
    experts = [expert for expert in experts_of(backbone) if expert.task in chosen.draws_on(SOURCES)]
    return chosen.build(backbone, tensors, experts).eval()


def trained(kind: str, backbone: Any, **entry: Any) -> PromptedModel:
    """A model of this kind with tensors moved away from their start."""
    chosen = method(kind, **entry)
    return built(chosen, backbone, moved(initial(chosen, backbone)))


@torch.no_grad()
def logits(model: PromptedModel, batch: Batch) -> Tensor:
    with model:
        found: Tensor = model(**batch).logits
    return found


@torch.no_grad()
def plain_logits(backbone: Any, rows: NDArray[Any], text: NDArray[Any], labels: Tensor) -> Tensor:
    """The backbone's logits for one row of vectors in front of the text's, without padding."""
    inputs = torch.tensor(np.concatenate([rows, text])).unsqueeze(0)
    found: Tensor = backbone(inputs_embeds=inputs, labels=labels.unsqueeze(0)).logits
    return found[0]


# Settings and counts


@pytest.mark.parametrize(
    ("kind", "entry", "expected"),
    [
        ("prompt_tuning", {}, 76_800),
        ("spot", {}, 76_800),
        ("spot", {"source": "source1"}, 76_800),
        ("spot", {"source": "validation"}, 76_800),
        ("attempt", {}, 230_400),
        ("attempt", {"norm": "trained"}, 231_936),
        ("mpt", {}, 77_668),
        ("dept", {}, 76_800),
        ("dept", {"length": 40, "rank": 45}, 76_800),
        ("dept", {"length": 80, "rank": 15}, 76_800),
        ("dept", {"length": 60, "rank": 24, "source_length": 512}, 76_800),
        ("dept", {"source_length": 348}, 79_560),
    ],
    ids=str,
)
def test_the_counts_on_t5_base_are_the_published_ones(kind: str, entry: dict[str, Any], expected: int) -> None:
    shared = {**transfer_settings().methods["pemt"], "source_length": 256}
    shared.pop("kind")
    chosen = method_of(kind, entry, shared, "")
    count = trained_parameters(chosen, backbone_of_shapes("t5-base"), SOURCES, rank=64, prompt_length=100)
    assert (count.fixed, count.per_prompt_token) == (expected, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_model_trains_its_prompt_tensors_alone(kind: str, backbone: str) -> None:
    t5 = tiny_t5(backbone)
    chosen = method(kind)
    tensors = initial(chosen, t5)
    with built(chosen, t5, tensors) as model:
        assert {name: p.shape for name, p in model.trained.items()} == {n: t.shape for n, t in tensors.items()}
        assert {id(p) for p in model.parameters() if p.requires_grad} == {id(p) for p in model.trained.values()}
        output = model(**tiny_batch())
        output.loss.backward()
        assert output.sparsity_loss is None
        assert model.signal.expert_weights == {}
        # B = 0 hides A, and W_up of the attention is not zero
        expected = set(tensors) - ({"pair.a"} if kind == "dept" else set())
        assert {name for name, p in model.trained.items() if p.grad is not None and p.grad.any()} == expected


def test_only_what_reads_source_prompts_asks_for_them() -> None:
    assert [kind for kind in KINDS if method(kind).needs_lone_prompts] == FROM_PROMPTS
    assert {kind: method(kind).draws_on(SOURCES) for kind in KINDS} == {
        kind: SOURCES if kind in FROM_PROMPTS else [] for kind in KINDS
    }
    for kind in FROM_PROMPTS:
        assert method(kind, without=["source1"]).draws_on(SOURCES) == ["source0", "source2"]
        assert method(kind, sources=["source2"]).draws_on(SOURCES) == ["source2"]


@pytest.mark.parametrize("kind", FROM_PROMPTS)
def test_missing_source_prompts_are_named(kind: str) -> None:
    backbone, chosen = tiny_t5(), method(kind)
    experts = experts_of(backbone)
    generator = torch.Generator()
    without = [replace(experts[0], lone_prompt=None), *experts[1:]]
    with pytest.raises(ArtifactError, match=r"no prompt trained alone for source0; add `prompt` to `train_source"):
        chosen.initial_tensors(backbone, IDS, without, generator)
    unequal = [*experts[:2], experts_of(backbone, LENGTH + 1)[2]]
    with pytest.raises(ArtifactError, match=r"differ in length \(source0 4, source1 4, source2 5\)"):
        chosen.initial_tensors(backbone, IDS, unequal, generator)


@pytest.mark.parametrize("kind", FROM_PROMPTS)
@pytest.mark.parametrize("entry", [{"sources": []}, {"without": SOURCES}], ids=str)
def test_no_source_at_all_is_an_error(kind: str, entry: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="no source is left"):
        method(kind, **entry).draws_on(SOURCES)


def test_rates_of_their_own() -> None:
    """Published: 0.3 for the prompt; 1e-3 for the pair, 0.4 for u and v; the authors' ATTEMPT has one for all."""
    backbone = tiny_t5()
    found = {kind: method(kind).learning_rate_factors(list(initial(method(kind), backbone))) for kind in KINDS}
    rates = {kind: {name: 0.3 * factor for name, factor in found[kind].items()} for kind in KINDS}
    assert rates["dept"] == pytest.approx({"pair.a": 1e-3, "pair.b": 1e-3})
    assert rates["mpt"] == pytest.approx({"prompt.u": 0.4, "prompt.v": 0.4})
    assert rates["attempt"] == pytest.approx({"attention.down": 0.3, "attention.up": 0.3})
    assert rates["prompt_tuning"] == rates["spot"] == {}


def test_reports_say_what_was_done() -> None:
    assert [method(kind).title for kind in KINDS] == [
        "Prompt tuning", "DePT", "SPoT", "ATTEMPT", "MPT without distillation",
    ]  # fmt: skip
    assert "not distilled" in method("mpt").about(SOURCES)
    assert method("spot", source="source1").about(SOURCES) == "prompt tuning from the prompt of source1"
    assert method("attempt", without=["source0"]).about(SOURCES).endswith(", without the source source0")


# Prompt tuning


def test_the_three_starts_of_a_prompt() -> None:
    backbone = tiny_t5(vocab_size=6000)
    embeddings = backbone.get_input_embeddings().weight

    def start(init: Any, length: int) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return initial_prompt_tensors(backbone, length=length, init=init, ids=IDS, generator=generator)["prompt"]

    drawn = [int((embeddings == row).all(1).nonzero()) for row in start("vocab5000", 100)]
    assert len(set(drawn)) == 100
    assert max(drawn) < 5000
    all_frequent = torch.sort(start("vocab5000", 5000).sum(1)).values
    torch.testing.assert_close(all_frequent, torch.sort(embeddings[:5000].sum(1)).values)
    assert torch.equal(start("text", 12), embeddings[[3, 4, 5, 6, 7, 3, 4, 5, 6, 7, 3, 4]])
    assert torch.equal(start("text", 2), embeddings[[3, 4]])
    normal = start("normal", 2000)
    assert abs(normal.mean()) < 0.02
    assert abs(normal.std() - 1) < 0.02


def test_a_vocabulary_shorter_than_the_prompt_is_drawn_again() -> None:
    backbone, generator = tiny_t5(), torch.Generator().manual_seed(1)
    rows = initial_prompt_tensors(backbone, length=100, init="vocab5000", ids=IDS, generator=generator)["prompt"]
    drawn = [int((backbone.get_input_embeddings().weight == row).all(1).nonzero()) for row in rows]
    assert sorted(drawn[:64]) == list(range(64))
    assert len(set(drawn[64:])) == 36


def test_a_text_replaces_the_description() -> None:
    assert method("prompt_tuning").prompt_text("Answer.") == "Answer."
    assert method("prompt_tuning", text="Another.").prompt_text("Answer.") == "Another."
    assert method("dept").prompt_text("Answer.") == "Classify this text is postive or not:"
    assert method("dept", text=None).prompt_text("Answer.") == "Answer."


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("kind", ["prompt_tuning", "mpt"])
def test_peft_has_the_same_logits_and_answers(kind: str, backbone: str) -> None:
    import peft

    t5, batch = tiny_t5(backbone), tiny_batch()
    base = {"task_type": "SEQ_2_SEQ_LM", "num_virtual_tokens": LENGTH, "num_transformer_submodules": 1}
    config: Any = peft.PromptTuningConfig(**base)
    extra = {}
    if kind == "mpt":
        config = peft.MultitaskPromptTuningConfig(**base, num_tasks=2, num_ranks=1)
        extra = {"task_ids": torch.ones(len(batch["input_ids"]), dtype=torch.long)}
    theirs = peft.get_peft_model(copy.deepcopy(t5), config).eval()
    with trained(kind, t5) as model, torch.no_grad():
        encoder = theirs.prompt_encoder["default"]
        encoder.embedding.weight.copy_(model.trained["prompt"])
        if kind == "mpt":
            encoder.prefix_task_cols[1].copy_(model.trained["prompt.u"].unsqueeze(1))
            encoder.prefix_task_rows[1].copy_(model.trained["prompt.v"].unsqueeze(0))
        torch.testing.assert_close(model(**batch).logits, theirs(**batch, **extra).logits, rtol=1e-5, atol=1e-5)
        text = {name: batch[name] for name in ("input_ids", "attention_mask")}
        # transformers gives peft's cache too few layers where the decoder is deeper than the encoder
        ids = theirs.generate(**text, **extra, max_new_tokens=6, do_sample=False, use_cache=False)
        assert torch.equal(model.generate(**text, max_new_tokens=6), ids)


# Identities


def prompt_logits(backbone: Any, prompt: Tensor) -> Tensor:
    return logits(build_prompt_model(backbone, {"prompt": prompt}).eval(), tiny_batch())


@pytest.mark.parametrize("backbone", BACKBONES)
def test_spot_starts_as_the_source_prompt_on_the_target(backbone: str) -> None:
    t5, chosen = tiny_t5(backbone), method("spot", source="source1")
    found = logits(built(chosen, t5, initial(chosen, t5)), tiny_batch())
    assert torch.equal(found, prompt_logits(t5, lone_prompts_of(experts_of(t5))[1]))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_mpt_with_ones_is_prompt_tuning_from_the_mean(backbone: str) -> None:
    t5, chosen = tiny_t5(backbone), method("mpt")
    mean = torch.stack(lone_prompts_of(experts_of(t5))).mean(0)
    assert torch.equal(logits(built(chosen, t5, initial(chosen, t5)), tiny_batch()), prompt_logits(t5, mean))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_dept_starts_as_prompt_tuning(backbone: str) -> None:
    t5, chosen = tiny_t5(backbone), method("dept")
    tensors = initial(chosen, t5)
    assert 0 < tensors["pair.a"].abs().max() <= 1 / np.sqrt(2)  # Kaiming-uniform: the bound is 1 / sqrt(rank)
    found = logits(built(chosen, t5, tensors), tiny_batch())
    assert torch.equal(found, prompt_logits(t5, tensors["prompt"]))


@pytest.mark.parametrize("pooling", ["unpadded", "all"])
def test_attempt_with_a_constant_attention_adds_the_mean(pooling: str) -> None:
    """W_up = 0 gives h = 0, so Q and the sources weigh 1 / (E + 1) each."""
    t5, chosen = tiny_t5(), method("attempt", pooling=pooling)
    tensors = moved(initial(chosen, t5))
    tensors["attention.up"].zero_()
    prompts = lone_prompts_of(experts_of(t5))
    expected = tensors["prompt"] + torch.stack([*prompts, tensors["prompt"]]).mean(0)
    found = logits(built(chosen, t5, tensors), tiny_batch())
    torch.testing.assert_close(found, prompt_logits(t5, expected), rtol=1e-5, atol=1e-5)


def test_attempt_starts_from_the_first_source_it_draws_on() -> None:
    t5 = tiny_t5()
    prompts = lone_prompts_of(experts_of(t5))
    for entry, first in (({}, 0), ({"without": ["source0"]}, 1), ({"sources": ["source2", "source1"]}, 1)):
        assert torch.equal(initial(method("attempt", **entry), t5)["prompt"], prompts[first])


# Formulas written out


def attempt_rows(tensors: Mapping[str, Tensor], prompts: list[Any], text: NDArray[Any]) -> NDArray[Any]:
    """The prompt of ATTEMPT for one text (T, D): a transcription of the paper, one vector at a time."""
    q, down, up = (tensors[name].double().numpy() for name in ("prompt", "attention.down", "attention.up"))
    width = q.shape[1]
    z = down @ text.max(axis=0)
    h = up @ (z / (1 + np.exp(-z)))
    h = (h - h.mean()) / np.sqrt(h.var() + 1e-5)
    if "attention.norm.scale" in tensors:
        h = h * tensors["attention.norm.scale"].double().numpy() + tensors["attention.norm.shift"].double().numpy()
    every = [*prompts, q]
    scores = np.array([prompt.max(axis=0) @ h for prompt in every]) / int(width * np.e)
    weights = np.exp(scores) / np.exp(scores).sum()
    return q + sum(weight * prompt for weight, prompt in zip(weights, every, strict=True))  # type: ignore[no-any-return]


def dept_text(tensors: Mapping[str, Tensor], text: NDArray[Any]) -> NDArray[Any]:
    """The embeddings of DePT for one text (T, D), one position at a time."""
    a, b = tensors["pair.a"].double().numpy(), tensors["pair.b"].double().numpy()
    return np.stack([x + 8 / np.sqrt(len(b)) * sum(a[t, i] * b[i] for i in range(len(b))) for t, x in enumerate(text)])


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("norm", ["frozen", "trained"])
def test_attempt_equals_its_formula_for_every_row(norm: str, backbone: str) -> None:
    """Row by row without padding, so the batch's padding has no effect. The attention is far from constant."""
    t5 = tiny_t5(backbone).double()
    batch, chosen = tiny_batch(), method("attempt", norm=norm)
    tensors = {name: tensor.double() for name, tensor in moved(initial(chosen, t5)).items()}
    tensors["prompt"] *= 20
    plain = experts_of(t5)
    larger = [20 * prompt.double() for prompt in lone_prompts_of(plain)]
    experts = [replace(expert, lone_prompt=prompt) for expert, prompt in zip(plain, larger, strict=True)]
    found = logits(chosen.build(t5, tensors, experts).eval(), batch)
    prompts = [prompt.numpy() for prompt in larger]
    for row in range(len(found)):
        real = batch["attention_mask"][row].bool()
        text = t5.get_input_embeddings()(batch["input_ids"][row][real]).detach().numpy()
        kept = batch["labels"][row] != -100
        expected = plain_logits(t5, attempt_rows(tensors, prompts, text), text, batch["labels"][row][kept])
        torch.testing.assert_close(found[row][: len(expected)], expected)


def test_attempt_as_published_counts_padding_in_the_maximum() -> None:
    t5, batch = tiny_t5(), tiny_batch()
    text = t5.get_input_embeddings()(batch["input_ids"]).detach()
    found = {}
    for pooling in ("unpadded", "all"):
        with trained("attempt", t5, pooling=pooling) as model, torch.no_grad():
            prompt = model.prompt
            assert isinstance(prompt, AttendedPrompt)
            found[pooling] = prompt.embed(text, batch["attention_mask"])[0]
            alone = prompt.embed(text[1:2, : batch["attention_mask"][1].sum()], torch.ones(1, 6, dtype=torch.long))[0]
            assert torch.allclose(found[pooling][1:2], alone, atol=1e-6) == (pooling == "unpadded")
    assert torch.equal(found["all"][0], found["unpadded"][0])  # the first row has no padding


@pytest.mark.parametrize("backbone", BACKBONES)
def test_dept_equals_its_formula_for_every_row(backbone: str) -> None:
    t5 = tiny_t5(backbone).double()
    batch, chosen = tiny_batch(), method("dept")
    tensors = {name: tensor.double() for name, tensor in moved(initial(chosen, t5)).items()}
    found = logits(built(chosen, t5, tensors), batch)
    for row in range(len(found)):
        real = batch["attention_mask"][row].bool()
        text = t5.get_input_embeddings()(batch["input_ids"][row][real]).detach().numpy()
        kept = batch["labels"][row] != -100
        changed = dept_text(tensors, text)
        expected = plain_logits(t5, tensors["prompt"].numpy(), changed, batch["labels"][row][kept])
        torch.testing.assert_close(found[row][: len(expected)], expected)


# Padding, generation, probabilities


@pytest.mark.parametrize("kind", KINDS)
def test_padding_has_no_effect(kind: str) -> None:
    """A batch of unequal lengths gives what its rows give one by one, and so does more padding than DePT has rows."""
    t5, batch = tiny_t5(), tiny_batch()
    whole = logits(trained(kind, t5), batch)
    for row in range(len(whole)):
        length = int(batch["attention_mask"][row].sum())
        alone = {name: tensor[row : row + 1, : length if name != "labels" else None] for name, tensor in batch.items()}
        torch.testing.assert_close(logits(trained(kind, t5), alone)[0], whole[row], rtol=1e-4, atol=1e-4)
    text = ("input_ids", "attention_mask")
    padded = {n: torch.nn.functional.pad(t, (0, 5 if n in text else 0)) for n, t in batch.items()}
    torch.testing.assert_close(logits(trained(kind, t5), padded), whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("kind", KINDS)
def test_generation_and_probabilities_agree_with_the_forward_pass(kind: str, backbone: str) -> None:
    t5, batch = tiny_t5(backbone), tiny_batch()
    text = {name: batch[name] for name in ("input_ids", "attention_mask")}
    with trained(kind, t5) as model:
        ids = model.generate(**text, max_new_tokens=6)
        assert torch.equal(ids, model.generate(**text, max_new_tokens=6, use_cache=False))
        with model.encoded(**text) as rows:
            found = rows.log_probabilities(batch["labels"].unsqueeze(1))[:, 0]
        with torch.no_grad():
            log_softmax = model(**batch).logits.log_softmax(-1)
            first = model(**text, labels=batch["labels"][:, :1]).logits[:, 0].argmax(-1)
    real = batch["labels"] != -100
    picked = log_softmax.gather(-1, batch["labels"].clamp_min(0).unsqueeze(-1))[..., 0]
    torch.testing.assert_close(found, (picked * real).sum(-1), rtol=1e-4, atol=1e-4)
    assert torch.equal(ids[:, 1], first)


@pytest.mark.parametrize("kind", KINDS)
def test_prompts_keep_their_precision_under_autocast(kind: str) -> None:
    t5, batch = tiny_t5(), tiny_batch()
    text = t5.get_input_embeddings()(batch["input_ids"]).detach()
    with trained(kind, t5) as model, torch.no_grad():
        plain = model.prompt.embed(text, batch["attention_mask"])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = model.prompt.embed(text, batch["attention_mask"])
    assert all(map(torch.equal, found, plain))


# SPoT's rules


def test_similarity_chooses_the_nearest_prompt_by_mean_cosine() -> None:
    t5 = tiny_t5()
    experts = experts_of(t5)
    target = t5.get_input_embeddings().weight[IDS].mean(0).detach()
    near = torch.randn(LENGTH, 16, generator=torch.Generator().manual_seed(6))
    near += 0.01 * target - near.mean(0)  # points the same way, but is short
    experts[2] = replace(experts[2], lone_prompt=near)
    means = [prompt.mean(0).numpy() for prompt in lone_prompts_of(experts)]
    cosines = [mean @ target.numpy() / np.linalg.norm(mean) / np.linalg.norm(target.numpy()) for mean in means]
    assert np.argmax(cosines) == 2
    assert cosines[2] == pytest.approx(1, abs=1e-3)
    tensors = method("spot").initial_tensors(t5, IDS, experts, torch.Generator())
    assert torch.equal(tensors["prompt"], near)


def test_validation_offers_one_method_per_source() -> None:
    chosen = method("spot", source="validation", without=["source1"])
    options = chosen.options(SOURCES)
    assert [option.draws_on(SOURCES) for option in options] == [["source0"], ["source2"]]
    assert options == [method("spot", source=name, without=["source1"]) for name in ("source0", "source2")]
    assert method("spot").options(SOURCES) == [method("spot")]
    with pytest.raises(RuntimeError, match="still to be chosen on validation"):
        built(chosen, tiny_t5(), initial(chosen, tiny_t5()))


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (
            {"source": "sourc1"},
            "source is 'sourc1', expected a source that the method uses, or one of similarity",
        ),
        ({"source": "simlarity"}, "did you mean 'similarity'?"),
        ({"source": "source1", "without": ["source1"]}, "source is 'source1'"),
        ({"without": ["sourc1"]}, "without names 'sourc1', which is not a source; did you mean 'source1'?"),
    ],
)
def test_an_unknown_source_is_named(entry: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        method("spot", **entry).draws_on(SOURCES)
    assert expected in str(caught.value)


# From training to prediction


@pytest.fixture(scope="module")
def bank(world: World) -> ExpertBank:
    """The world's experts, with prompts as if trained alone."""
    loaded = load_experts(world.folder / "experts", load_backbone(world.folder / "backbone"))
    generator = torch.Generator().manual_seed(7)
    prompts = torch.randn(len(loaded.experts), LENGTH, 32, generator=generator)
    experts = [replace(expert, lone_prompt=prompt) for expert, prompt in zip(loaded.experts, prompts, strict=True)]
    return ExpertBank(experts, loaded.contents, {expert.task: f"prompt of {expert.task}" for expert in experts})


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory, world: World, bank: ExpertBank) -> Path:
    """One cell per kind, trained by the transfer step."""
    output = tmp_path_factory.mktemp("prompts") / "gamma"
    entries = {kind: {"kind": kind, **SHORT.get(kind, {}), "source_length": 32} for kind in KINDS}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pemt_core.steps.transfer.load_experts", lambda *_: bank)
        world.transfer(output, methods=entries, seeds=[1], learning_rates=[0.3])
    return output


@pytest.mark.parametrize("kind", KINDS)
def test_a_stored_cell_is_restored_and_the_backbone_unchanged(
    kind: str, cells: Path, world: World, bank: ExpertBank
) -> None:
    backbone = load_backbone(world.folder / "backbone")
    adapter = load_target(cells / f"{kind}-kfull-seed1", "gamma", backbone, bank)
    batch = tiny_batch(vocab_size=len(backbone.tokenizer))
    before = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    model = restore_target(backbone.model, adapter, bank).eval()
    assert set(model.trained) == set(adapter.tensors)
    found = logits(model, batch)
    after = backbone.model.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    chosen = method_of("", adapter.description.settings, {}, "")
    experts = bank.select(adapter.description.sources)
    assert torch.equal(found, logits(chosen.build(backbone.model, adapter.tensors, experts).eval(), batch))
    start = chosen.initial_tensors(backbone.model, IDS, experts, torch.Generator().manual_seed(1))
    assert not any(torch.equal(tensor, start[name]) for name, tensor in adapter.tensors.items())  # all are trained


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_do_not_depend_on_the_other_rows(
    kind: str, cells: Path, world: World, bank: ExpertBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pemt_core.prediction.predictor.load_experts", lambda *_: bank)
    predictor = load_predictor(
        world.folder / "backbone",
        world.folder / "experts",
        {"gamma": cells / f"{kind}-kfull-seed1"},
        {"gamma": world.folder / "data" / "gamma"},
        {"gamma": get_task("cola").conversion},  # finished texts are not converted
        batch_size=4,
    )
    texts = ["text: red", "text: blue stone river cloud lamp", "text: blue paper", "text: red window garden stone"]
    together = predictor.predict(texts)
    alone = [predictor.predict([text])[0] for text in texts]
    assert [each.prediction for each in together] == [each.prediction for each in alone]
    np.testing.assert_allclose([each.score for each in together], [each.score for each in alone], rtol=1e-4)
    assert all(each.expert_weights == {} and each.layers == {} for each in together)
