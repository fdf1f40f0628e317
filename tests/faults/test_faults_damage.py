"""Damaged files where a hash is promised, hashes that are right over tensors that are wrong, generated inputs."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from soak.damage import EQUAL, PROMISES, REFUSED, read_damaged
from soak.ground import Ground
from soak.inputs import explore
from soak.loaders import LOADERS
from soak.pool import generator
from torch import Tensor

from faults.conftest import Pemt
from pemt_core.artifacts.adapter import save_adapter
from pemt_core.artifacts.description import TargetDescription, load_description, load_training_record

pytestmark = pytest.mark.usefixtures("fresh_accelerator", "datasets_cache")
FILES, INPUTS = 5, 3  # of each kind here; `make soak` has thousands


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground.make(tmp_path_factory.mktemp("ground") / "world")


@pytest.mark.parametrize("name", PROMISES)
def test_damage_is_refused(ground: Ground, tmp_path: Path, name: str) -> None:
    """`read_damaged` fails if another content comes back."""
    whole = PROMISES[name].read(ground, ground.folder / PROMISES[name].place)
    outcomes = []
    for number in range(FILES):
        folder = tmp_path / str(number)
        outcomes.append(read_damaged(ground, name, whole, generator(0, name, number), folder))
        shutil.rmtree(folder)
    assert set(outcomes) <= {REFUSED, EQUAL}
    assert REFUSED in outcomes


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.filterwarnings("ignore")  # of transformers and datasets about what they read
def test_generated_inputs_are_read_or_refused(ground: Ground, name: str) -> None:
    outcomes = explore(ground, name, 0, 0, lambda: None, examples=INPUTS).split()
    assert len(outcomes) == INPUTS
    assert {*outcomes} <= {"read", "refused"}


def _first(tensors: dict[str, Tensor]) -> str:
    return next(name for name, tensor in sorted(tensors.items()) if tensor.ndim == 2)


def _with_nan(tensors: dict[str, Tensor]) -> None:
    tensors[_first(tensors)].view(-1)[0] = float("nan")


def _as_integers(tensors: dict[str, Tensor]) -> None:
    tensors[_first(tensors)] = tensors[_first(tensors)].to(torch.int64)


def _as_doubles(tensors: dict[str, Tensor]) -> None:
    tensors[_first(tensors)] = tensors[_first(tensors)].double()


def _cut(tensors: dict[str, Tensor]) -> None:
    tensors[_first(tensors)] = tensors[_first(tensors)][:, :-1].contiguous()


def _without_one(tensors: dict[str, Tensor]) -> None:
    del tensors[_first(tensors)]


def _with_another(tensors: dict[str, Tensor]) -> None:
    tensors["encoder.99.down"] = torch.zeros(2, 2)


@pytest.mark.parametrize("spoil", [_with_nan, _as_integers, _as_doubles, _cut, _without_one, _with_another])
def test_wrong_tensors_with_the_right_hash_are_refused(
    project: Path, tmp_path: Path, pemt: Pemt, spoil: Callable[[dict[str, Tensor]], None]
) -> None:
    from safetensors.torch import load_file

    adapters = Path(shutil.copytree(project / "adapters/targets", tmp_path / "targets"))
    cell = next(adapters.glob("emo/*"))
    description, _ = load_description(cell, TargetDescription)
    tensors, record = load_file(cell / "adapter.safetensors"), load_training_record(cell)
    spoil(tensors)
    save_adapter(cell, description, tensors, record)
    (tmp_path / "rows.csv").write_text("text\nred\n")
    words = [tmp_path / "rows.csv", "--output", tmp_path / "x.csv", "--adapters", adapters, "--target", "emo"]
    ended = pemt(project, "predict", *words)
    assert (ended.code, len(ended.errors)) == (1, 1), ended.output
    assert str(cell.name) in ended.errors[0]
