"""The golden tensors of the authors' code, checked by the program that checks any file of that layout."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import golden
import pytest
from plain_model import PlainExpert, PlainTarget, plain_source
from safetensors.torch import load_file, save_file
from tiny import random_experts, random_target_tensors, tiny_batch, tiny_t5
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"
PROGRAM = Path(__file__).parent / "golden.py"
FILES = sorted(GOLDEN.glob("*.safetensors"))
GROUPS = {
    *(f"stage1/{name}" for name in ("logits", "loss", "gradients")),
    *(f"stage2/{name}" for name in ("logits", "lm_loss", "sparsity_loss", "loss", "gates", "greedy_ids", "gradients")),
}


def run_program(*paths: Path) -> tuple[int, list[dict[str, float | str]]]:
    single = {**os.environ, "OMP_NUM_THREADS": "1"}  # threads only slow tiny tensors down
    done = subprocess.run([sys.executable, PROGRAM, *paths], capture_output=True, text=True, env=single)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]


def tampered(folder: Path, key: str) -> Path:
    """A copy of a golden file with one element of `key` moved by a thousandth of the largest."""
    tensors = load_file(FILES[0])
    tensors[key].view(-1)[0] += 1e-3 * tensors[key].abs().max()
    path = folder / f"{key.replace('/', '-')}.safetensors"
    save_file(tensors, path)
    shutil.copy(FILES[0].with_suffix(".json"), path.with_suffix(".json"))
    return path


@pytest.mark.slow
def test_golden_files_are_reproduced() -> None:
    """Runs one process for all files; its output and exit code are what a user sees."""
    code, reports = run_program(*FILES)
    assert code == 0
    assert [report.pop("file") for report in reports] == ["pemt_k3.safetensors", "pemt_k6.safetensors"]
    for report in reports:
        assert set(report) == GROUPS
        for group, error in report.items():
            assert float(error) <= (5e-5 if group.endswith("gradients") else 1e-5), (group, error)
        assert report["stage2/greedy_ids"] == 0


@pytest.mark.parametrize(
    ("key", "group"),
    [
        ("stage2/out/logits", "stage2/logits"),
        ("stage2/out/gate/decoder.1", "stage2/gates"),
        ("stage2/grad/encoder.0.gate", "stage2/gradients"),
        ("stage1/grad/prompt", "stage1/gradients"),
    ],
)
def test_a_tampered_reference_is_found(tmp_path: Path, key: str, group: str) -> None:
    path = tampered(tmp_path, key)
    errors = golden.check(path)
    assert {name for name, error in errors.items() if golden.exceeds(name, error)} == {group}


@pytest.mark.slow
def test_the_program_fails_on_a_tampered_file_among_good_ones(tmp_path: Path) -> None:
    code, reports = run_program(FILES[0], tampered(tmp_path, "stage2/out/sparsity_loss"))
    assert code == 1
    assert [float(report["stage2/sparsity_loss"]) > 1e-5 for report in reports] == [False, True]


def test_no_file_is_an_error() -> None:
    assert golden.main([]) == 2


def test_a_missing_or_nan_gradient_is_an_error(tmp_path: Path) -> None:
    tensors = load_file(FILES[0])
    shutil.copy(FILES[0].with_suffix(".json"), tmp_path / "x.json")
    save_file({k: v for k, v in tensors.items() if k != "stage2/grad/prompt"}, tmp_path / "x.safetensors")
    assert golden.check(tmp_path / "x.safetensors")["stage2/gradients"] == float("inf")
    tensors["stage2/grad/prompt"][0, 0] = float("nan")
    save_file(tensors, tmp_path / "x.safetensors")
    assert golden.check(tmp_path / "x.safetensors")["stage2/gradients"] == float("inf")


@pytest.mark.parametrize(("num_sources", "stacks"), [(1, (1, 3)), (2, (4, 1)), (9, (2, 5))], ids=["one", "two", "nine"])
def test_any_file_of_the_scheme_is_checked(tmp_path: Path, num_sources: int, stacks: tuple[int, int]) -> None:
    """Other sizes, other numbers of sources and unequal stacks; plain_model.py computes the references."""
    path = write_golden(tmp_path / "plain.safetensors", num_sources, stacks)
    errors = golden.check(path)
    assert set(errors) == GROUPS
    rounding = 4  # these small models multiply it more than the published files, and more on some processors
    assert {group: error for group, error in errors.items() if golden.exceeds(group, error / rounding)} == {}


def write_golden(path: Path, num_sources: int, stacks: tuple[int, int]) -> Path:
    sizes: dict[str, Any] = {"vocab_size": 50, "d_model": 24, "d_kv": 6, "d_ff": 40, "num_heads": 2}
    sizes |= {"num_layers": stacks[0], "num_decoder_layers": stacks[1]}
    backbone = tiny_t5(**sizes)
    batch = tiny_batch(rows=3, vocab_size=50)
    sources = [expert.tensors for expert in random_experts(backbone, num_sources)]
    experts = [PlainExpert(tensors, 0.75) for tensors in sources]
    target = random_target_tensors(backbone, num_sources)
    model = PlainTarget(backbone, target, experts, coefficient=0.3)
    result = model(**batch)
    result.loss.backward()
    logits, loss, gradients = plain_source(backbone, sources[0], 0.75, batch)
    groups: dict[str, Mapping[str, Tensor]] = {
        "backbone": backbone.state_dict(),
        "stage1/source": sources[0],
        "stage1/in": batch,
        "stage1/out": {"logits": logits, "loss": loss.reshape(1)},
        "stage1/grad": gradients,
        **{f"stage2/source/{k}": tensors for k, tensors in enumerate(sources)},
        "stage2/target": target,
        "stage2/in": batch,
        "stage2/out": {
            "logits": result.logits,
            "greedy_ids": model.greedy(batch["input_ids"], batch["attention_mask"], 6),
            **{name: getattr(result, name).reshape(1) for name in ("lm_loss", "sparsity_loss", "loss")},
            **{f"gate/{name}": gate for name, gate in result.gates.items()},
        },
        "stage2/grad": {name: tensor.grad for name, tensor in model.tensors.items() if tensor.grad is not None},
    }
    tensors = {f"{group}/{name}": t.detach().clone() for group, part in groups.items() for name, t in part.items()}
    save_file(tensors, path)
    description = {"t5_config": sizes, "num_sources": num_sources, "source_scaling": 0.75, "sparsity_coefficient": 0.3}
    path.with_suffix(".json").write_text(json.dumps(description))
    return path
