"""Settings, descriptions and LoRAs that would never end, or that no program expects: one line, in bounded time."""

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import World
from workspace import REPOSITORY

from faults.conftest import TARGET, Pemt
from pemt_core.artifacts.files import read_json
from pemt_core.backbone.store import load_backbone
from pemt_core.errors import ArtifactError, PemtError
from pemt_core.lora.config import read_config
from pemt_core.lora.reader import load_lora
from pemt_core.settings import load_settings

LIMIT = 10  # seconds


@contextmanager
def limited() -> Iterator[None]:
    """Fail if the block takes longer than LIMIT."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"not done in {LIMIT} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _anchors(levels: int) -> str:
    """Lists of ten of the list before: a short text, 10^levels values."""
    lines = ["&x0 [" + ",".join("a" * 10) + "]"]
    lines += [f"&x{n} [" + ",".join([f"*x{n - 1}"] * 10) + "]" for n in range(1, levels)]
    return "[" + ", ".join(lines) + "]"


SETTINGS = {
    "nested anchors": ("split_seed: 42", f"split_seed: {_anchors(9)}"),
    "deep lists": ("split_seed: 42", f"split_seed: {'[' * 2_000}{']' * 2_000}"),
    "deep blocks": ("own_tasks: {", "own_tasks: {a: " + "{a: " * 1_500 + "}" * 1_500 + ", "),
    "an impossible date": ("experiment: pemt", "experiment: 2001-13-45"),
    "a key that is a number": ("  split_seed: 42", "  5: 42\n  split_seed: 42"),
    "a key that is a list": ("  split_seed: 42", "  ? [a]\n  : 42\n  split_seed: 42"),
    "a key that is null": ("  split_seed: 42", "  ~: 42\n  split_seed: 42"),
    "a large seed": ("split_seed: 42", f"split_seed: {2**64}"),
    "a negative seed": ("  seed: 29", "  seed: -1"),
    "an enormous seed": ("split_seed: 42", f"split_seed: {'9' * 5_000}"),
    "a long length": ("  source_length: 128", f"  source_length: {10**20}"),
    "a large rank": ("rank: 32", f"rank: {10**20}"),
    "infinity": ("alpha: 128", "alpha: .inf"),
    "no number": ("alpha: 128", "alpha: .nan"),
    "a tag of Python": ("split_seed: 42", "split_seed: !!python/object/apply:os.system [touch tagged]"),
    "a tag": ("split_seed: 42", "split_seed: !!set {a}"),
    "two documents": ("models:", "---\nmodels:"),
    "a repeated key": ("  split_seed: 42", "  split_seed: 42\n  split_seed: 43"),
    "an unknown anchor": ("split_seed: 42", "split_seed: *nowhere"),
    "a merge of a number": ("  split_seed: 42", "  <<: 5\n  split_seed: 42"),
    "a zero byte": ("split_seed: 42", "split_seed: \0"),
    "bytes": ("split_seed: 42", "split_seed: !!binary aGk="),
}


@pytest.mark.parametrize("case", SETTINGS)
def test_settings_are_refused_in_a_line(settings: Path, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = settings / "params.yaml"
    text = (REPOSITORY / "params.yaml").read_text()
    old, new = SETTINGS[case]
    assert old in text
    path.write_text(text.replace(old, new, 1))
    monkeypatch.chdir(settings)
    with limited(), pytest.raises(PemtError) as error:
        load_settings(path)
    assert len(str(error.value)) < 2_000
    assert "params.yaml" in str(error.value)
    assert not (settings / "tagged").exists()


def test_a_recipe_is_bounded_too(settings: Path, pemt: Pemt) -> None:
    (settings / "recipes/demo.yaml").write_text(f"transfer: {_anchors(9)}\n")
    with limited():
        ended = pemt(settings, "tasks", TARGET)
    assert (ended.code, len(ended.errors)) == (1, 1), ended.output
    assert len(ended.errors[0]) < 2_000


# JSON

DOCUMENTS = {
    "deep": "[" * 100_000 + "]" * 100_000,
    "deep and open": '{"a":' * 100_000,
    "digits": '{"a": ' + "9" * 5_000 + "}",
    "no text": "\xff",
    "empty": "",
    "not closed": '{"a": 1',
}


@pytest.mark.parametrize("case", DOCUMENTS)
def test_json_is_refused_in_a_line(tmp_path: Path, case: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(DOCUMENTS[case].encode("latin-1"))
    with limited(), pytest.raises(ArtifactError, match=r"x\.json"):
        read_json(path)


# LoRAs of others

CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 8}
MODULE = "base_model.model.decoder.block.11.layer.2.DenseReluDense.wo"
CONFIGS: dict[str, dict[str, Any]] = {
    "a pattern that never ends": {"rank_pattern": {"(.*.*.*.*.*.*.*.*)*x": 4}},
    "another": {"alpha_pattern": {"(([a-z.0-9_])+.)+[A-Z]([a-z])+$!": 4}},
    "a rank of 400 digits": {"r": 10**400},
    "an alpha of 400 digits": {"lora_alpha": 10**400},
    "a pattern's rank of 400 digits": {"rank_pattern": {"wo": 10**400}},
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_is_bounded(tmp_path: Path, case: str) -> None:
    """A pattern may also be matched, if that takes no time."""
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**CONFIG, **CONFIGS[case]}))
    with limited():
        try:
            scale = str(read_config(path).shapes_of([MODULE], path)[MODULE].scale)
        except PemtError as error:
            scale = f"refused: {error}"
    is_pattern = case in ("a pattern that never ends", "another")
    assert scale.startswith("refused: ") or (is_pattern and float(scale) == 2)
    assert len(scale) < 2_000


@pytest.mark.parametrize("kind", [torch.bool, torch.complex64])
def test_tensors_that_are_no_numbers_are_refused(world: World, tmp_path: Path, kind: torch.dtype) -> None:
    backbone = load_backbone(world.folder / "backbone")
    folder = tmp_path / "lora"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    d_model, d_ff = backbone.model.encoder.block[0].layer[1].DenseReluDense.wo.weight.shape
    prefix = "base_model.model.encoder.block.0.layer.1.DenseReluDense.wo"
    pair = {f"{prefix}.lora_A.weight": torch.ones(4, d_ff), f"{prefix}.lora_B.weight": torch.ones(d_model, 4)}
    save_file(pair, folder / "adapter_model.safetensors")
    load_lora(folder, "x", "a text", backbone)
    save_file({name: tensor.to(kind) for name, tensor in pair.items()}, folder / "adapter_model.safetensors")
    with pytest.raises(ArtifactError, match=r"adapter_model\.safetensors"):
        load_lora(folder, "x", "a text", backbone)


def test_a_pickle_is_never_read(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    (folder / "adapter_model.bin").write_bytes(b"cos\nsystem\n(S'touch pickled'\ntR.")
    with pytest.raises(ArtifactError, match="pickle"):
        load_lora(folder, "x", "a text", load_backbone(world.folder / "backbone"))
    copy = Path(shutil.copytree(world.folder / "backbone", tmp_path / "backbone"))
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(tensors, copy / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="backbone"):
        load_backbone(copy)
