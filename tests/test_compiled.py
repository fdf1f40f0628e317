"""Compiled layers and lengths that repeat: the numbers of steps without them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tiny import World, target_model, tiny_batch, tiny_t5, unchecked
from tiny_models import tiny_model
from torch._dynamo.utils import counters
from transformers.modeling_layers import GradientCheckpointingLayer

from pemt_core.artifacts.description import load_training_record
from pemt_core.data.tokenized import IGNORED_LABEL, Ragged, TokenizedSplit
from pemt_core.errors import SettingsError
from pemt_core.training import compiled, together
from pemt_core.training.compiled import compiled_layers, uncompiled

pytestmark = [
    pytest.mark.usefixtures("fresh_accelerator"),
    pytest.mark.filterwarnings("ignore"),  # torch's compiler warns of what it does itself
]


@pytest.fixture
def without_checks() -> Iterator[None]:
    """Torch cannot put the tests' checks of shapes into a graph."""
    with unchecked():
        yield


def steps(model: Any, lengths: Sequence[int] = (7, 9)) -> list[tuple[float, dict[str, torch.Tensor]]]:
    """Loss and gradients of a batch of each length."""
    found = []
    for length in lengths:
        loss = model(**tiny_batch(length=length)).loss
        loss.backward()
        found.append((loss.item(), {name: tensor.grad.clone() for name, tensor in model.trained.items()}))
        model.zero_grad()
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("without_checks")
@pytest.mark.parametrize(("kind", "backend", "lengths"), [("llama", "inductor", [7]), ("t5", "aot_eager", [7, 9])])
def test_compiled_layers_give_equal_losses_and_gradients(kind: str, backend: str, lengths: list[int]) -> None:
    """On a model with one layer per stack: by kernels, each of which takes seconds, and by graphs of two lengths."""
    one_layer = {
        "t5": lambda: tiny_t5(num_layers=1, num_decoder_layers=1),
        "llama": lambda: tiny_model("llama", num_hidden_layers=1),
    }
    model = target_model(one_layer[kind](), prompt_dropout=0.0).train()
    expected = steps(model, lengths)
    counters.clear()
    with compiled_layers(model, lengths_repeat=False, backend=backend):
        found = steps(model, lengths)
        graphs = counters["stats"]["unique_graphs"]
        assert uncompiled(steps)(model, [7])[0][0] == expected[0][0]  # to the bit
        assert counters["stats"]["unique_graphs"] == graphs > 0
    assert not counters["unimplemented"]
    for (loss, gradients), (expected_loss, expected_gradients) in zip(found, expected, strict=True):
        assert loss == pytest.approx(expected_loss, abs=1e-5)
        for name, gradient in expected_gradients.items():
            torch.testing.assert_close(gradients[name], gradient, atol=1e-5, rtol=1e-4)
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    assert [layer._compiled_call_impl for layer in layers] == [None] * {"t5": 2, "llama": 1}[kind]
    assert steps(model, [7])[0][0] == expected[0][0]


@pytest.mark.usefixtures("without_checks")
def test_a_training_with_compiled_layers_ends_as_without(
    still_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With graphs that are not turned into kernels, which takes minutes. Such trainings form no group."""
    monkeypatch.setattr(compiled, "BACKEND", "eager")
    monkeypatch.setattr(together, "_train_group", None)
    changes: dict[str, Any] = {"seeds": [1, 2], "max_steps": 2, "evaluate_every": 2, "prompt_dropout": 0.0}
    folders = {compiles: tmp_path / str(compiles) / "out" for compiles in (False, True)}
    for compiles, folder in folders.items():
        counters.clear()
        still_world.transfer(folder, group=10_000 if compiles else "off", compile=compiles, **changes)
        assert (counters["stats"]["unique_graphs"] > 0) == compiles
    for cell in ("pemt-kfull-seed1", "pemt-kfull-seed2"):
        plain, other = (load_file(folder / cell / "adapter.safetensors") for folder in folders.values())
        for name, tensor in plain.items():
            torch.testing.assert_close(other[name], tensor, atol=1e-3, rtol=1e-3)
        records = [load_training_record(folder / cell) for folder in folders.values()]
        assert records[0].validation == records[1].validation


def test_a_machine_without_a_compiler_is_told_so(
    still_world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        SettingsError, match=r"training.compile is true, but torch needs a C\+\+ compiler: install one of g"
    ):
        still_world.transfer(tmp_path / "out", compile=True, max_steps=1)


@pytest.mark.usefixtures("without_checks")
@pytest.mark.parametrize(("repeat", "graphs"), [(True, 8), (False, 4)])
def test_lengths_that_repeat_have_kernels_of_their_own(repeat: bool, graphs: int) -> None:
    """Of four lengths: a graph for each, or one for the first and one for all others; forward passes of two layers."""
    model = tiny_t5(num_layers=1, num_decoder_layers=1)
    batches = [tiny_batch(length=length, label_length=length) for length in (8, 12, 16, 24)]
    counters.clear()
    with compiled_layers(model, lengths_repeat=repeat, backend="eager"), torch.no_grad():
        for batch in batches:
            model(**batch)
    assert counters["stats"]["unique_graphs"] == graphs


def test_lengths_are_multiples() -> None:
    rows = [np.arange(1, length + 1, dtype=np.int32) for length in (3, 5)]
    split = TokenizedSplit(Ragged.of(rows), Ragged.of(rows[::-1]), 0)
    batch = split.batch(np.array([0, 1]), 4)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 0, 0, 0]]
    assert batch["attention_mask"].sum(1).tolist() == [3, 5]
    assert batch["labels"].tolist() == [[1, 2, 3, 4, 5, *[IGNORED_LABEL] * 3], [1, 2, 3, *[IGNORED_LABEL] * 5]]
    assert [tuple(split.batch(np.array([0]), size)["input_ids"].shape) for size in (1, 3, 8)] == [
        (1, 3),
        (1, 3),
        (1, 8),
    ]


def test_longer_rows_change_no_training_that_counts_unpadded_positions(still_world: World, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "max_steps": 4,
        "evaluate_every": 2,
        "sparsity_positions": "unpadded",
        "prompt_dropout": 0.0,
    }
    folders = [tmp_path / name / "out" for name in ("short", "long")]
    for folder, multiple in zip(folders, (1, 16), strict=True):
        still_world.transfer(folder, pad_to_multiple_of=multiple, **changes)
    short, long = (load_file(folder / "pemt-kfull-seed4096" / "adapter.safetensors") for folder in folders)
    for name, tensor in short.items():
        torch.testing.assert_close(long[name], tensor, atol=1e-3, rtol=1e-3)
