"""The benchmarks of speed on tiny sizes: their parts, their time limits, and that what they compare is the same."""

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest
import torch
from source_code import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "benchmarks"))  # the programs there import each other

import gpu
import gpu_parts
import step
import step_models as models

SMALL = gpu_parts.Setting.of("cpu", small=True)


def test_the_program_measures_every_part() -> None:
    """A process, as a user runs it."""
    command = [sys.executable, str(REPOSITORY / "benchmarks" / "gpu.py"), "--small"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, env=gpu_environment())
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["parts"]
    assert list(found) == list(gpu_parts.PARTS)
    values: dict[str, Any] = {name: part["value"] for name, part in found.items()}
    assert values["step"]["operations"] > 1e6
    assert values["step"]["bfloat16"]["tera_operations"] > 0
    assert values["launches"]["operators"] > 100
    answers, group = values["answers"], values["group of cells"]
    both = 1 / answers["generate"] + 1 / answers["forward"]
    assert answers["generate and forward, to score"] == pytest.approx(both * answers["score"])
    assert group["operators of a cell"] < 0.6 * group["alone"]["operators"]  # of three cells
    assert values["compiled step"]["compiled"]["seconds"] > 0
    assert len(values["loss curves"]["losses"]["bfloat16"]) == SMALL.curve_steps
    assert 0 < values["loss curves"]["to bfloat16"] < values["loss curves"]["to another seed"]


def test_the_memory_of_a_group_is_compared_with_a_process_per_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first peak is that of a cell alone, the second that of a group of three."""
    peaks = iter([100.0, 150.0])
    monkeypatch.setattr(gpu_parts, "measured", lambda *_: {"seconds": 1.0, "peak_memory_mib": next(peaks)})
    found = gpu_parts.group_of_cells(SMALL)
    assert found["cells"] == 3
    assert found["memory, ratio to processes"] == 0.5


def gpu_environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}


def test_the_limits_fit_into_the_whole() -> None:
    """All but the last part, which gets what is left of eight minutes."""
    assert sum(seconds for seconds, _ in list(gpu_parts.PARTS.values())[:-1]) <= gpu.MOST_SECONDS


def test_an_error_or_a_slow_part_loses_no_other() -> None:
    def fails(setting: Any) -> None:
        raise RuntimeError("no memory")

    parts = {"fails": (5, fails), "waits": (0, lambda setting: time.sleep(60)), "works": (5, lambda setting: 7)}
    found = gpu.report(SMALL, parts, 100)
    assert found["fails"]["error"] == "RuntimeError: no memory"
    assert found["waits"]["error"].startswith("OutOfTimeError")
    assert found["works"]["value"] == 7
    assert "error" in gpu.report(SMALL, {"late": (5, lambda setting: time.sleep(60))}, 0)["late"]


def test_without_a_gpu_the_program_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main()
    assert "there is no GPU" in capsys.readouterr().err


def test_the_plain_loop_has_the_loss_and_gradients_of_stage_2() -> None:
    sizes = models.Sizes(**{**vars(models.SMALL), "dropout": 0.0})
    backbone = models.backbone_of(sizes)
    experts, batch = models.experts_of(backbone, sizes), models.batch_of(sizes)
    found = {}
    for name, build in (("stage 2", models.stage2), ("plain", models.PlainTarget)):
        model = build(models.shared(backbone), sizes, experts)
        loss = model(**batch).loss
        loss.backward()
        squares = sum(float(each.grad.square().sum()) for each in models.trained(model) if each.grad is not None)
        found[name] = loss.item(), squares
    assert found["plain"] == pytest.approx(found["stage 2"], rel=1e-4)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.21
def test_a_step_is_compared_with_peft() -> None:
    names = list(models.variants_of(models.SMALL))
    found = step.measure(models.SMALL, 1, names)
    assert set(found) == set(names) == {"stage 2", "target adapter alone", "LoRA on wo", "plain loop"}
    assert found["stage 2"]["saved_mib"] < found["plain loop"]["saved_mib"]
    assert found["stage 2"]["to LoRA on wo"] > 0
