"""The search of a cell: its configurations, which of them stop early, what they cost, and what is kept of the best."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from test_training import Line, Points, scripted, trainer
from tiny import METHODS, World, change_record, random_experts, tiny_t5, transfer_settings
from tqdm import tqdm

from pemt_core.artifacts.adapter import load_adapter
from pemt_core.artifacts.cost import load_cost
from pemt_core.artifacts.description import TargetDescription, load_training_record
from pemt_core.artifacts.experts import load_experts
from pemt_core.artifacts.target import load_target, restore_target
from pemt_core.backbone.store import load_backbone
from pemt_core.data.prepared import PreparedTask, load_task_description
from pemt_core.errors import ArtifactError, SettingsError, TrainingError
from pemt_core.methods import Method, kinds, method_of, registry
from pemt_core.methods.count import trained_parameters
from pemt_core.methods.pemt import Pemt
from pemt_core.training.checkpoint import TrainingState
from pemt_core.training.configuration import FIRST_ROUND, CellTraining, labels_of
from pemt_core.training.optimizer import make_optimizer
from pemt_core.training.search import Search, better_half
from pemt_core.training.target import Target

pytestmark = pytest.mark.usefixtures("fresh_accelerator")

CELL = "pemt-kfull-seed4096"
# After 12 of 36 steps, where the first evaluation is, 0.3 and 0.2 have learned something, and go on
SEARCH: dict[str, Any] = {"learning_rates": [1e-7, 0.3, 0.2], "epochs": 6, "evaluate_every": 12}


class Chosen(Pemt):
    """PEMT on one source, which validation chooses unless it is named."""

    kind: Literal["chosen"]  # type: ignore[assignment]
    source: str | None = None
    text: str = ""
    still: str = ""  # a tensor that keeps its initial value

    def draws_on(self, known: Sequence[str]) -> list[str]:
        return super().draws_on(known) if self.source is None else [self.source]

    def options(self, known: Sequence[str]) -> list[Method]:
        return [self.model_copy(update={"source": source}) for source in (*self.draws_on(known), known[0])]

    def prompt_text(self, description: str) -> str:
        return self.text or description

    def learning_rate_factors(self, names: Sequence[str]) -> Mapping[str, float]:
        return {self.still: 0.0} if self.still else {}

    @property
    def code(self) -> tuple[str, ...]:
        return ("pemt_core.methods.pemt",)


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kind `chosen` beside the others."""
    both = {**kinds(), "chosen": Chosen}
    monkeypatch.setattr(registry, "kinds", lambda: both)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# --- which configurations stop


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([1.0], [0]),
        ([1.0, 2.0], [1]),
        ([2.0, 2.0], [0, 1]),
        ([1.0, 3.0, 2.0], [1, 2]),
        ([2.0, 2.0, 2.0], [0, 1, 2]),
        ([0.0, 5.0, 1.0, 5.0, 5.0, 2.0, 0.0], [1, 3, 4, 5]),
        ([float("-inf"), 0.0], [1]),
    ],
    ids=str,
)
def test_the_better_half_is_rounded_up_and_has_all_that_equal_its_last(
    scores: list[float], expected: list[int]
) -> None:
    assert better_half(scores) == expected


def test_the_better_half_by_counting() -> None:
    """A place stays if fewer than half of all are better."""
    for scores in product([0.0, 1.0, 2.0], repeat=4):
        better = [sum(other > score for other in scores) for score in scores]
        assert better_half(scores) == [place for place, count in enumerate(better) if count < 2]


def test_what_stopped_goes_on_if_the_better_half_diverges(world: World) -> None:
    """Of four learning rates two go on, and both diverge: then the other two are trained to the end."""
    search = Search(training_of(world, learning_rates=[0.1, 0.2, 0.3, 0.4], search="halving"))
    scored = zip(search.first_trials, [1.0, 4.0, 3.0, 2.0], strict=True)
    following = [search.ended(trial, TrainingState(best_score=score)) for trial, score in scored]
    assert [trial.place for trials in following for trial in trials] == [1, 2]
    assert search.diverged(following[-1][0], TrainingError("one")) == []
    revived = search.diverged(following[-1][1], TrainingError("two"))
    assert [(trial.place, trial.to_end) for trial in revived] == [(0, True), (3, True)]
    assert not search.is_complete
    for trial, score in zip(revived, [5.0, 6.0], strict=True):
        assert search.ended(trial, TrainingState(best_score=score, finished=True)) == []
    assert search.is_complete
    assert search.chosen[0].learning_rate == 0.4
    assert search.trials == {"0.1": 5.0, "0.2": None, "0.3": None, "0.4": 6.0}


def test_a_search_in_which_everything_diverges_says_why(world: World) -> None:
    search = Search(training_of(world, learning_rates=[0.1, 0.2], search="halving"))
    for trial in search.first_trials:
        assert search.diverged(trial, TrainingError(f"rate {trial.place}")) == []
    assert search.is_complete
    with pytest.raises(TrainingError, match=r"^rate 0$"):
        _ = search.chosen


def training_of(world: World, **changes: Any) -> CellTraining:
    """The training of one cell of the world's target."""
    settings, backbone = transfer_settings(**changes), load_backbone(world.folder / "backbone")
    bank, prepared = (
        load_experts(world.folder / "experts", backbone),
        PreparedTask.load(world.folder / "data" / "gamma"),
    )
    target = Target(prepared, backbone, bank, settings.answer, Path(), "pemt_core.steps.transfer")
    (training,) = target.trainings({cell: settings.method(cell.method) for cell in settings.cells})
    return training


@pytest.mark.parametrize(
    ("rows", "every", "expected"),
    [(36, 1, 3), (36, 2, 4), (36, 9, 9), (36, 4, 4), (40, 1, 4), (40, 3, 6), (4, 1, 1), (36, "epoch", 9)],
)
def test_a_training_ends_early_at_an_evaluation(tmp_path: Path, rows: int, every: Any, expected: int) -> None:
    """Batches have 4 rows, so 36 rows are 9 steps; a third of 10 steps is reached after 4."""
    state = trainer(Line(), Points.make(rows, 4), tmp_path, epochs=1, evaluate_every=every).fit(FIRST_ROUND)
    assert state.step == expected
    assert state.early_score == state.best_score
    assert state.finished == (expected == rows // 4)


@pytest.mark.parametrize("checkpoint_every", [1, 4, 100])
def test_a_training_that_ended_early_goes_on_exactly(tmp_path: Path, checkpoint_every: int) -> None:
    """Between its parts, the state is only on disk."""
    options: dict[str, Any] = {"epochs": 3, "evaluate_every": 4, "checkpoint_every": checkpoint_every}
    data = Points.make(32, 4)
    scores = [3.0, 5.0, 1.0, 6.0, 2.0, 4.0]
    whole = trainer(Line(), data, tmp_path / "whole", scripted(Line(), scores)[0], **options).fit()
    first = trainer(Line(), data, tmp_path / "cut", scripted(Line(), scores[:2])[0], **options).fit(FIRST_ROUND)
    assert (first.step, first.early_score, first.finished) == (8, 5.0, False)
    again = trainer(Line(), data, tmp_path / "cut", scripted(Line(), [])[0], **options).fit(FIRST_ROUND)
    assert (again.step, again.history) == (8, first.history)
    model = Line()
    last = trainer(model, data, tmp_path / "cut", scripted(Line(), scores[2:])[0], **options).fit()
    assert (last.step, last.history, last.best_step, last.early_score) == (24, whole.history, 16, 5.0)
    assert torch.equal(last.best_tensors["weight"], whole.best_tensors["weight"])
    assert torch.equal(model.weight, whole.best_tensors["weight"])
    done = trainer(Line(), data, tmp_path / "cut", scripted(Line(), [])[0], **options).fit(FIRST_ROUND)
    assert (done.step, done.finished, done.early_score) == (24, True, 5.0)  # what a search that was killed finds


# --- halving


@pytest.fixture(scope="module")
def searched(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cell by both searches; by `halving` also another, in this process and in two workers."""
    folder = tmp_path_factory.mktemp("searched")
    for name, methods, workers in (("full", 1, 1), ("halving", 2, 1), ("workers", 2, 2)):
        (folder / name).mkdir()
        world.transfer(
            folder / name / "out",
            methods=["pemt", "control"][:methods],
            search="full" if name == "full" else "halving",
            workers=workers,
            costs=folder / name / "costs",
            log=folder / name / "log.jsonl",
            **SEARCH,
        )
    return folder


def test_the_best_of_the_better_half_is_what_a_full_search_keeps(searched: Path) -> None:
    full, halving = searched / "full" / "out" / CELL, searched / "halving" / "out" / CELL
    assert (full / "adapter.safetensors").read_bytes() == (halving / "adapter.safetensors").read_bytes()
    records = [load_training_record(each) for each in (full, halving)]
    assert replace(records[0], trials={}) == replace(records[1], trials={})
    assert (records[0].learning_rate, records[0].steps) == (0.3, 36)
    assert list(records[1].trials) == ["1e-07", "0.3", "0.2"]
    assert records[1].trials["1e-07"] == 0 < records[1].trials["0.3"] == records[0].trials["0.3"]


def test_the_costs_count_what_was_trained(searched: Path) -> None:
    costs = {name: load_cost(searched / name / "costs", searched / name / "out" / CELL)
             for name in ("full", "halving", "workers")}  # fmt: skip
    assert [cost.configurations for cost in costs.values()] == [3, 3, 3]
    assert [cost.steps for cost in costs.values()] == [3 * 36, 2 * 36 + 12, 2 * 36 + 12]
    assert all(0 < cost.seconds < 600 for cost in costs.values())
    assert all(0 <= cost.peak_memory_mib < 2000 for cost in costs.values())


def test_workers_find_what_one_process_finds(searched: Path) -> None:
    one, two = searched / "halving", searched / "workers"
    assert files(one / "out") == files(two / "out")
    points = [sorted((each / "log.jsonl").read_text().splitlines()) for each in (one, two)]
    assert points[0] == points[1]
    assert len({json.loads(line)["cell"] for line in points[0]}) == 2
    assert [list((each / "checkpoints").iterdir()) for each in (one, two)] == [[], []]


def test_the_bar_counts_all_that_go_on_with_equal_scores(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bars = []

    class Bar(tqdm):  # type: ignore[type-arg]
        def close(self) -> None:
            bars.append((self.n, self.total))
            super().close()

    monkeypatch.setattr("pemt_core.steps.transfer.tqdm", Bar)
    world.transfer(tmp_path / "out", search="halving", workers=2, **{**SEARCH, "learning_rates": [1e-7, 1e-8, 1e-9]})
    assert bars[-1] == (6, 6)  # not 5: all three go on


def test_a_single_configuration_is_never_stopped(world: World, tmp_path: Path) -> None:
    for search in ("full", "halving"):
        world.transfer(
            tmp_path / search, search=search, **{**SEARCH, "learning_rates": [1e-7], "epochs": 1, "evaluate_every": 2}
        )
    found = [load_training_record(tmp_path / search / CELL) for search in ("full", "halving")]
    assert found[0] == found[1]
    assert found[0].steps == 6


def test_an_unknown_search_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"methods\.pemt: key 'search' is 'half'"):
        method_of("pemt", {"search": "half"}, _shared(), "methods.pemt")


def _shared() -> dict[str, Any]:
    values: dict[str, Any] = transfer_settings().methods["pemt"]
    return {name: value for name, value in values.items() if name not in ("kind", "sources", "without", "gate")}


# --- options


def test_the_kept_option_is_described_and_restored(world: World, tmp_path: Path, chosen: None) -> None:
    """Its source is in the settings, its expert alone in the hash; the key is that of the method with all options."""
    changes: dict[str, Any] = {"methods": {"chosen": {}}, "learning_rates": [0.1, 0.01], "epochs": 1, "answer": "score"}
    world.transfer(tmp_path / "out", **changes)
    cell = tmp_path / "out" / "chosen-kfull-seed4096"
    backbone = load_backbone(world.folder / "backbone")
    bank = load_experts(world.folder / "experts", backbone)
    adapter, record = load_target(cell, "gamma", backbone, bank), load_training_record(cell)
    assert list(record.trials) == ["alpha, 0.1", "alpha, 0.01", "beta, 0.1", "beta, 0.01"]
    source = adapter.description.settings["source"]
    assert record.trials[f"{source}, {record.learning_rate:g}"] == max(record.trials.values())
    assert adapter.description.sources == [source]
    assert adapter.description.experts == bank.mixture_hash([source])
    assert list(restore_target(backbone.model, adapter, bank).detach().parameters())
    assert world.transfer(tmp_path / "out", **changes).trained == []

    alone = {**changes, "methods": {"chosen": {"source": source}}, "learning_rates": [record.learning_rate]}
    assert len(world.transfer(tmp_path / "alone", **alone).trained) == 1
    same = tmp_path / "alone" / "chosen-kfull-seed4096"
    assert (same / "adapter.safetensors").read_bytes() == (cell / "adapter.safetensors").read_bytes()
    keys = {load_adapter(each, backbone.fingerprint, TargetDescription).description.key for each in (cell, same)}
    assert len(keys) == 2


def test_options_are_named_by_what_differs() -> None:
    method = method_of("pemt", {}, _shared(), "methods.pemt")
    assert labels_of([method]) == [""]
    pairs = [{"sources": ["mnli", "qqp"], "reduction_factor": 4}, {"sources": ["squad"], "reduction_factor": 8}]
    assert labels_of([method.model_copy(update=each) for each in pairs]) == ["mnli+qqp 4", "squad 8"]


def test_prompt_text_and_learning_rate_factors_reach_training(world: World, tmp_path: Path, chosen: None) -> None:
    """With a factor of 0 the prompt stays at the embeddings of the text's tokens; all other tensors move."""
    entry = {"source": "alpha", "text": "red stone river", "still": "prompt"}
    world.transfer(tmp_path / "out", methods={"chosen": entry}, epochs=1)
    backbone = load_backbone(world.folder / "backbone")
    bank = load_experts(world.folder / "experts", backbone)
    adapter = load_target(tmp_path / "out" / "chosen-kfull-seed4096", "gamma", backbone, bank)
    assert adapter.description.prompt == load_task_description(world.folder / "data" / "gamma").description
    ids = backbone.tokenizer("red stone river")["input_ids"]
    assert torch.equal(adapter.tensors["prompt"], backbone.model.shared.weight[ids].detach())
    moved = {name for name, tensor in adapter.tensors.items() if name.endswith(".gate") and tensor.any()}
    assert moved or len(adapter.description.sources) == 1  # a single expert has weight 1, whatever its gate
    ups = [tensor for name, tensor in adapter.tensors.items() if name.endswith("up") or name.endswith("up.weight")]
    assert ups
    assert all(tensor.any() for tensor in ups)


def test_factors_of_tensors_that_are_not_trained_are_an_error() -> None:
    model = Line()
    groups = make_optimizer(model.trained, 0.1, {"weight": 0.5}).param_groups
    assert [(group["factor"], len(group["params"])) for group in groups] == [(0.5, 1)]
    with pytest.raises(ValueError, match=r"factors of \['wieght'\], which are not among the trained tensors"):
        make_optimizer(model.trained, 0.1, {"wieght": 0.5})


def test_the_count_is_that_of_an_option(chosen: None) -> None:
    backbone = tiny_t5()
    method = method_of("chosen", {"kind": "chosen"}, _shared(), "methods.chosen")
    known = [expert.task for expert in random_experts(backbone, 3)]
    (one,) = {trained_parameters(option, backbone, known, 3, 100) for option in method.options(known)}
    assert trained_parameters(method, backbone, known, rank=3, prompt_length=100) == one


# --- costs, and cells that are not listed


def test_costs_are_beside_the_cell_and_change_nothing_in_it(world: World, tmp_path: Path) -> None:
    costs, out = tmp_path / "costs", tmp_path / "out"
    world.transfer(tmp_path / "without", max_steps=2)
    world.transfer(out, costs=costs, max_steps=2)
    assert files(tmp_path / "without") == files(out)
    before = files(costs)
    assert list(before) == [f"{CELL}.json"]
    assert world.transfer(out, costs=costs, max_steps=2).trained == []
    assert files(costs) == before
    assert load_cost(costs, out / CELL).steps == 2

    world.transfer(tmp_path / "longer", max_steps=3)
    with pytest.raises(ArtifactError, match=r"not of the training that .* holds"):
        load_cost(costs, tmp_path / "longer" / CELL)
    change_record(costs / f"{CELL}.json", steps="two", extra=1)
    with pytest.raises(ArtifactError, match="not the cost of a training"):
        load_cost(costs, out / CELL)
    (costs / f"{CELL}.json").unlink()
    with pytest.raises(ArtifactError, match="no such file"):
        load_cost(costs, out / CELL)


def test_the_seconds_of_a_resumed_training_add_up(tmp_path: Path) -> None:
    options: dict[str, Any] = {"epochs": 3, "evaluate_every": 4}
    first = trainer(Line(), Points.make(32, 4), tmp_path, **options).fit(FIRST_ROUND)
    last = trainer(Line(), Points.make(32, 4), tmp_path, **options).fit()
    assert 0 < first.seconds < last.seconds
    done = trainer(Line(), Points.make(32, 4), tmp_path, **options).fit()
    assert done.seconds == last.seconds


def test_cells_that_are_not_listed_may_be_kept(world: World, tmp_path: Path) -> None:
    def cells() -> list[str]:
        return sorted(path.name for path in (tmp_path / "out").iterdir())

    brief: dict[str, Any] = {"max_steps": 1, "seeds": [1]}
    world.transfer(tmp_path / "out", methods=["pemt"], **brief)
    world.transfer(tmp_path / "out", methods={"control": METHODS["control"]}, keep_others=True, **brief)
    assert cells() == ["control-kfull-seed1", "pemt-kfull-seed1"]
    world.transfer(tmp_path / "out", methods={"control": METHODS["control"]}, **brief)
    assert cells() == ["control-kfull-seed1"]
