"""The training loop compared with plain PyTorch, and both stages on a learnable task."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from tiny import TRAINING, World, tiny_tokenizer
from torch import Tensor, nn
from transformers import get_linear_schedule_with_warmup

from pemt_core.artifacts.description import load_training_record
from pemt_core.artifacts.files import read_json
from pemt_core.data.batches import epoch_batches
from pemt_core.errors import TrainingError
from pemt_core.training.accelerator import make_accelerator
from pemt_core.training.checkpoint import CheckpointStore
from pemt_core.training.course import Course, Evaluation
from pemt_core.training.loader import Loader
from pemt_core.training.loop import Trainer, parts_of
from pemt_core.training.optimizer import linear_schedule
from pemt_core.training.settings import TrainingSettings

pytestmark = pytest.mark.usefixtures("fresh_accelerator")

CELL = "pemt-kfull-seed4096"
TINY = Path(__file__).parent / "tiny.py"


# --- a model small enough for a plain loop


@dataclass
class Loss:
    loss: Tensor


class Line(nn.Module):
    """Least squares for y = x w; with `power` 0.5 the gradient is infinite where the error is zero."""

    def __init__(self, power: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        self.trained = {"weight": self.weight}
        self.power = power

    def forward(self, x: Tensor, y: Tensor) -> Loss:
        return Loss(((x @ self.weight - y) ** 2).pow(self.power).mean())


@dataclass
class Points:
    """The rows of a regression in batches."""

    x: Tensor
    y: Tensor
    batch_size: int
    seed: int = 0
    poisoned: tuple[int, int] | None = None  # (epoch, row): from this epoch on, y of this row is not a number

    @classmethod
    def make(cls, rows: int, batch_size: int) -> "Points":
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(rows, 3, generator=generator)
        return cls(x, x @ torch.tensor([5.0, -3.0, 1.0]) + torch.randn(rows, generator=generator), batch_size)

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        return epoch_batches(np.ones(len(self.x), dtype=np.int64), self.batch_size, self.seed, epoch)

    def collate(self, rows: NDArray[np.int64], epoch: int) -> dict[str, Tensor]:
        y = self.y[rows].clone()
        if self.poisoned is not None and epoch >= self.poisoned[0]:
            y[torch.from_numpy(rows == self.poisoned[1])] = torch.nan
        return {"x": self.x[rows], "y": y}


Evaluate = Callable[[], Evaluation]


def trainer(
    model: Any,
    data: Any,
    folder: Path,
    evaluate: Evaluate | None = None,
    *,
    rate: float = 0.1,
    factors: dict[str, float] | None = None,
    log: Any = None,
    **changes: Any,
) -> Trainer:
    settings = TrainingSettings.model_validate({**TRAINING, **changes})
    course = Course(
        model.trained,
        data,
        evaluate or (lambda: Evaluation(0.0, {"validation/score": 0.0})),
        settings,
        make_accelerator(settings.precision),
        CheckpointStore(folder, {"any": "inputs"}),
        learning_rate=rate,
        seed=3,
        log=log or (lambda step, metrics: None),
        title="line",
    )
    return Trainer(model, course, learning_rate_factors=factors)


def plain_weights(data: Points, *, epochs: int, warmup: int, max_norm: float, rate: float) -> list[Tensor]:
    """Return the weights after every step of a textbook training loop."""
    model, steps = Line(), epochs * len(data.batches(0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, steps)
    weights = []
    for epoch in range(epochs):
        for rows in data.batches(epoch):
            model(**data.collate(rows, epoch)).loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            weights.append(model.weight.detach().clone())
    return weights


@pytest.mark.parametrize(("steps", "warmup"), [(10, 0), (10, 4), (7, 7), (5, 9), (1, 0)])
def test_the_schedule_is_transformers_linear_one(steps: int, warmup: int) -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_linear_schedule_with_warmup(optimizer, warmup, steps)
    for step in range(steps):
        assert linear_schedule(step, warmup, steps) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert linear_schedule(steps, 0, steps) == 0.0


@pytest.mark.parametrize(("warmup", "max_norm"), [(0, 1e9), (5, 1e9), (0, 0.5), (5, 0.5)])
def test_training_is_the_textbook_loop(tmp_path: Path, warmup: int, max_norm: float) -> None:
    """AdamW without weight decay, clipping, warm-up, linear decay; each row once per epoch, a smaller last batch."""
    data, model, seen = Points.make(22, 4), Line(), []

    def evaluate() -> Evaluation:
        seen.append(model.weight.detach().clone())
        return Evaluation(float(len(seen)), {"validation/score": 1.0})

    changes = {"epochs": 3, "warmup_steps": warmup, "max_grad_norm": max_norm, "evaluate_every": 1}
    state = trainer(model, data, tmp_path, evaluate, **changes).fit()
    expected = plain_weights(data, epochs=3, warmup=warmup, max_norm=max_norm, rate=0.1)
    assert state.step == len(expected) == 18
    torch.testing.assert_close(torch.stack(seen), torch.stack(expected))
    moved = (expected[0] - torch.zeros(3)).abs().max()
    assert (moved == 0) == (warmup > 0)  # warm-up starts at a learning rate of zero


def test_a_tensor_can_have_a_separate_learning_rate(tmp_path: Path) -> None:
    data, model = Points.make(22, 4), Line()
    state = trainer(model, data, tmp_path, factors={"weight": 0.5}, epochs=2, evaluate_every=12).fit()
    expected = plain_weights(data, epochs=2, warmup=0, max_norm=1.0, rate=0.05)
    torch.testing.assert_close(state.best_tensors["weight"], expected[-1])


def test_clipping_takes_effect(tmp_path: Path) -> None:
    data = Points.make(20, 4)
    loose, tight = (plain_weights(data, epochs=2, warmup=0, max_norm=n, rate=0.1)[-1] for n in (1e9, 0.5))
    assert not torch.allclose(loose, tight)


@pytest.mark.parametrize("parts", [2, 3, 8, 50])
def test_accumulated_parts_are_one_batch(tmp_path: Path, parts: int) -> None:
    """The parts may be of unequal size, or outnumber the rows."""
    weights = []
    for accumulation in (1, parts):
        model = Line()
        trainer(model, Points.make(24, 8), tmp_path / str(accumulation), gradient_accumulation=accumulation).fit()
        weights.append(model.weight.detach())
    torch.testing.assert_close(*weights)


@pytest.mark.parametrize("accumulation", [1, 2, 3])
def test_every_row_weighs_the_same_in_the_mean_over_processes(accumulation: int) -> None:
    """Also in an epoch's last batch, which may have fewer rows than there are processes."""
    for processes, num_rows in product(range(1, 5), range(1, 10)):
        weights = np.zeros(num_rows)
        for process in range(processes):
            for part, share in parts_of(np.arange(num_rows), process, processes, accumulation):
                weights[part] += share / len(part) / processes  # the loss of a part is the mean over its rows
        np.testing.assert_allclose(weights, 1 / num_rows)


@pytest.mark.parametrize("parts", [1, 3])
def test_batches_that_are_made_ahead_change_nothing(tmp_path: Path, parts: int) -> None:
    """With a thread, as for a GPU."""
    data, weights = Points.make(rows=50, batch_size=8), []
    for ahead in (False, True):
        model = Line()
        for steps in (5, 16):
            trained = trainer(
                model, data, tmp_path / str(ahead), epochs=3, max_steps=steps, gradient_accumulation=parts
            )
            trained.loader = Loader(data, torch.device("cpu"), ahead=ahead)
            trained.fit()
        weights.append(model.weight.detach().clone())
    assert torch.equal(*weights)


def test_a_loader_gives_what_was_announced_and_what_was_not() -> None:
    data, taken = Points.make(rows=9, batch_size=3), []

    class Watched(Points):
        def collate(self, rows: NDArray[np.int64], epoch: int) -> dict[str, Tensor]:
            taken.append((rows.tolist(), threading.current_thread() is threading.main_thread()))
            return super().collate(rows, epoch)

    loader = Loader(Watched(data.x, data.y, 3), torch.device("cpu"), ahead=True)
    first, second, third = (np.arange(start, start + 3) for start in (0, 3, 6))
    loader.announce([first, second], 0)
    for rows in (second, first, third):
        assert torch.equal(loader.load(rows, 0)["x"], data.x[rows])
    loader.close()
    loader.announce([first], 0)
    assert torch.equal(loader.load(first, 0)["y"], data.y[:3])
    assert sorted(taken) == [([0, 1, 2], False), ([0, 1, 2], True), ([3, 4, 5], False), ([6, 7, 8], True)]


def test_an_error_in_the_thread_reaches_the_training(tmp_path: Path) -> None:
    class Broken(Points):
        def collate(self, rows: NDArray[np.int64], epoch: int) -> dict[str, Tensor]:
            if threading.current_thread() is not threading.main_thread():
                raise OSError("the disk is gone")
            return super().collate(rows, epoch)

    points = Points.make(rows=9, batch_size=3)
    failing = trainer(Line(), Broken(points.x, points.y, 3), tmp_path, epochs=1)
    failing.loader = Loader(failing.course.data, torch.device("cpu"), ahead=True)
    with pytest.raises(OSError, match="the disk is gone"):
        failing.fit()


def test_max_steps_bounds_training_and_its_schedule(tmp_path: Path) -> None:
    model, data = Line(), Points.make(20, 4)
    evaluate, seen = scripted(model, [1.0, 2.0])
    run = trainer(model, data, tmp_path, evaluate, epochs=50, max_steps=7)
    assert run.course.total_steps == 7
    state = run.fit()
    assert (state.step, state.epoch, state.finished) == (7, 1, True)
    reference = Line()
    optimizer = torch.optim.AdamW(reference.parameters(), lr=0.1, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, 7)
    for rows in [*data.batches(0), *data.batches(1)][:7]:
        optimizer.zero_grad()
        reference(**data.collate(rows, 0)).loss.backward()
        nn.utils.clip_grad_norm_(reference.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    torch.testing.assert_close(seen[1], reference.weight.detach())


def scripted(model: Line, scores: list[float]) -> tuple[Evaluate, list[Tensor]]:
    """Return an evaluation that yields these scores, and a list of the weights at each call."""
    seen: list[Tensor] = []

    def evaluate() -> Evaluation:
        seen.append(model.weight.detach().clone())
        return Evaluation(scores[len(seen) - 1], {"validation/score": scores[len(seen) - 1]})

    return evaluate, seen


def test_the_best_tensors_are_kept_and_loaded_at_the_end(tmp_path: Path) -> None:
    """Of two equal scores the first wins; evaluation runs every n steps and at the end."""
    model = Line()
    evaluate, seen = scripted(model, [1.0, 4.0, 2.0, 4.0, 3.0])
    state = trainer(model, Points.make(28, 4), tmp_path, evaluate, epochs=2, evaluate_every=3).fit()
    assert [point["step"] for point in state.history if "validation/score" in point] == [3, 6, 9, 12, 14]
    assert (state.best_step, state.best_score, state.best_metrics) == (6, 4.0, {"validation/score": 4.0})
    assert torch.equal(model.weight, seen[1])
    assert torch.equal(state.best_tensors["weight"], seen[1])
    assert not torch.equal(seen[1], seen[4])


def test_evaluation_each_epoch(tmp_path: Path) -> None:
    state = trainer(Line(), Points.make(21, 4), tmp_path, epochs=3).fit()
    assert [point["step"] for point in state.history if "validation/score" in point] == [6, 12, 18]


def test_early_stop(tmp_path: Path) -> None:
    model = Line()
    evaluate, seen = scripted(model, [1.0, 2.0, 1.5, 2.0, 9.0])
    state = trainer(model, Points.make(40, 4), tmp_path, evaluate, epochs=9, evaluate_every=2, early_stop=2).fit()
    assert (state.step, state.best_step, state.finished) == (8, 4, True)
    assert len(seen) == 4
    assert torch.equal(model.weight, seen[1])


def test_losses_in_the_history_are_means_since_the_last_entry(tmp_path: Path) -> None:
    """Losses are read at least every ten steps; the log gets the same entries as the history."""
    data, logged = Points.make(48, 4), []
    state = trainer(
        Line(),
        data,
        tmp_path,
        epochs=2,
        evaluate_every=15,
        log=lambda step, metrics: logged.append({"step": step, **metrics}),
    ).fit()
    assert logged == state.history
    points = [(point["step"], point["train/loss"]) for point in state.history if "train/loss" in point]
    assert [step for step, _ in points] == [10, 15, 24]
    before = [torch.zeros(3), *plain_weights(data, epochs=2, warmup=0, max_norm=1.0, rate=0.1)]
    batches = [rows for epoch in range(2) for rows in data.batches(epoch)]
    losses = [((data.x[r] @ w - data.y[r]) ** 2).mean().item() for w, r in zip(before, batches, strict=False)]
    expected = [np.mean(losses[:10]), np.mean(losses[10:15]), np.mean(losses[15:])]
    assert [loss for _, loss in points] == pytest.approx(expected, rel=1e-4)


def test_the_bar_shows_loss_metric_and_time_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate = lambda: Evaluation(71.25, {"validation/score": 71.25})  # noqa: E731
    trainer(Line(), Points.make(20, 4), tmp_path, evaluate).fit()
    last = capsys.readouterr().err.split("\r")[-1]
    assert re.search(r"line: 100%.* 10/10 \[\d\d:\d\d<\d\d:\d\d, .*loss=\d+\.\d{3}, best=71\.25", last), last


# --- failures


def test_a_nan_loss_stops_training_and_names_the_step(tmp_path: Path) -> None:
    """The previous checkpoint is unchanged."""
    data = Points.make(40, 4)
    rows = [*data.batches(0), *data.batches(1)][12]
    poisoned = replace(data, poisoned=(1, int(rows[0])))
    run = trainer(Line(), poisoned, tmp_path, epochs=4, checkpoint_every=5)
    with pytest.raises(TrainingError) as caught:
        run.fit()
    message = str(caught.value)
    for part in (
        "line: the loss is nan",
        f"training rows {sorted(rows.tolist())}",
        "at step 13 of 40",
        "epoch 2",
        "learning rate 0.1",
        "the last good checkpoint is kept",
        str(run.course.store.path),
    ):
        assert part in message, message
    kept = load_file(run.course.store.path)
    expected = plain_weights_until(data, 10, total=40)
    torch.testing.assert_close(kept["trained/weight"], expected)
    assert all(tensor.isfinite().all() for tensor in kept.values())


def plain_weights_until(data: Points, step: int, total: int) -> Tensor:
    weights = plain_weights(data, epochs=total // len(data.batches(0)), warmup=0, max_norm=1.0, rate=0.1)
    return weights[step - 1]


def test_an_infinite_gradient_is_found_before_the_checkpoint(tmp_path: Path) -> None:
    """The loss of that step is finite, but its state holds NaN, which must not replace the good checkpoint."""
    data = Points(torch.ones(4, 3), torch.tensor([0.0, 0.0, 0.0, 0.0]), 4)
    run = trainer(Line(power=0.5), data, tmp_path, epochs=3, checkpoint_every=1)
    with pytest.raises(TrainingError, match=r"weight is no longer finite after step 1 of 3 .* no checkpoint yet"):
        run.fit()
    assert not run.course.store.path.exists()


def test_training_without_rows_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="line: there are no training rows"):
        trainer(Line(), Points(torch.zeros(0, 3), torch.zeros(0), 4), tmp_path)


def test_a_diverging_stage_writes_nothing(world: World, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"train_source alpha: .*(loss is|no longer finite).* step \d+ of 12"):
        world.train_source(tmp_path / "out", learning_rate=1e38)
    assert not (tmp_path / "out").exists()


# --- both stages on a learnable task


def losses_of(history: list[dict[str, float]]) -> list[float]:
    return [point["train/loss"] for point in history if "train/loss" in point]


def test_stage_1_learns(still_world: World, tmp_path: Path) -> None:
    record = still_world.train_source(
        tmp_path / "out", learning_rate=3e-2, epochs=100, max_steps=100, evaluate_every=50
    )
    losses = losses_of(record.history)
    assert losses[0] > 4  # chance is ln 400 = 6
    assert losses[-1] < 0.3 * losses[0]
    assert record.validation["accuracy"] > 80


def test_stage_2_learns(still_world: World, tmp_path: Path) -> None:
    still_world.transfer(tmp_path / "out", learning_rates=[3e-2], epochs=100, max_steps=100, evaluate_every=50)
    record = load_training_record(tmp_path / "out" / CELL)
    losses = losses_of(record.history)
    assert losses[0] > 3
    assert losses[-1] < 0.3 * losses[0]
    assert record.validation["accuracy"] > 80
    assert record.validation["main"] == record.validation["accuracy"]
    sparsity = [point["train/sparsity_loss"] for point in record.history if "train/sparsity_loss" in point]
    assert len(sparsity) == len(losses)
    assert all(0 < value < 2 for value in sparsity)


def test_the_best_learning_rate_on_validation_is_kept(world: World, tmp_path: Path) -> None:
    world.transfer(tmp_path / "out", learning_rates=[1e-9, 3e-2], epochs=100, max_steps=60, evaluate_every=30)
    record = load_training_record(tmp_path / "out" / CELL)
    assert record.learning_rate == 3e-2
    assert record.trials.keys() == {"1e-09", "0.03"}
    assert record.trials["0.03"] > record.trials["1e-09"]


def test_one_seed_gives_one_result_and_another_seed_another(world: World, tmp_path: Path) -> None:
    """Dropout, row order, initial adapters and the few-shot sample depend on the seed."""
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        world.transfer(tmp_path / name / "out", seeds=[seed], k=["full", 4], epochs=2)
    for cell in ("pemt-kfull-seed", "pemt-k4-seed"):
        first, again, other = (
            (tmp_path / name / "out" / f"{cell}{seed}" / "adapter.safetensors").read_bytes()
            for name, seed in (("a", 1), ("b", 1), ("c", 2))
        )
        assert first == again
        assert first != other


def test_evaluating_more_often_does_not_change_training(world: World, tmp_path: Path) -> None:
    losses = []
    for every in ("epoch", 1):
        record = world.train_source(tmp_path / str(every) / "out", epochs=3, evaluate_every=every)
        points = losses_of(record.history)
        losses.append(np.mean(points[-6:]) if every == 1 else points[-1])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("parts", [2, 3])
def test_an_accumulated_stage_is_the_same_stage(still_world: World, tmp_path: Path, parts: int) -> None:
    check_equal_lengths(still_world)
    for name, accumulation in (("one", 1), ("parts", parts)):
        world_options: dict[str, Any] = {"batch_size": 8, "epochs": 2, "init": "kaiming"}
        still_world.train_source(tmp_path / name / "out", gradient_accumulation=accumulation, **world_options)
    close_adapters(tmp_path / "one" / "out", tmp_path / "parts" / "out")


def check_equal_lengths(world: World) -> None:
    """Check that all rows have equal token lengths, which the comparison relies on."""
    from pemt_core.data.prepared import PreparedTask

    tokenizer = tiny_tokenizer(world.folder / "lengths")
    rows = PreparedTask.load(world.folder / "data" / "alpha").rows("train")
    for column in ("source", "target"):
        assert len({len(ids) for ids in tokenizer(rows[column].to_pylist())["input_ids"]}) == 1


def close_adapters(first: Path, second: Path) -> None:
    """Check that adapters are equal up to the effect of summation order on AdamW's first steps."""
    one, two = (load_file(folder / "adapter.safetensors") for folder in (first, second))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, rtol=1e-3, atol=2e-4)
    histories = [losses_of(read_json(folder / "training.json")["history"]) for folder in (first, second)]
    assert histories[0] == pytest.approx(histories[1], rel=1e-4)


def test_a_bfloat16_stage_stays_close_to_float32(world: World, tmp_path: Path) -> None:
    """With mixed precision, trained and stored tensors are float32."""
    histories = []
    for precision in ("float32", "bfloat16"):
        world.transfer(tmp_path / precision / "out", precision=precision, epochs=3, prompt_dropout=0.0)
        folder = tmp_path / precision / "out" / CELL
        assert {tensor.dtype for tensor in load_file(folder / "adapter.safetensors").values()} == {torch.float32}
        histories.append(losses_of(read_json(folder / "training.json")["history"]))
    assert histories[0] == pytest.approx(histories[1], rel=0.05)
    assert histories[0] != histories[1]


@pytest.mark.slow
def test_two_processes_train_what_one_trains(still_world: World, tmp_path: Path) -> None:
    """Under `accelerate launch` processes exchange gradients, share rows and gather metrics without code changes."""
    changes: dict[str, Any] = {"batch_size": 8, "epochs": 3, "init": "kaiming", "evaluate_every": 2}
    still_world.train_source(tmp_path / "one" / "out", **changes)
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",  # with --cpu, accelerate starts only one process
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    options = ["--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    stage = [str(TINY), "train_source", str(still_world.folder), str(tmp_path / "two" / "out"), str(tmp_path / "log")]
    done = subprocess.run(
        [*launch, *options, *stage, json.dumps(changes)],
        env={**os.environ, "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path.name for path in tmp_path.glob("rank-*")} == {"rank-0", "rank-1"}
    close_adapters(tmp_path / "one" / "out", tmp_path / "two" / "out")
    records = [load_training_record(tmp_path / name / "out") for name in ("one", "two")]
    metrics = [[point for point in record.history if "train/loss" not in point] for record in records]
    assert metrics[0] == metrics[1]  # every validation row was scored exactly once
    logged = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert len(logged) == len(records[1].history)  # only the main process logs
