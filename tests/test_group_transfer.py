"""How a transfer feeds its groups: the device, the targets that share steps, and curves while they train."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny import World, logging_runs, transfer_settings, write_task

from pemt_core.artifacts.description import load_training_record
from pemt_core.artifacts.run_info import RunInfo
from pemt_core.steps import transfer as transfer_step
from pemt_core.training.course import Course
from pemt_core.training.group import GroupTrainer
from pemt_core.training.run import SilentRun

pytestmark = pytest.mark.usefixtures("fresh_accelerator")


class StoppedError(Exception):
    """Ends a transfer where the test has seen enough."""


def test_the_backbone_is_on_the_device_before_groups_are_sized(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group is built where the backbone is. `meta` is a device that every machine has."""
    found: list[set[str]] = []

    def sized(_asked: Any, backbone: Any, _methods: Any) -> int:
        found.append({parameter.device.type for parameter in backbone.parameters()})
        raise StoppedError

    elsewhere = SimpleNamespace(device=torch.device("meta"), num_processes=1, is_main_process=True)
    monkeypatch.setattr(transfer_step, "make_accelerator", lambda _precision: elsewhere)
    monkeypatch.setattr(transfer_step, "rows_of", sized)
    with pytest.raises(StoppedError):
        world.transfer(tmp_path / "out")
    assert found == [{"meta"}]


TASKS = {"gamma": (40, 0), "long": (40, 12), "brief": (8, 0), "other": (40, 0)}  # training rows, words of padding


def test_targets_share_steps_if_texts_and_numbers_of_steps_are_alike(
    world: World, tmp_path: Path, groups: list[list[str]]
) -> None:
    """They are looked for among all targets, of which only as many are open as fill a group. Cells of one target share
    their steps although one ends long before the other."""
    targets = []
    for name, (rows, fillers) in TASKS.items():
        write_task(tmp_path / "data", name, rows={"train": rows}, fillers=fillers)
        settings = transfer_settings(
            task=name, methods=["control"], seeds=[1], k=["full", 1] if name == "long" else ["full"], group=8,
            epochs=1, evaluate_every=100,
        )  # fmt: skip
        targets.append(transfer_step.TargetTransfer(settings, tmp_path / "data" / name, tmp_path / name))
    transfer_step.transfer(
        targets, world.folder / "backbone", world.folder / "experts",
        checkpoint_dir=tmp_path / "checkpoints", open_run=logging_runs(None),
    )  # fmt: skip
    assert groups == [["gamma", "other"], ["long", "long"]]
    assert load_training_record(tmp_path / "brief" / "control-kfull-seed1").steps == 2


class Recorded(SilentRun):
    """A run that adds what is done with it to a list."""

    def __init__(self, cell: str, events: list[tuple[str, Any]]) -> None:
        self.cell, self.events = cell, events

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.events.append((self.cell, (step, *metrics)))

    def flush(self) -> None:
        self.events.append((self.cell, "flush"))


def test_curves_are_logged_while_a_group_trains(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once per point, although the memory is full after step 5 and each training goes on alone, from step 3."""
    events: list[tuple[str, Any]] = []
    stepped, step, steps = Course.stepped, GroupTrainer._step, iter(range(100))

    @contextmanager
    def recorded(info: RunInfo) -> Iterator[Recorded]:
        yield Recorded(info.cell, events)

    def full(self: GroupTrainer, active: Any) -> None:
        if next(steps) == 5:
            raise torch.OutOfMemoryError
        step(self, active)

    monkeypatch.setattr(GroupTrainer, "_step", full)
    monkeypatch.setattr(Course, "stepped", lambda self, *given: events.append(("", "step")) or stepped(self, *given))
    settings = transfer_settings(
        methods=["control"], seeds=[1, 2], group=8, checkpoint_every=3, evaluate_every=2, epochs=2
    )
    target = transfer_step.TargetTransfer(settings, world.folder / "data" / "gamma", tmp_path / "out")
    transfer_step.transfer(
        [target], world.folder / "backbone", world.folder / "experts",
        checkpoint_dir=tmp_path / "checkpoints", open_run=recorded,
    )  # fmt: skip
    for seed in (1, 2):
        of_cell = [what for cell, what in events if cell == f"transfer/gamma/control/k=full/seed={seed}"]
        record = load_training_record(tmp_path / "out" / f"control-kfull-seed{seed}")
        points = [(int(point["step"]), *(name for name in point if name != "step")) for point in record.history]
        assert [what for what in of_cell if what != "flush"] == points
        assert of_cell.count("flush") == 1 + 3  # after step 3 of the group, then after 6, 9 and 12
    together_steps = 2 * 5
    before = events[: [place for place, (_, what) in enumerate(events) if what == "step"][together_steps - 1]]
    assert len({cell for cell, what in before if cell and what != "flush"}) == 2
