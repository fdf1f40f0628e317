"""Trainings that share their steps: as each alone up to rounding, and resumed, stopped and searched as alone."""

import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import World, logging_runs, transfer_settings
from torch import nn

from pemt_core.artifacts.cost import load_cost
from pemt_core.artifacts.description import load_training_record
from pemt_core.artifacts.experts import load_experts
from pemt_core.backbone.store import load_backbone
from pemt_core.errors import TrainingError
from pemt_core.interruption import Interrupted
from pemt_core.steps.transfer import TargetTransfer, _cells, transfer
from pemt_core.training import group as group_module
from pemt_core.training.accelerator import make_accelerator
from pemt_core.training.course import Course
from pemt_core.training.optimizer import GroupedAdamW, linear_schedule, make_optimizer

pytestmark = pytest.mark.usefixtures("fresh_accelerator")

METHODS = {
    "pemt": {"kind": "pemt"},
    "control": {"kind": "pemt", "sources": []},
    "token": {"kind": "pemt", "gate": "token"},  # only alone
}
SEARCH: dict[str, Any] = {
    "methods": METHODS, "seeds": [1], "k": ["full"], "learning_rates": [0.01, 0.03], "prompt_dropout": 0.0,
    "epochs": 2, "evaluate_every": 6,
}  # fmt: skip


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world whose backbone has no dropout, which a group draws for all its trainings at once."""
    return World.make(tmp_path_factory.mktemp("still"), dropout=0.0)


def cells(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    return {each.name: load_file(each / "adapter.safetensors") for each in sorted(folder.iterdir())}


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Adam's steps of tiny gradients turn on rounding, the more the higher the rate; single numbers may differ."""
    assert float((found - expected).norm()) <= 1e-2 * float(expected.norm()) + 1e-3


@pytest.fixture(scope="module")
def both(still: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same cells one by one and in groups, the latter of at most three trainings and of any number."""
    folder = tmp_path_factory.mktemp("both")
    for name, rows in (("alone", "off"), ("some", 12), ("all", 10_000)):
        still.transfer(
            folder / name / "out", group=rows, log=folder / f"{name}.jsonl", costs=folder / name / "costs", **SEARCH
        )
    return folder


@pytest.mark.parametrize("name", ["some", "all"])
def test_a_group_trains_what_each_training_does_alone(both: Path, name: str) -> None:
    expected, found = cells(both / "alone" / "out"), cells(both / name / "out")
    assert expected.keys() == found.keys()
    for cell, tensors in expected.items():
        assert [*found[cell]] == [*tensors]
        for key, tensor in tensors.items():
            assert_near(found[cell][key], tensor)
        records = [load_training_record(both / each / "out" / cell) for each in ("alone", name)]
        assert records[0].trials == records[1].trials
        assert records[0].steps == records[1].steps
        assert records[0].learning_rate == records[1].learning_rate
        losses = [[point.get("train/loss", 0.0) for point in record.history] for record in records]
        assert losses[0] == pytest.approx(losses[1], rel=1e-3, abs=1e-3)


def test_only_rounding_differs(both: Path) -> None:
    """Methods that can only be trained alone are the same to the bit."""
    expected, found = cells(both / "alone" / "out"), cells(both / "all" / "out")
    for cell in expected:
        if cell.startswith("token"):
            assert all(torch.equal(found[cell][key], tensor) for key, tensor in expected[cell].items())


def test_curves_are_logged_once(both: Path) -> None:
    points = {}
    for name in ("alone", "all"):
        lines = [json.loads(line) for line in (both / f"{name}.jsonl").read_text().splitlines()]
        points[name] = sorted((line["cell"], line["step"], "train/loss" in line) for line in lines)
    assert points["alone"] == points["all"]


def test_costs_are_shares(both: Path) -> None:
    for folder in (both / "all" / "out").iterdir():
        alone, grouped = (
            load_cost(both / name / "costs", both / name / "out" / folder.name) for name in ("alone", "all")
        )
        assert (alone.configurations, alone.steps) == (grouped.configurations, grouped.steps)
        assert 0 < grouped.seconds < 100


def test_a_group_is_searched_by_halves(still: World, tmp_path: Path) -> None:
    changes = {**SEARCH, "methods": {"pemt": METHODS["pemt"]}, "learning_rates": [1e-7, 0.01, 0.03, 1e-8]}
    for name, rows in (("alone", "off"), ("together", 10_000)):
        still.transfer(tmp_path / name, group=rows, search="halving", **changes)
    for cell in (tmp_path / "alone").iterdir():
        records = [load_training_record(tmp_path / each / cell.name) for each in ("alone", "together")]
        assert records[0].trials == records[1].trials
        assert records[0].steps == records[1].steps == 12


def test_an_interrupted_group_goes_on_from_its_states(
    still: World, both: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after some steps, then trained alone, then in a group: the same as without interruptions."""
    changes = {**SEARCH, "methods": {name: METHODS[name] for name in ("pemt", "control")}}
    asked = iter([None] * 4 + [Interrupted(15)])
    monkeypatch.setattr(group_module, "asked_for", lambda: next(asked, None))
    with pytest.raises(Interrupted, match="the states of 4 trainings are saved"):
        still.transfer(tmp_path / "out", group=10_000, **changes)
    assert len(list((tmp_path / "checkpoints").glob("*/state.safetensors"))) == 4
    monkeypatch.undo()
    still.transfer(tmp_path / "out", group=10_000, **changes)
    expected, found = cells(both / "all" / "out"), cells(tmp_path / "out")
    assert [*found] == [cell for cell in expected if cell.startswith(("pemt", "control"))]
    for cell, tensors in found.items():
        for key, tensor in tensors.items():
            assert_near(tensor, expected[cell][key])


def test_a_training_that_diverges_leaves_the_others(still: World, tmp_path: Path) -> None:
    changes = {**SEARCH, "methods": {"pemt": METHODS["pemt"]}, "seeds": [1], "learning_rates": [0.01, 1e30]}
    still.transfer(tmp_path / "out", group=10_000, **changes)
    record = load_training_record(tmp_path / "out" / "pemt-kfull-seed1")
    assert record.learning_rate == 0.01
    assert record.trials["1e+30"] is None
    with pytest.raises(TrainingError, match=r"pemt-kfull-seed2: .*(loss is|no longer finite)"):
        still.transfer(tmp_path / "other", group=10_000, **{**changes, "seeds": [2], "learning_rates": [1e30]})


def test_the_optimizer_is_torchs_for_every_row() -> None:
    """Rows with their own rates, numbers of steps and norms of gradients, of which some sit out."""
    torch.manual_seed(0)
    sizes, schedule = (3, 5), [(0.1, 4), (0.03, 6), (0.5, 2)]
    rows = [[torch.randn(size) for size in sizes] for _ in schedule]
    values = nn.Parameter(torch.stack([torch.cat(row) for row in rows]))
    grouped = GroupedAdamW(values, torch.ones_like(values, dtype=torch.bool))
    alone = [{str(n): nn.Parameter(t.clone()) for n, t in enumerate(row)} for row in rows]
    optimizers = [make_optimizer(own, rate, {}) for own, (rate, _) in zip(alone, schedule, strict=True)]
    for step in range(6):
        gradients = torch.randn(3, 8) * torch.tensor([0.01, 1.0, 30.0]).unsqueeze(1)
        moves = torch.tensor([step < total for _, total in schedule])
        rates = torch.tensor([rate * linear_schedule(step, 1, total) for rate, total in schedule])
        values.grad = gradients.clone()
        grouped.step(rates, torch.full((3,), step + 1.0), 1.0, moves)
        for row, (own, optimizer) in enumerate(zip(alone, optimizers, strict=True)):
            if not moves[row]:
                continue
            for parameter, gradient in zip(own.values(), gradients[row].split(sizes), strict=True):
                parameter.grad = gradient.clone()
            nn.utils.clip_grad_norm_(own.values(), 1.0)
            optimizer.param_groups[0]["lr"] = rates[row].item()
            optimizer.step()
        expected = torch.stack([torch.cat([p.detach() for p in own.values()]) for own in alone])
        torch.testing.assert_close(values.detach(), expected, rtol=1e-4, atol=1e-5)
    assert values.grad is None


TWO = ("gamma", "alpha")  # any prepared task can be a target


def transfer_of(world: World, folder: Path, *, group: int | str, **changes: Any) -> dict[str, dict[str, torch.Tensor]]:
    """Train two targets in one call; the tensors of their cells."""
    settings = {**SEARCH, "group": group, **changes}
    transfer(
        [TargetTransfer(transfer_settings(task=t, **settings), world.folder / "data" / t, folder / t) for t in TWO],
        world.folder / "backbone",
        world.folder / "experts",
        checkpoint_dir=folder / "checkpoints",
        open_run=logging_runs(None),
    )
    return {f"{target}/{name}": tensors for target in TWO for name, tensors in cells(folder / target).items()}


def test_cells_of_several_targets_share_their_steps(still: World, tmp_path: Path, groups: list[list[str]]) -> None:
    """A group is filled from the next target; the trainings end as they do alone."""
    changes: dict[str, Any] = {"methods": ["pemt", "control"], "seeds": [1, 2], "learning_rates": [0.01]}
    expected, found = (transfer_of(still, tmp_path / str(rows), group=rows, **changes) for rows in ("off", 10_000))
    assert expected.keys() == found.keys()
    assert {name.split("/")[0] for name in found} == {*TWO}
    for cell, tensors in expected.items():
        for key, tensor in tensors.items():
            assert_near(found[cell][key], tensor)
    assert groups == [["gamma"] * 4 + ["alpha"] * 4]


@pytest.mark.parametrize("rows", ["off", 10_000])
def test_a_locked_target_leaves_the_others_to_be_trained(still: World, tmp_path: Path, rows: int | str) -> None:
    """Alone and in groups. The next call trains the rest."""
    short: dict[str, Any] = {"methods": ["pemt"], "max_steps": 2, "evaluate_every": 1}
    backbone = load_backbone(still.folder / "backbone")
    bank = load_experts(still.folder / "experts", backbone)
    settings = transfer_settings(task="gamma", **{**SEARCH, "group": rows, **short})
    gamma = TargetTransfer(settings, still.folder / "data" / "gamma", tmp_path / "gamma")
    with ExitStack() as held:
        _cells(gamma, backbone, bank, tmp_path / "checkpoints", logging_runs(None), make_accelerator("float32")).lock(
            held
        )
        with pytest.raises(TrainingError, match="another process is training this"):
            transfer_of(still, tmp_path, group=rows, **short)
        assert not (tmp_path / "gamma").exists()
        assert len(cells(tmp_path / "alpha")) == 1
    assert len(transfer_of(still, tmp_path, group=rows, **short)) == 2


@pytest.mark.parametrize("rows", ["off", 10_000])
@pytest.mark.parametrize("keep_others", [False, True])
def test_states_stay_while_a_target_fails(
    still: World, tmp_path: Path, rows: int | str, keep_others: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retried step begins without its output, so it takes a complete target from its states; where the output is
    kept, these go at once. No target is trained twice."""
    short: dict[str, Any] = {"methods": ["pemt"], "seeds": [1], "max_steps": 2, "evaluate_every": 1, "group": rows}
    trained: list[str] = []
    step = Course.stepped
    monkeypatch.setattr(Course, "stepped", lambda self, *given: trained.append(self.title) or step(self, *given))

    def run(rates: dict[str, float]) -> None:
        targets = [
            TargetTransfer(
                transfer_settings(task=t, **{**SEARCH, **short, "learning_rates": [rate]}),
                still.folder / "data" / t,
                tmp_path / t,
            )
            for t, rate in rates.items()
        ]
        backbone, experts = still.folder / "backbone", still.folder / "experts"
        transfer(
            targets, backbone, experts,
            checkpoint_dir=tmp_path / "checkpoints", open_run=logging_runs(None), keep_others=keep_others, workers=1,
        )  # fmt: skip

    with pytest.raises(TrainingError, match=r"^transfer alpha pemt-kfull-seed1: .* step 2 of 2"):
        run({"gamma": 0.01, "alpha": 1e30})
    assert len(cells(tmp_path / "gamma")) == 1
    states = [path for path in (tmp_path / "checkpoints").glob("*/*") if path.is_file()]
    assert bool(states) != keep_others
    if not keep_others:
        shutil.rmtree(tmp_path / "gamma")
    trained.clear()
    run({"gamma": 0.01, "alpha": 0.01})
    assert {title.split()[1] for title in trained} == {"alpha"}
    assert len(cells(tmp_path / "gamma")) == len(cells(tmp_path / "alpha")) == 1
    assert [*(tmp_path / "checkpoints").iterdir()] == []


def test_cells_that_another_program_trained_meanwhile_are_kept(still: World, tmp_path: Path) -> None:
    """They are looked for again once the locks are held."""
    short: dict[str, Any] = {"methods": ["pemt"], "seeds": [1], "max_steps": 1, "evaluate_every": 1}
    backbone = load_backbone(still.folder / "backbone")
    bank = load_experts(still.folder / "experts", backbone)
    given = TargetTransfer(
        transfer_settings(task="gamma", **{**SEARCH, **short}), still.folder / "data" / "gamma", tmp_path / "gamma"
    )
    accelerator = make_accelerator("float32")
    found = _cells(given, backbone, bank, tmp_path / "checkpoints", logging_runs(None), accelerator)
    assert len(found.missing) == 1
    still.transfer(tmp_path / "gamma", checkpoints=tmp_path / "checkpoints", **{**SEARCH, **short})
    with ExitStack() as locks:
        found.lock(locks)
    assert found.missing == []
