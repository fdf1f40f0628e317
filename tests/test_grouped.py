"""Models computed together equal each alone: losses, gradients, generated tokens, probabilities, in every family."""

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from tiny import Batch, random_experts, tiny_batch, transfer_settings
from tiny_models import DECODERS, MODELS, tiny_model
from torch import Tensor
from torch.nn import functional as F

from pemt_core.methods.gate_settings import GateSettings
from pemt_core.model.assemble import Expert, build_target_model, initial_prompt, initial_target_tensors
from pemt_core.model.gate import Gates
from pemt_core.model.grouped.member import Member, partition
from pemt_core.model.grouped.model import build_grouped_model
from pemt_core.model.prompted import PromptedModel

KINDS = ["input", "none", "uniform", "static", "input", "normalised"]  # gates; none: without sources
COEFFICIENTS = [0.3, 0.0, 0.2, 0.1, 0.0, 0.2]
LAYOUTS = [(kind, layout) for kind in MODELS for layout in (("behind", "both", "front") if kind in DECODERS else ("",))]
GREEDY = {"max_new_tokens": 6, "do_sample": False, "num_beams": 1}


def gates_of(kind: str) -> Gates:
    if kind == "normalised":
        return GateSettings(gate="input", gate_input="normalised").gates()
    return GateSettings(gate="input" if kind == "none" else kind).gates()


@cache
def shared_experts(backbone: Any) -> list[Expert]:
    """Those that all models of a group mix."""
    return random_experts(backbone, 3)


def member(backbone: Any, place: int, kind: str, **changes: Any) -> Member:
    """A model whose prompt has 3 + place vectors, and whose tensors are all away from their start."""
    generator = torch.Generator().manual_seed(place)
    experts = [] if kind == "none" else shared_experts(backbone)
    prompt = initial_prompt(backbone, torch.arange(3, 6 + place), "vocab", generator)
    tensors = initial_target_tensors(
        backbone, prompt, experts, reduction_factor=4, generator=generator, gates=gates_of(kind)
    )
    tensors = {name: t + 0.1 * torch.randn(t.shape, generator=generator) for name, t in tensors.items()}
    values = {
        "guidance": 0.0 if kind == "none" else 1.0,
        "sparsity_coefficient": COEFFICIENTS[place],
        "sparsity_positions": "all",
        "prompt_dropout": 0.0,
        "normalised": kind == "normalised",
    }
    return Member(tensors, experts, **{**values, **changes})


def members(backbone: Any, positions: str = "all") -> list[Member]:
    return [member(backbone, place, kind, sparsity_positions=positions) for place, kind in enumerate(KINDS)]


def alone(backbone: Any, one: Member, kind: str) -> PromptedModel:
    return build_target_model(
        backbone,
        one.tensors,
        one.experts,
        prompt_dropout=0.0,
        sparsity_coefficient=one.sparsity_coefficient,
        sparsity_positions=one.sparsity_positions,
        gates=gates_of(kind),
    )


def batches() -> list[Batch]:
    """Of different numbers of rows, lengths of texts and lengths of answers."""
    return [tiny_batch(2 + n % 3, length=5 + n, label_length=2 + n % 3, vocab_size=100, seed=n) for n in range(6)]


def mixed(own: list[Batch], seed: int = 0) -> tuple[Tensor, Tensor, list[int], list[tuple[int, int]]]:
    """All rows in any order: ids, mask, the model of each, and where each comes from."""
    places = [(model, row) for model, batch in enumerate(own) for row in range(len(batch["labels"]))]
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(seed)).tolist()
    width = max(batch["input_ids"].shape[1] for batch in own)
    ids, mask = (
        torch.cat([F.pad(batch[name], (0, width - batch[name].shape[1])) for batch in own])[order]
        for name in ("input_ids", "attention_mask")
    )
    origins = [places[each] for each in order]
    return ids, mask, [model for model, _ in origins], origins


@pytest.mark.parametrize(("kind", "layout"), LAYOUTS, ids=lambda each: str(each))
def test_a_group_equals_each_model_alone(kind: str, layout: str) -> None:
    backbone = tiny_model(kind, layout=layout)
    positions = "unpadded" if kind in DECODERS else "all"
    own, together = batches(), members(backbone, positions)
    expected, written, probabilities = [], [], []
    candidates = torch.randint(3, 100, (3, 2), generator=torch.Generator().manual_seed(9))
    for batch, one, gate in zip(own, together, KINDS, strict=True):
        with alone(backbone, one, gate) as model:
            output = model(**batch)
            output.loss.backward()
            gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in model.trained.items()}
            expected.append((output.loss.item(), output.lm_loss.item(), gradients))
            with model.encoded(batch["input_ids"], batch["attention_mask"]) as rows:
                written.append(rows.generate(**GREEDY))
                probabilities.append(rows.log_probabilities(candidates.expand(len(batch["labels"]), -1, -1)))

    with build_grouped_model(backbone, together) as group:
        output = group.losses(own)
        output.loss.sum().backward()
        gradient = group.matrix.values.grad
        for place, (loss, lm_loss, gradients) in enumerate(expected):
            assert output.loss[place].item() == pytest.approx(loss, abs=1e-5)
            assert output.lm_loss[place].item() == pytest.approx(lm_loss, abs=1e-5)
            found = group.matrix.tensors(place, gradient)
            assert found.keys() == gradients.keys()
            for name, values in gradients.items():
                torch.testing.assert_close(found[name], values, rtol=1e-3, atol=1e-4 * float(values.abs().max() + 1e-3))

        ids, mask, models, origins = mixed(own)
        with group.encoded(ids, mask, models) as rows:
            generated = rows.generate(**GREEDY)
            scores = rows.log_probabilities(candidates.expand(len(ids), -1, -1))
        for answer, score, (model, row) in zip(generated, scores, origins, strict=True):
            reference = written[model][row]
            assert answer[: len(reference)].tolist() == reference.tolist()
            torch.testing.assert_close(score, probabilities[model][row], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("entry", [{"kind": "single", "source": "source0"}, {"kind": "joint"}], ids=["single", "joint"])
def test_methods_that_mix_one_source_are_members(entry: dict[str, Any]) -> None:
    """Beside another of their kind and the control."""
    backbone = tiny_model("t5")
    settings = transfer_settings(methods={"one": entry, "control": {"kind": "pemt", "sources": []}}, prompt_dropout=0.0)
    source, generator, own = random_experts(backbone, 1), torch.Generator().manual_seed(5), batches()[:3]
    together, expected = [], []
    for name, batch in zip(("one", "one", "control"), own, strict=True):
        method, experts = settings.method(name), source if name == "one" else []
        tensors = method.initial_tensors(backbone, torch.arange(3, 8), experts, generator)
        tensors = {n: t + 0.1 * torch.randn(t.shape, generator=generator) for n, t in tensors.items()}
        together.append(method.member(tensors, experts))
        with method.build(backbone, tensors, experts) as model:
            expected.append(model(**batch).loss)
    assert None not in together
    with build_grouped_model(backbone, [each for each in together if each]) as group:
        torch.testing.assert_close(group.losses(own).loss, torch.stack(expected))


def test_models_that_sit_out_change_nothing() -> None:
    """Losses of some models, in another order, and expert weights by row."""
    backbone = tiny_model("t5")
    own = batches()
    with build_grouped_model(backbone, members(backbone)) as group:
        whole = group.losses(own)
        some = group.losses([own[4], own[1]], [4, 1])
        torch.testing.assert_close(some.loss, whole.loss[[4, 1]], rtol=1e-5, atol=1e-5)
        some.loss.sum().backward()
        gradient = group.matrix.values.grad
        assert gradient is not None
        assert [bool(row.any()) for row in gradient] == [False, True, False, False, True, False]
        ids, mask, models, _ = mixed(own)
        with group.encoded(ids, mask, models) as rows:
            rows.generate(**GREEDY)
            weights = group.model.signal.expert_weights
        of_row = torch.tensor(models)
        for layer in weights.values():
            torch.testing.assert_close(layer.sum(1), (of_row != 1).float())  # model 1 has no sources
            assert torch.equal(layer[of_row == 2], torch.full_like(layer[of_row == 2], 1 / 3))


def test_the_backbone_is_as_it_was() -> None:
    backbone = tiny_model("t5")
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    modules = [type(module) for module in backbone.modules()]
    with build_grouped_model(backbone, members(backbone)):
        assert [type(module) for module in backbone.modules()] != modules
    assert [type(module) for module in backbone.modules()] == modules
    assert all(torch.equal(tensor, before[name]) for name, tensor in backbone.state_dict().items())


def test_tensors_of_a_model_are_views_without_padding() -> None:
    backbone = tiny_model("t5")
    together = members(backbone)
    with build_grouped_model(backbone, together) as group:
        for place, one in enumerate(together):
            found = group.matrix.tensors(place)
            assert [*found] == [*one.tensors]
            assert all(torch.equal(found[name], tensor) for name, tensor in one.tensors.items())
        group.matrix.tensors(2)["prompt"].zero_()
        assert not group.matrix.values[2][: together[2].tensors["prompt"].numel()].any()


def test_only_what_fits_is_computed_together() -> None:
    """The same experts, sparsity positions and adapters; models without sources fit any."""
    backbone = tiny_model("t5")
    input_, none, uniform = (member(backbone, place, kind) for place, kind in enumerate(KINDS[:3]))
    unpadded = member(backbone, 0, "input", sparsity_positions="unpadded")
    fewer = replace(input_, experts=random_experts(backbone, 2))
    assert partition([none, input_, unpadded, fewer, uniform]) == [[0, 1, 4], [2], [3]]
    assert partition([none, none]) == [[0, 1]]
    with pytest.raises(ValueError, match="cannot be computed together"):
        build_grouped_model(backbone, [input_, unpadded])


def test_padding_counts_only_where_it_is_the_same() -> None:
    """In a decoder-only model, what is read at padding depends on how much there is."""
    backbone = tiny_model("llama", layout="behind")
    with (
        build_grouped_model(backbone, members(backbone)) as group,
        pytest.raises(ValueError, match="over unpadded positions alone"),
    ):
        group.losses(batches())


def test_rows_need_a_group() -> None:
    backbone = tiny_model("t5")
    own = batches()[0]
    with build_grouped_model(backbone, members(backbone)) as group, pytest.raises(RuntimeError, match="GroupedModel"):
        group.model(**own)


def test_beams_stay_in_their_blocks() -> None:
    backbone = tiny_model("t5")
    own, together = batches(), members(backbone)
    beams = {"max_new_tokens": 5, "do_sample": False, "num_beams": 3}
    ids, mask, models, origins = mixed(own)

    with build_grouped_model(backbone, together) as group, group.encoded(ids, mask, models) as rows:
        generated = rows.generate(**beams)
    with alone(backbone, together[0], KINDS[0]) as model:
        reference = model.generate(own[0]["input_ids"], own[0]["attention_mask"], **beams)
    for answer, (place, row) in zip(generated, origins, strict=True):
        if place == 0:
            assert answer[: reference.shape[1]].tolist() == reference[row].tolist()
