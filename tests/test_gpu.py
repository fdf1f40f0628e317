"""Tests that need a CUDA device; skipped without one."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import World

from pemt_core.provenance.energy import measured_energy
from pemt_core.settings import EvaluateSettings
from pemt_core.steps.evaluate import evaluate

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_two_cells_train_and_score_on_the_device(
    world: World, tmp_path: Path, fresh_accelerator: None, precision: str
) -> None:
    """The cells share a process: the second starts from a backbone that the first moved to the device."""
    cells = world.transfer(tmp_path / "gamma", seeds=[1, 2], precision=precision).cells
    tensors = [load_file(tmp_path / "gamma" / cell.name / "adapter.safetensors") for cell in cells]
    assert all(tensor.isfinite().all() for each in tensors for tensor in each.values())
    assert any((tensors[0][name] != tensors[1][name]).any() for name in tensors[0])
    settings = EvaluateSettings(answer="generate", batch_size=8, precision=precision, max_rows=None)  # type: ignore[arg-type]
    scored = evaluate(
        {"gamma": tmp_path / "gamma"},
        world.folder / "data",
        world.folder / "backbone",
        world.folder / "experts",
        settings,
        output_dir=tmp_path / "scores",
    )
    assert scored == [f"gamma/{cell.name}" for cell in cells]


def test_the_energy_of_the_device_is_counted() -> None:
    with measured_energy() as energy:
        matrix = torch.rand(4096, 4096, device="cuda")
        for _ in range(500):
            matrix = (matrix @ matrix).clamp(0, 1)
        torch.cuda.synchronize()
    assert energy["gpu"] is not None
    assert energy["gpu"] > 1
