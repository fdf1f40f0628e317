"""Parent runs that compare methods in a real store, their children and earlier states, read by MLflow's client."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import pytest
import scipy.stats
from matplotlib.image import imread
from tiny import World, change_record

from pemt_core.artifacts.cell import Cell
from pemt_core.artifacts.result import load_results
from pemt_core.report.names import MethodNames
from pemt_core.report.table import Tables
from pemt_core.settings import EvaluateSettings, ReportSettings
from pemt_core.steps.record import record
from pemt_core.tracking import Tracker, connect
from pemt_core.tracking.comparison import record_comparison
from pemt_core.tracking.gather import gather
from pemt_core.tracking.results import publish_results, record_results
from pemt_core.tracking.store import Store

CONTROL, PEMT = "control k=full", "pemt k=full"
REPORT = ReportSettings(confidence=0.95, layer_groups=2)
SCORING = EvaluateSettings(answer="generate", batch_size=8, precision="float32", max_rows=None)


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create a database without experiments once, since creating one takes seconds."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def tracker(tmp_path: Path, empty_store: Path) -> Tracker:
    return opened(tmp_path, empty_store)


def opened(folder: Path, empty_store: Path) -> Tracker:
    shutil.copyfile(empty_store, folder / "mlflow.db")
    return connect("sqlite:///mlflow.db", "pemt", folder, "stop")


class Reader:
    """The content of the store in a folder, read by MLflow."""

    def __init__(self, folder: Path) -> None:
        from mlflow import MlflowClient

        self.folder, self.client = folder, MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")

    def runs(self, condition: str = "") -> list[Any]:
        return list(self.client.search_runs([self.experiment.experiment_id], condition))

    @property
    def experiment(self) -> Any:
        return self.client.get_experiment_by_name("pemt")

    def parents(self, current: str = "true") -> dict[str, Any]:
        return {run.info.run_name: run for run in self.runs(f"tags.`pemt.current` = '{current}'")}

    def children(self, run: Any) -> set[str]:
        return {child.info.run_name for child in self.runs(f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")}

    def state(self) -> list[Any]:
        everything = [run.to_dictionary() for run in self.runs()]
        return [sorted(everything, key=lambda run: run["info"]["run_id"]), dict(self.experiment.tags)]


def scores_in(folder: Path, method: str, seed: int) -> dict[str, float]:
    """Read the main metric of each target from the result files."""
    found = {}
    for path in folder.glob(f"*/{method}-kfull-seed{seed}/result.json"):
        result = json.loads(path.read_text())
        found[result["task"]] = result["test"][result["main_metric"]]
    return found


def changed_scores(scored: World, folder: Path, changes: Mapping[str, float]) -> Path:
    """Copy the results and change the scores of PEMT with seed 1 on the named targets."""
    shutil.copytree(scored.folder / "scores", folder)
    for target, score in changes.items():
        path = folder / target / "pemt-kfull-seed1" / "result.json"
        change_record(path, test={"accuracy": score})
    return folder


def tables_in(folder: Path, failed: Sequence[str] = ()) -> Tables:
    return Tables.of(load_results(folder), MethodNames({}, {}), 0.95, failed=failed)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, empty_store: Path, scored: World) -> Reader:
    """A store to which the world's results were written once."""
    folder = tmp_path_factory.mktemp("shown")
    scored.record(opened(folder, empty_store))
    return Reader(folder)


def test_each_method_has_a_parent_run_of_its_cells(shown: Reader, scored: World) -> None:
    store = shown
    parents = store.parents()
    assert set(parents) == {PEMT, CONTROL, "sources"}
    assert store.children(parents["sources"]) == {"alpha source", "beta source"}
    for method, name in (("pemt", PEMT), ("control", CONTROL)):
        run = parents[name]
        cells = {f"{target} {method} k=full seed={seed}" for target in World.SCORED for seed in (1, 2)}
        assert store.children(run) == cells
        per_seed = [scores_in(scored.folder / "scores", method, seed) for seed in (1, 2)]
        means = [fmean(scores.values()) for scores in per_seed]
        metrics = run.data.metrics
        assert metrics["mean/All"] == metrics["mean/Others"] == pytest.approx(fmean(means), abs=1e-4)
        half = scipy.stats.t.ppf(0.975, 1) * stdev(means) / 2**0.5
        assert metrics["mean_half_width/All"] == pytest.approx(half, abs=1e-4)
        for target in World.SCORED:
            assert metrics[f"target/{target}"] == pytest.approx(fmean(s[target] for s in per_seed), abs=1e-4)
            assert (
                f"| {target} | accuracy | {metrics[f'target/{target}']:.1f} |" in run.data.tags["mlflow.note.content"]
            )
        points = store.client.get_metric_history(run.info.run_id, "mean/All")
        assert [point.step for point in points] == [0]  # at any other step MLflow draws a line of one point
        assert (run.data.params["method"], run.data.params["seeds"]) == (method, "[1, 2]")
        assert run.data.params["settings.training.batch_size"] == "4"
    before = store.state()
    scored.record(connect("sqlite:///mlflow.db", "pemt", store.folder, "stop"))
    assert store.state() == before


def test_pages_have_images_datasets_and_the_table(shown: Reader, scored: World) -> None:
    store = shown
    parents = store.parents()
    (cell,) = [run for run in store.runs() if run.info.run_name == "delta pemt k=full seed=2"]
    (other,) = [run for run in store.runs() if run.info.run_name == "delta control k=full seed=2"]
    for run, images in (
        (parents[PEMT], ["learning_curves.png", "expert_weights.png"]),
        (parents[CONTROL], ["learning_curves.png"]),
        (cell, ["expert_weights.png"]),
        (other, []),
    ):
        files = store.folder / "mlartifacts" / run.info.run_id / "artifacts"
        assert {path.name for path in files.glob("*.png")} == set(images)
        note = run.data.tags["mlflow.note.content"]
        assert note.count("![") == len(images)
        for name in images:
            assert f"(get-artifact?path={name}&run_uuid={run.info.run_id})" in note
            height, width = imread(files / name).shape[:2]
            assert width <= 760
            assert height > 100
    (dataset,) = [one.dataset for one in cell.inputs.dataset_inputs]
    description = json.loads((scored.folder / "targets" / "delta" / "pemt-kfull-seed2" / "adapter.json").read_text())
    assert (dataset.name, dataset.digest) == ("delta", description["data"][:12])
    assert [one.dataset.digest for one in other.inputs.dataset_inputs] == [dataset.digest]
    sources = store.runs("tags.`pemt.step` = 'train_source' AND tags.`pemt.task` != ''")
    assert {one.dataset.name for run in sources for one in run.inputs.dataset_inputs} == {"alpha", "beta"}

    tags = store.experiment.tags
    means = {name: run.data.metrics["mean/All"] for name, run in parents.items() if name != "sources"}
    for name, mean in means.items():
        assert f"{name}: **{mean:.1f}**" in tags["mlflow.note.content"].partition("\n")[0]
    assert "| Target | k | control | pemt |" in tags["mlflow.note.content"]
    view = json.loads(json.loads(tags["mlflow.sharedViewState.methods"])["state"])
    assert sorted(run.info.run_name for run in store.runs(view["searchFilter"])) == sorted(means)
    for column in view["selectedColumns"]:
        assert column.removeprefix("metrics.`").removesuffix("`") in parents[PEMT].data.metrics


def test_changed_results_keep_the_earlier_parent(tmp_path: Path, tracker: Tracker, scored: World) -> None:
    scored.record(tracker)
    store = Reader(tmp_path)
    first = store.parents()
    mean, children = first[PEMT].data.metrics["mean/All"], store.children(first[PEMT])
    better = changed_scores(scored, tmp_path / "better", {"gamma": 100.0, "delta": 100.0, "epsilon": 100.0})
    scored.record(tracker, better)
    second, earlier = store.parents(), store.parents("false")
    assert second[CONTROL].info.run_id == first[CONTROL].info.run_id
    assert second["sources"].info.run_id == first["sources"].info.run_id
    assert {name: run.info.run_id for name, run in earlier.items()} == {PEMT: first[PEMT].info.run_id}
    assert earlier[PEMT].data.metrics["mean/All"] == mean
    assert second[PEMT].data.metrics["mean/All"] > mean
    assert store.children(second[PEMT]) == children
    assert store.children(earlier[PEMT]) == set()

    scored.record(tracker)  # as after `git checkout` and `dvc repro`: the earlier results are back
    assert {name: run.info.run_id for name, run in store.parents().items()} == {
        name: run.info.run_id for name, run in first.items()
    }
    assert {run.info.run_id for run in store.parents("false").values()} == {second[PEMT].info.run_id}
    assert store.children(first[PEMT]) == children


def test_the_next_record_completes_an_interrupted_one(
    tmp_path: Path, tracker: Tracker, scored: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: Any) -> None:
        raise KeyboardInterrupt

    store = Reader(tmp_path)
    for count, cut_off in enumerate(["add_image", "end"], start=1):
        scores = changed_scores(scored, tmp_path / cut_off, {"gamma": float(count)})
        record_results(load_results(scores), scores, tracker, tmp_path)
        with monkeypatch.context() as patch:
            patch.setattr(Store, cut_off, killed)
            with pytest.raises(KeyboardInterrupt):
                record_comparison(tables_in(scores), REPORT, tracker)
        record_comparison(tables_in(scores), REPORT, tracker)
        assert {run.info.status for run in store.runs()} == {"FINISHED"}
        assert len([run for run in store.runs() if run.info.run_name == PEMT]) == count
        assert len(store.children(store.parents()[PEMT])) == 6


def test_runs_of_a_cluster_get_their_parents(tmp_path: Path, tracker: Tracker, scored: World) -> None:
    """The report of a cluster has no adapters, and the runs of its cells have the key of their branch."""
    for target in World.SCORED:
        for seed in (1, 2):
            branch = tmp_path / f"{target}-{seed}"
            for method in ("pemt", "control"):
                name = Cell(target, method, "full", seed).name
                shutil.copytree(scored.folder / "scores" / target / name, branch / target / name)
            publish_results(load_results(branch), branch, SCORING, tracker.of_plan(f"key-{target}-{seed}"), tmp_path)
    cells = [
        (f"key-{target}-{seed}", Cell(target, method, "full", seed))
        for target in World.SCORED
        for method in ("pemt", "control")
        for seed in (1, 2)
    ]
    gathered = tmp_path / "gathered"
    assert gather(cells, SCORING, tracker, results_dir=gathered) == []
    tables = tables_in(gathered, failed=["zeta: its training failed"])
    assert record(tables, gathered, [], REPORT, tracker, tmp_path) == 14  # the pages of existing runs, and the parents
    store = Reader(tmp_path)
    parents = store.parents()
    assert set(parents) == {PEMT, CONTROL}  # the sources were trained without a store
    assert {name: len(store.children(run)) for name, run in parents.items()} == {PEMT: 6, CONTROL: 6}
    assert "- zeta: its training failed" in store.experiment.tags["mlflow.note.content"]
    assert len(store.runs()) == 14


def test_without_a_store_nothing_is_written(scored: World) -> None:
    scores = scored.folder / "scores"
    assert record(tables_in(scores), scores, [], REPORT, Tracker(None, "continue"), scored.folder) == 0
