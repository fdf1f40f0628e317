"""Resuming killed stages: the result is bit-identical to that of an uninterrupted run."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import World, source_settings, transfer_settings
from torch import nn

from pemt_core.artifacts.cost import load_cost
from pemt_core.artifacts.description import trained_cells
from pemt_core.errors import ArtifactError
from pemt_core.steps.train_source import train_source
from pemt_core.steps.transfer import TargetTransfer, transfer
from pemt_core.training import checkpoint, source
from pemt_core.training.checkpoint import FILE, CheckpointStore, TrainingState
from pemt_core.training.run import SilentRun

pytestmark = pytest.mark.usefixtures("fresh_accelerator")

CELL = "pemt-kfull-seed4096"
TINY = Path(__file__).parent / "tiny.py"
STEPS = 48  # which take more than the longest delay of a kill
LONG: dict[str, Any] = {"epochs": 8, "evaluate_every": 12, "checkpoint_every": 4}


def start(stage: str, world: World, folder: Path, changes: dict[str, Any]) -> subprocess.Popen[str]:
    """Start a stage in a separate process, as the pipeline does."""
    folder.mkdir(exist_ok=True)
    arguments = [stage, world.folder, folder / "out", folder / "log.jsonl", json.dumps(changes)]
    return subprocess.Popen([sys.executable, TINY, *map(str, arguments)], stderr=subprocess.PIPE, text=True)


def states(folder: Path) -> list[Path]:
    return sorted((folder / "checkpoints").glob(f"*/{FILE}"))


def kill_after(process: subprocess.Popen[str], folder: Path, num_states: int, delay: float) -> None:
    """Send SIGKILL `delay` seconds after `num_states` trainings have a checkpoint, while the process runs."""
    deadline = time.monotonic() + 120
    while len(states(folder)) < num_states:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.communicate()


def points(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.slow
def test_a_killed_transfer_resumes_exactly(world: World, tmp_path: Path) -> None:
    """The kill hits the second of two cells: the first is kept and the second resumes."""
    changes = {**LONG, "seeds": [1, 2]}
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    process = start("transfer", world, cut, changes)
    kill_after(process, cut, num_states=2, delay=random.Random(os.getpid()).uniform(0.0, 0.3))
    first = files(cut / "out")
    assert {Path(name).parent.name for name in first} == {"pemt-kfull-seed1"}
    before = len(points(cut))
    process = start("transfer", world, cut, changes)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 0, messages
    assert "transfer gamma: 1 of 2 cells to train" in messages
    resumed_at = int(messages.split("seed2: resumed after step ")[1].split(" ")[0])
    assert 4 <= resumed_at < STEPS
    assert resumed_at % 4 == 0
    after = points(cut)[before:]
    assert {point["cell"] for point in after} == {"transfer/gamma/pemt/k=full/seed=2"}
    assert min(point["step"] for point in after) > resumed_at
    world.transfer(whole / "out", **changes)
    assert files(cut / "out") == files(whole / "out") == {**files(cut / "out"), **first}
    assert len(files(cut / "out")) == 6
    assert list((cut / "checkpoints").iterdir()) == []
    assert [path.name for path in cut.iterdir() if path.name.startswith(".")] == []  # no partial folder is left


@pytest.mark.slow
def test_a_transfer_killed_in_two_workers_resumes_exactly(world: World, tmp_path: Path) -> None:
    """Orphaned workers exit; finished cells are kept and interrupted trainings resume."""
    changes = {**LONG, "seeds": [1, 2, 3, 4], "workers": 2}
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    process = start("transfer", world, cut, changes)
    while len(workers := psutil.Process(process.pid).children()) < 2:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    kill_after(process, cut, num_states=3, delay=random.Random(os.getpid()).uniform(0.0, 0.3))
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    kept = {path.name for path in trained_cells(cut / "out")}
    process = start("transfer", world, cut, changes)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 0, messages
    assert f"transfer gamma: {4 - len(kept)} of 4 cells to train" in messages
    resumed = dict(re.findall(rf"(pemt-kfull-seed\d): resumed after step (\d+) of {STEPS}", messages))
    assert len({*kept, *resumed}) == len(kept) + len(resumed) >= 3
    assert kept or str(STEPS) in resumed.values()  # otherwise the third checkpoint would not exist
    whole.mkdir()
    world.transfer(whole / "out", **{**changes, "workers": 1}, log=whole / "log.jsonl")
    assert files(cut / "out") == files(whole / "out")
    assert len(files(cut / "out")) == 12
    assert set(map(str, points(cut))) == set(map(str, points(whole)))  # a restarted run logs from its first step
    assert list((cut / "checkpoints").iterdir()) == []
    assert [path.name for path in cut.iterdir() if path.name.startswith(".")] == []


HALVING: dict[str, Any] = {"search": "halving", "learning_rates": [0.3, 1e-7, 0.01], "answer": "score"}


@pytest.mark.slow
@pytest.mark.parametrize(("num_states", "workers"), [(1, 2), (3, 1)])
def test_a_killed_search_resumes_exactly(world: World, tmp_path: Path, workers: int, num_states: int) -> None:
    """The kill hits the first configuration, or a later one or the better half, which goes on."""
    changes = {**LONG, **HALVING, "epochs": 6, "workers": workers}
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    process = start("transfer", world, cut, changes)
    kill_after(process, cut, num_states=num_states, delay=random.Random(os.getpid()).uniform(0.0, 0.5))
    process = start("transfer", world, cut, changes)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 0, messages
    assert "resumed after step" in messages
    world.transfer(whole / "out", **{**changes, "workers": 1})
    assert files(cut / "out") == files(whole / "out")
    assert list((cut / "checkpoints").iterdir()) == []


@pytest.mark.slow
def test_a_killed_source_training_resumes_exactly(world: World, tmp_path: Path) -> None:
    """Gradient accumulation and warm-up are on; the temporary file of a killed write is removed."""
    changes = {**LONG, "gradient_accumulation": 2, "warmup_steps": 10}
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    process = start("train_source", world, cut, changes)
    kill_after(process, cut, num_states=1, delay=random.Random(os.getpid()).uniform(0.05, 0.4))
    assert not (cut / "out").exists()
    (states(cut)[0].parent / f".{FILE}.12ab.tmp").write_bytes(b"half")
    process = start("train_source", world, cut, changes)
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 0, messages
    assert "train_source alpha: resumed after step" in messages
    world.train_source(whole / "out", **changes)
    assert files(cut / "out") == files(whole / "out")
    assert [path.name for path in (cut / "checkpoints").iterdir()] == ["finished"]


# --- when a training resumes


class StopError(Exception):
    """Stand-in for anything that ends a process."""


class StoppingRun(SilentRun):
    """A run that stops when it logs a given step, or else when it is tagged, after the result is kept."""

    def __init__(self, at_step: int | None) -> None:
        self.at_step = at_step

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self.at_step is not None and step >= self.at_step:
            raise StopError

    def tag(self, tags: Mapping[str, str]) -> None:
        raise StopError


def interrupted(world: World, folder: Path, at_step: int | None, **changes: Any) -> None:
    """Interrupt a stage 1 training at `at_step` (None: after its last step) and keep its last checkpoint."""
    with pytest.raises(StopError):
        train_source(
            world.folder / "data" / "alpha",
            world.folder / "backbone",
            source_settings(**changes),
            source="alpha",
            answer="generate",
            output_dir=folder / "out",
            checkpoint_dir=folder / "checkpoints",
            open_run=lambda info: nullcontext(StoppingRun(at_step)),
        )


@pytest.mark.parametrize("points", [5, 14, 28])
def test_a_search_resumes_exactly_from_any_point(world: World, tmp_path: Path, points: int) -> None:
    """It stops at the given point of the curves: of the first configuration, of a later one after the worse half
    stopped, and when the adapter is written."""
    changes = {**HALVING, "epochs": 3, "checkpoint_every": 2, "evaluate_every": 6}
    left = iter(range(points))

    class Run(StoppingRun):
        def log(self, step: int, metrics: Mapping[str, float]) -> None:
            if next(left, None) is None:
                raise StopError

    folder = tmp_path / "cut"
    with pytest.raises(StopError):
        transfer(
            [
                TargetTransfer(
                    transfer_settings(**changes), world.folder / "data" / "gamma", folder / "out", folder / "costs"
                )
            ],
            world.folder / "backbone",
            world.folder / "experts",
            checkpoint_dir=folder / "checkpoints",
            open_run=lambda info: nullcontext(Run(None)),
            workers=1,
        )
    for name in ("cut", "whole"):
        world.transfer(tmp_path / name / "out", costs=tmp_path / name / "costs", **changes)
    assert files(tmp_path / "cut" / "out") == files(tmp_path / "whole" / "out")
    cut, whole = (load_cost(tmp_path / name / "costs", tmp_path / name / "out" / CELL) for name in ("cut", "whole"))
    assert (cut.steps, cut.configurations) == (whole.steps, whole.configurations) == (2 * 18 + 6, 3)
    assert cut.seconds > 0


STOPPED: dict[str, Any] = {"epochs": 4, "checkpoint_every": 2, "evaluate_every": 3}


@pytest.mark.parametrize("step", [3, 7, 12, 24])
def test_a_training_resumes_exactly_from_any_step(world: World, tmp_path: Path, step: int) -> None:
    """The steps are in the middle and at the end of an epoch, before and after evaluations, and the last one."""
    interrupted(world, tmp_path / "cut", step, **STOPPED)
    assert len(states(tmp_path / "cut")) == 1
    for name in ("cut", "whole"):
        world.train_source(tmp_path / name / "out", **STOPPED)
    assert files(tmp_path / "cut" / "out") == files(tmp_path / "whole" / "out")


@pytest.mark.parametrize(
    "changes",
    [{"seed": 8}, {"learning_rate": 2e-2}, {"epochs": 5}, {"rank": 5}, {"source_length": 31}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_checkpoint_of_other_settings_is_not_resumed(world: World, tmp_path: Path, changes: dict[str, Any]) -> None:
    """The checkpoint stays, and the result equals that of a training from the start."""
    interrupted(world, tmp_path / "cut", 7, **STOPPED)
    kept = states(tmp_path / "cut")
    for name in ("cut", "whole"):
        world.train_source(tmp_path / name / "out", **{**STOPPED, **changes})
    assert states(tmp_path / "cut") == kept
    assert files(tmp_path / "cut" / "out") == files(tmp_path / "whole" / "out")


def test_a_checkpoint_of_other_data_or_another_backbone_is_not_resumed(world: World, tmp_path: Path) -> None:
    interrupted(world, tmp_path / "cut", 7, **STOPPED)
    kept = states(tmp_path / "cut")
    other = World.make(tmp_path / "other", dropout=0.0)
    other.train_source(tmp_path / "cut" / "out", **STOPPED)  # only the dropout of the backbone differs
    world.train_source(tmp_path / "cut" / "out", task="beta", **STOPPED)  # another task
    assert states(tmp_path / "cut") == kept


def test_a_key_is_a_hash_of_all_inputs(tmp_path: Path) -> None:
    inputs = {"adapter": {"seed": 1, "task": "cb"}, "code": "x"}
    paths = {
        CheckpointStore(tmp_path, changed).path
        for changed in (
            inputs,
            {"code": "x", "adapter": {"task": "cb", "seed": 1}},
            {**inputs, "code": "y"},
            {**inputs, "adapter": {"seed": 2, "task": "cb"}},
        )
    }
    assert len(paths) == 3


# --- the checkpoint file


def optimizer_of(model: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=0.1)


def test_a_state_is_restored_completely(tmp_path: Path) -> None:
    """It holds weights, both moments, the step for their bias correction, best tensors, counters and history."""
    model, again = nn.Linear(3, 2), nn.Linear(3, 2)
    optimizer, optimizer_again = optimizer_of(model), optimizer_of(again)
    for _ in range(3):
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    state = TrainingState(
        step=3,
        epoch=1,
        batch=2,
        best_score=-0.1 + 0.3,
        best_step=2,
        best_metrics={"validation/x": 1 / 3},
        evaluations_since_best=1,
        history=[{"step": 1, "train/loss": 0.1 + 0.2}],
        best_tensors={"weight": torch.rand(2, 3), "bias": torch.rand(2)},
    )
    store = CheckpointStore(tmp_path, "inputs")
    store.save(state, dict(model.named_parameters()), optimizer)
    found = CheckpointStore(tmp_path, "inputs").restore(dict(again.named_parameters()), optimizer_again)
    assert found is not None
    counters = {key: value for key, value in vars(state).items() if key != "best_tensors"}
    assert {key: value for key, value in vars(found).items() if key != "best_tensors"} == counters
    alone = store.load()
    assert (alone.history, alone.step, alone.best_tensors.keys()) == (state.history, 3, state.best_tensors.keys())
    assert all(torch.equal(found.best_tensors[name], tensor) for name, tensor in state.best_tensors.items())
    x = torch.randn(4, 3)
    for module, stepping in ((model, optimizer), (again, optimizer_again)):
        module(x).square().sum().backward()
        stepping.step()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, dict(again.named_parameters())[name])
    store.discard()
    assert list(tmp_path.iterdir()) == []
    store.discard()  # a second call does nothing


def test_a_missing_state_is_none(tmp_path: Path) -> None:
    model = nn.Linear(1, 1)
    store = CheckpointStore(tmp_path, "x")
    assert store.restore(dict(model.named_parameters()), optimizer_of(model)) is None
    with pytest.raises(ArtifactError, match=f"{store.path}: not readable as a training state"):
        store.load()


def stored(folder: Path) -> tuple[CheckpointStore, dict[str, nn.Parameter], torch.optim.AdamW]:
    """A store with the state of a training after one step, and what it was a training of."""
    model = nn.Linear(3, 2)
    trained, optimizer = dict(model.named_parameters()), optimizer_of(model)
    model(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    store = CheckpointStore(folder, "inputs")
    best = {name: parameter.detach().clone() for name, parameter in trained.items()}
    store.save(TrainingState(step=1, history=[{"step": 1, "x": 0.1}], best_tensors=best), trained, optimizer)
    return store, trained, optimizer


def refused(store: CheckpointStore, trained: dict[str, nn.Parameter], optimizer: torch.optim.AdamW) -> str:
    """The message with which `load` refuses a state that `restore` removes, without a change to what is trained."""
    with pytest.raises(ArtifactError) as caught:
        store.load()
    before = {name: parameter.detach().clone() for name, parameter in trained.items()}
    assert store.restore(trained, optimizer) is None
    assert all(torch.equal(parameter, before[name]) for name, parameter in trained.items())
    assert not store.path.exists()
    return str(caught.value)


def test_a_flipped_bit_anywhere_in_a_state_is_noticed(tmp_path: Path) -> None:
    """Each byte once, with a different bit in neighbours; a kill cannot do this, but a faulty disk can."""
    store, trained, optimizer = stored(tmp_path)
    whole = store.path.read_bytes()
    assert len(whole) > 900
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        store.path.write_bytes(damaged)
        assert str(store.path) in refused(store, trained, optimizer), place
    store.path.write_bytes(whole)
    assert store.load().step == 1


@pytest.mark.parametrize("damage", ["truncated", "empty", "a folder", "no hash"])
def test_an_unreadable_state_is_named(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """The training starts anew, and can save its state again."""
    store, trained, optimizer = stored(tmp_path)
    whole = store.path.read_bytes()
    store.path.unlink()
    if damage == "a folder":
        store.path.mkdir()
    elif damage == "no hash":
        save_file({}, store.path, metadata={"state": json.dumps({"step": 1})})
    else:
        store.path.write_bytes(whole[: len(whole) // 2] if damage == "truncated" else b"")
    assert refused(store, trained, optimizer).startswith(f"{store.path}: ")
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{store.path}: ")
    assert record.getMessage().endswith("; the training starts anew")
    assert "\n" not in record.getMessage()
    store.save(TrainingState(step=2), trained, optimizer)
    assert store.load().step == 2


FORGED: dict[str, tuple[dict[str, torch.Tensor | None], str]] = {
    "one missing": ({"trained/bias": None}, "lacks the tensor 'trained/bias'"),
    "one too many": ({"trained/other": torch.ones(1)}, "has a tensor 'trained/other'"),
    "half of the best": ({"best/bias": None}, "lacks the tensor 'best/bias'"),
    "half of the moments": ({"exp_avg_sq/bias": None}, "lacks the tensor 'exp_avg_sq/bias'"),
    "another shape": ({"trained/bias": torch.ones(3)}, r"'trained/bias' has the shape \[3\], expected \[2\]"),
    "another type": ({"trained/bias": torch.ones(2).double()}, "'trained/bias' is torch.float64, expected torch.float"),
    "not a number": ({"best/bias": torch.tensor([1.0, torch.nan])}, "'best/bias' has values that are not finite"),
}


@pytest.mark.parametrize("damage", FORGED)
def test_a_state_of_other_tensors_is_not_restored(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Even with a right hash."""
    store, trained, optimizer = stored(tmp_path)
    changes, message = FORGED[damage]
    tensors = {**load_file(store.path), **changes}
    kept = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    save_file(kept, store.path, metadata={"state": f"{checkpoint._hash(kept, '{}')} {{}}"})
    assert store.restore(trained, optimizer) is None
    assert re.search(message, caplog.text)


def test_a_state_with_other_counters_is_refused(tmp_path: Path) -> None:
    store, trained, optimizer = stored(tmp_path)
    tensors = load_file(store.path)
    for text, message in (
        ('{"steps": 1}', "steps: Unexpected"),
        ('{"step": "1"}', "step: Input"),
        ("{", ": Invalid JSON"),
    ):
        save_file(tensors, store.path, metadata={"state": f"{checkpoint._hash(tensors, text)} {text}"})
        assert message in refused(store, trained, optimizer)


def test_a_finished_training_is_not_trained_again(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an interruption between the last step and the end of the stage, only the adapter is written."""
    interrupted(world, tmp_path / "cut", None, **STOPPED)
    assert len(states(tmp_path / "cut")) == 1
    assert not (tmp_path / "cut" / "out").exists()
    world.train_source(tmp_path / "whole" / "out", log=tmp_path / "whole.jsonl", **STOPPED)
    monkeypatch.delattr(source, "Trainer")  # no step and no evaluation can run
    world.train_source(tmp_path / "cut" / "out", log=tmp_path / "cut.jsonl", **STOPPED)
    assert (tmp_path / "cut.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    assert files(tmp_path / "cut" / "out") == files(tmp_path / "whole" / "out")
    assert states(tmp_path / "cut") == []
