"""`dvc repro` on real datasets: which stages run, which are reused, and what a clone restores.

All tests share one full run: each works on a copy of its project, DVC's cache and tracking store.
"""

import csv
import io
import json
import re
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from workspace import FORK_SERVER, SOURCES, TARGETS, TINY, Repro, Workspace, executed_stages, new_workspace

pytestmark = [pytest.mark.slow, pytest.mark.mirror]

ALL_STAGES = [
    "plan",
    "prepare",
    "backbone",
    *(f"train_source@{source}" for source in SOURCES),
    "collect_experts",
    *(f"transfer@{target}" for target in TARGETS),
    "evaluate",
    "record",
    "register",
    "report",
]
ENDS = ALL_STAGES[-3:]
OUTPUTS = ("adapters", "backbone", "data", "experts", "plan", "provenance", "results", "scores")
CELL = "pemt-kfull-seed4096"
LONGER = {"per_target": {"cb": {"training": {"max_steps": 8}}}}  # the change that several tests make


@dataclass(frozen=True)
class Finished:
    """A project whose pipeline has run and whose results are committed."""

    workspace: Workspace
    first: Repro
    changed: str  # the output of git status before the commit


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, mirror: Path) -> Finished:
    root = tmp_path_factory.mktemp("pipeline")
    settings = [TINY, {"prepare": {"source": str(mirror)}}]
    workspace = new_workspace(root / "project", root / "caches", settings)
    first = workspace.repro(forks=True)
    changed = workspace.run("git", "status", "--porcelain", "--untracked-files=all").stdout
    workspace.commit("results")
    return Finished(workspace, first, changed)


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Workspace:
    return finished.workspace.copy(tmp_path / "project")


@pytest.fixture(scope="module")
def experiment(finished: Finished, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str]:
    """A copy in which an experiment changed a setting of one target, and the output of that experiment."""
    workspace = finished.workspace.copy(tmp_path_factory.mktemp("experiment") / "project")
    command = ["dvc", "exp", "run", "--name", "longer", "-S", "+per_target.cb.training.max_steps=8"]
    done = workspace.run(*FORK_SERVER, *command)
    return workspace, done.stdout + done.stderr


def contents(workspace: Workspace, *names: str) -> dict[str, bytes]:
    """Read every file below the named folders; the keys are paths relative to the project."""
    files = [path for name in names for path in sorted((workspace.folder / name).rglob("*")) if path.is_file()]
    return {str(path.relative_to(workspace.folder)): path.read_bytes() for path in files}


def scored(output: str) -> list[str]:
    """List the targets for which evaluate scored at least one cell."""
    return [target for target, count in re.findall(r"evaluate (\w+): (\d+) of \d+ cells", output) if int(count)]


def table(workspace: Workspace) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((workspace.folder / "results" / "table.csv").read_text())))


# The first run


def test_the_first_run_writes_the_table(finished: Finished) -> None:
    assert finished.first.executed == ALL_STAGES
    rows = table(finished.workspace)
    assert [(row["suite"], row["target"]) for row in rows] == [("GLUE", "rte"), ("MRQA", "nq"), ("SuperGLUE", "cb")]
    for row in rows:
        result = json.loads((finished.workspace.folder / "scores" / row["target"] / CELL / "result.json").read_text())
        assert float(row["mean"]) == pytest.approx(result["test"][row["metric"]], abs=1e-6)
        assert (row["test_rows"], row["test_rows_available"], row["seeds"]) == ("10", "12", "1")
    markdown = (finished.workspace.folder / "results" / "table.md").read_text()
    assert all(f"| {target} |" in markdown for target in TARGETS)
    page = (finished.workspace.folder / "results" / "report.html").read_text()
    started = json.loads((finished.workspace.folder / "provenance" / "transfer" / "cb.json").read_text())["started"]
    assert started in page


def test_every_target_has_a_champion(finished: Finished) -> None:
    provenance = json.loads((finished.workspace.folder / "provenance" / "register.json").read_text())
    assert provenance["champions"] == {f"pemt-{target}": 1 for target in TARGETS}


def test_git_sees_only_the_lock_and_the_metrics(finished: Finished) -> None:
    assert finished.changed.splitlines() == ["?? dvc.lock", "?? results/summary.json"]
    assert not [p for p in finished.workspace.folder.rglob(".gitignore") if p.parent.name in (*OUTPUTS, "sources")]


def test_a_second_run_does_nothing(finished: Finished) -> None:
    again = finished.workspace.repro()
    assert again.executed == []
    assert "Data and pipelines are up to date." in again.output


def test_inputs_of_later_steps_do_not_depend_on_the_run(finished: Finished) -> None:
    """Commit, time and host would make equal results look different, so only provenance holds them."""
    folder = finished.workspace.folder
    commit = finished.workspace.run("git", "rev-parse", "HEAD~1").stdout.strip()
    read = contents(finished.workspace, *(name for name in OUTPUTS if name not in ("provenance", "results")))
    texts = {path: data for path, data in read.items() if Path(path).suffix in (".json", ".jsonl", ".txt")}
    assert {"adapters/sources/mnli/adapter.json", "backbone/backbone.json", "experts/experts.json"} <= set(texts)
    for path, data in texts.items():
        assert not re.search(rb"20\d\d-\d\d-\d\d[T ]\d\d:\d\d", data) or path.startswith(("data/", "scores/")), path
        assert not [word for word in (commit, socket.gethostname(), str(folder)) if word.encode() in data], path
        keys = keys_of(json.loads(data)) if path.endswith(".json") else set()
        assert not keys & {"commit", "time", "date", "started", "seconds", "host", "hostname", "run_id"}, path
    for path in (
        "plan",
        "prepare",
        "backbone",
        "train_source/mnli",
        "collect_experts",
        "transfer/cb",
        "evaluate",
        "record",
        "register",
        "report",
    ):
        facts = json.loads((folder / "provenance" / f"{path}.json").read_text())
        assert facts["commit"].startswith(commit)
        assert {"started", "seconds", "peak_memory_mib", "versions", "python"} <= set(facts)


def keys_of(value: Any) -> set[str]:
    """Collect all keys of nested JSON."""
    if isinstance(value, dict):
        return {*value, *(key for inner in value.values() for key in keys_of(inner))}
    return {key for inner in value for key in keys_of(inner)} if isinstance(value, list) else set()


# What runs again


def test_a_setting_of_one_target_reruns_only_that_target(experiment: tuple[Workspace, str], finished: Finished) -> None:
    workspace, output = experiment
    assert executed_stages(output) == ["plan", "transfer@cb", "evaluate", *ENDS]
    assert scored(output) == ["cb"]
    before, after = (contents(each, "scores", "adapters") for each in (finished.workspace, workspace))
    changed = {path for path in before if before[path] != after[path]}
    assert changed
    assert changed <= {path for path in before if "/cb/" in path}
    record = json.loads(after[f"adapters/targets/cb/{CELL}/training.json"])
    assert record["steps"] == 8


def test_a_changed_record_retrains_what_depends_on_its_data(copy: Workspace, finished: Finished) -> None:
    before = contents(copy, "data", "scores")
    # the same words in another order, so that the tokenizer, which is trained on descriptions too, does not change
    copy.replace(
        "pemt_core/tasks/glue.py", "the first one entails the second one", "the second one entails the first one"
    )
    again = copy.repro(forks=True)
    assert again.executed == ["plan", "prepare", "transfer@rte", "evaluate", *ENDS]
    assert scored(again.output) == ["rte"]
    after = contents(copy, "data", "scores")
    changed = {path for path in before if before[path] != after[path]}
    assert "data/rte/task.json" in changed
    assert {path.split("/")[1] for path in changed} == {"rte"}


def test_code_changes_without_effect_on_data_rerun_few_stages(copy: Workspace) -> None:
    """Other code for a record reruns only prepare; another word in the report reruns only the report.

    A comment in the code reruns only the plan.
    """
    copy.replace("pemt_core/tasks/glue.py", "\nRTE = Task(", "\nUNUSED = 1\nRTE = Task(")
    copy.replace("pemt_core/model/gate.py", "class Gate(", "# a comment\nclass Gate(")
    copy.replace("pemt_core/report/markdown.py", "# Results", "# Scores")
    again = copy.repro(forks=True)
    assert again.executed == ["plan", "prepare", *ENDS]
    assert (copy.folder / "results" / "table.md").read_text().startswith("# Scores\n")


def test_a_killed_stage_resumes_and_gives_the_same_results(copy: Workspace, experiment: tuple[Workspace, str]) -> None:
    copy.change_settings(LONGER)
    kill_in_transfer(copy)
    assert steps_of(copy) == 3  # the earlier cell stays complete until the new one replaces it
    again = copy.repro(forks=True)
    assert again.executed == ["transfer@cb", "evaluate", *ENDS]
    resumed = re.search(r"resumed after step (\d) of 8", again.output)
    assert resumed
    assert int(resumed[1]) >= 1
    files = [contents(workspace, "adapters", "scores", "results") for workspace in (copy, experiment[0])]
    assert files[0].pop("results/report.html") != files[1].pop("results/report.html")  # the page describes the run
    assert files[0] == files[1]
    assert [path.name for path in (copy.folder / "checkpoints").iterdir()] == ["finished"]
    runs = [run for run in runs_in(copy) if run.cell == "transfer/cb/pemt/k=full/seed=4096"]
    assert [run.status for run in runs] == ["FINISHED", "FINISHED"]  # with the earlier setting and with the new one


def steps_of(workspace: Workspace) -> int:
    cell = workspace.folder / "adapters" / "targets" / "cb" / CELL
    steps: int = json.loads((cell / "training.json").read_text())["steps"]
    return steps


def test_cells_are_trained_once(copy: Workspace) -> None:
    """The trained cells are those that the output of a target's transfer names."""

    def trained(differences: dict[str, Any]) -> set[str]:
        copy.change_settings(differences)
        executed = copy.repro("transfer@cb").executed
        facts = json.loads((copy.folder / "provenance" / "transfer" / "cb.json").read_text())
        return set(facts["trained"]) if "transfer@cb" in executed else set()

    def cells(method: str, *seeds: int) -> set[str]:
        return {f"cb/{method}-kfull-seed{seed}" for seed in seeds}

    assert trained({"transfer": {"seeds": [4096, 7]}}) == cells("pemt", 7)
    two = {"methods": {"control": {"kind": "pemt", "sources": []}}, "transfer": {"methods": ["pemt", "control"]}}
    assert trained(two) == cells("control", 4096, 7)
    assert trained({"methods": {"control": {"source_length": 32}}}) == cells("control", 4096, 7)
    assert trained({"transfer": {"methods": ["pemt"], "seeds": [4096]}}) == set()
    assert {path.name for path in (copy.folder / "adapters" / "targets").glob("*/*")} == {CELL}
    copy.replace("pemt_core/report/markdown.py", "# Results", "# Scores")
    copy.replace("pemt_core/steps/register.py", "logger = ", "unused = 1\nlogger = ")
    assert trained({}) == set()
    assert copy.repro(forks=True).executed == ENDS


def kill_in_transfer(workspace: Workspace) -> None:
    """Start `dvc repro` and kill the transfer program once it has written its first checkpoint."""
    command = psutil.Popen(
        ["dvc", "repro"], cwd=workspace.folder, env=dict(workspace.environment),
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_for_checkpoint(workspace, command)
        for child in command.children(recursive=True):
            if child.name().startswith("python") and "components.transfer" in child.cmdline():
                child.send_signal(signal.SIGKILL)
        _, errors = command.communicate(timeout=60)
    finally:
        if command.poll() is None:
            command.kill()
    assert command.returncode != 0
    assert "failed to reproduce 'transfer@cb'" in errors


def wait_for_checkpoint(workspace: Workspace, command: psutil.Popen) -> None:
    deadline = time.monotonic() + 120
    while not list(workspace.folder.glob("checkpoints/*/state.safetensors")):
        assert command.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


# DVC's commands


def test_an_experiment_is_kept_with_its_changed_setting(experiment: tuple[Workspace, str]) -> None:
    workspace, _ = experiment
    params = json.loads(workspace.run("dvc", "params", "diff", "--json").stdout)
    assert params == {"params.yaml": {"per_target.cb.training.max_steps": {"old": None, "new": 8}}}
    shown = json.loads(workspace.run("dvc", "exp", "show", "--json").stdout)
    assert [found["name"] for row in shown for found in row["experiments"] or []] == ["longer"]
    assert workspace.run("dvc", "exp", "diff", "HEAD", "longer").stdout.count("per_target.cb.training.max_steps") == 1


def test_scores_and_their_differences_are_shown(copy: Workspace) -> None:
    summary = copy.folder / "results" / "summary.json"
    values = json.loads(summary.read_text())
    assert set(values["pemt"]) == {"all", "GLUE", "MRQA", "SuperGLUE", *TARGETS}
    shown = json.loads(copy.run("dvc", "metrics", "show", "--json").stdout)
    assert shown[""]["data"]["results/summary.json"]["data"] == values
    values["pemt"]["cb"] += 12.5  # after three training steps all scores are 0, so change one
    summary.write_text(json.dumps(values))
    (change,) = json.loads(copy.run("dvc", "metrics", "diff", "--json").stdout)["results/summary.json"].items()
    assert (change[0], change[1]["diff"]) == ("pemt.cb", 12.5)


def test_curves_and_graph_are_drawn(copy: Workspace) -> None:
    compared = json.loads(copy.run("dvc", "plots", "diff", "--json", "HEAD").stdout)["data"]
    assert set(compared) == {
        "Main metric by target",
        *(f"results/{name}.png" for name in ("curves", "expert_weights", "parameters")),
    }
    (plot,) = compared["Main metric by target"]
    assert plot["revisions"] == ["workspace", "HEAD"]
    points = plot["content"]["data"]["values"]
    assert {point["target"] for point in points if point["rev"] == "workspace"} == set(TARGETS)
    assert len(list((copy.folder / "dvc_plots").rglob("*.png"))) == 6

    graph = copy.run("dvc", "dag", "--mermaid").stdout
    assert sorted(re.findall(r'\["(.+)"\]', graph)) == sorted(ALL_STAGES)


# Clone and tracking store


@dataclass(frozen=True)
class StoredRun:
    """A run as stored in the tables of the tracking store."""

    cell: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]  # final values


def runs_in(workspace: Workspace) -> list[StoredRun]:
    """Read the runs that are not deleted, ordered by cell, with SQL and independently of the tracker."""
    with closing(sqlite3.connect(workspace.folder / "mlflow.db")) as database:
        listed = database.execute("SELECT run_uuid, status FROM runs WHERE lifecycle_stage = 'active'").fetchall()
        return sorted(stored_runs(database, listed), key=lambda run: run.cell)


def stored_runs(database: sqlite3.Connection, listed: list[tuple[str, str]]) -> Iterator[StoredRun]:
    for run_id, status in listed:
        tags, params, metrics = (
            dict(database.execute(f"SELECT key, value FROM {name} WHERE run_uuid = ?", (run_id,)).fetchall())
            for name in ("tags", "params", "latest_metrics")
        )
        yield StoredRun(tags["pemt.cell"], status, tags, params, metrics)


def test_a_clone_restores_everything_from_a_remote(finished: Finished, copy: Workspace, tmp_path: Path) -> None:
    copy.run("dvc", "remote", "add", "--default", "store", str(tmp_path / "remote"))
    copy.commit("a remote")
    copy.run("dvc", "push")
    clone = copy.clone(tmp_path / "clone")
    clone.run("dvc", "pull")
    assert contents(clone, *OUTPUTS) == contents(copy, *OUTPUTS)
    assert clone.run("dvc", "status").stdout.strip() == "Data and pipelines are up to date."
    assert clone.repro().executed == []
    assert clone.run("git", "status", "--porcelain").stdout == ""

    assert not (clone.folder / "mlflow.db").exists()
    assert clone.repro("--force", "--single-item", "record").executed == ["record"]
    live = {run.cell: run for run in runs_in(finished.workspace)}
    restored = {run.cell: run for run in runs_in(clone)}
    cells = {f"train_source/{source}" for source in SOURCES} | {
        f"transfer/{target}/pemt/k=full/seed=4096" for target in TARGETS
    }
    above = {"report/pemt k=full", "report/sources"}
    assert set(restored) == cells | above
    assert set(live) == cells | above | {"backbone"}
    for cell, run in restored.items():
        assert run.status == live[cell].status == "FINISHED"
        assert run.params == live[cell].params
        assert run.metrics == pytest.approx(live[cell].metrics)
        assert {key: run.tags[key] for key in run.tags if key.startswith("pemt.")} == {
            key: value for key, value in live[cell].tags.items() if key.startswith("pemt.")
        }


def test_runs_hold_the_values_of_the_result_files(finished: Finished) -> None:
    folder = finished.workspace.folder
    commit = finished.workspace.run("git", "rev-parse", "HEAD~1").stdout.strip()
    for run in runs_in(finished.workspace):
        step, _, rest = run.cell.partition("/")
        assert run.tags["pemt.step"] == step
        assert step == "report" or run.tags["pemt.commit"].startswith(commit)
        if step == "transfer":
            target = rest.split("/")[0]
            result = json.loads((folder / "scores" / target / CELL / "result.json").read_text())
            assert run.metrics["test/main"] == result["test"][result["main_metric"]]
            assert run.metrics["trained_parameters"] == result["trained_parameters"]
            assert (run.tags["pemt.suite"], run.tags["pemt.data"]) == (result["suite"], result["data"])
            assert run.tags["pemt.backbone"] == result["backbone"]
            assert float(run.params["learning_rate"]) == result["learning_rate"]
            assert run.params["settings.training.max_steps"] == str(result["settings"]["training"]["max_steps"])
            assert (folder / run.tags["pemt.result_path"] / "result.json").is_file()


def test_a_changed_setting_makes_a_new_run(experiment: tuple[Workspace, str]) -> None:
    runs = runs_in(experiment[0])
    keys = [(run.cell, run.tags.get("pemt.key")) for run in runs if run.tags["pemt.step"] != "report"]
    assert len(keys) == len(set(keys)) == 7
    assert len({cell for cell, _ in keys}) == 6
    current = [run.tags["pemt.current"] for run in runs if run.cell == "report/pemt k=full"]
    assert sorted(current) == ["false", "true"]  # the earlier summary is kept for comparison
    of_cb = [run for run in runs if "/cb/" in run.cell]
    assert sorted((run.status, run.params["settings.training.max_steps"]) for run in of_cb) == [
        ("FINISHED", "3"),
        ("FINISHED", "8"),
    ]
    assert len({run.tags["mlflow.parentRunId"] for run in of_cb}) == 2


def test_a_failed_preparation_leaves_the_earlier_data(copy: Workspace) -> None:
    """Nothing but the plan runs once the settings are as before."""
    before = contents(copy, "data", "provenance")
    copy.change_settings({"tasks": {"targets": [*TARGETS, "searchqa"]}})
    done = copy.run("dvc", "repro", "prepare", check=False)
    assert done.returncode != 0
    after = contents(copy, "data", "provenance")
    assert {path for path in before if before[path] != after.get(path)} == {"provenance/plan.json"}
    copy.run("git", "checkout", "params.yaml")
    assert copy.repro().executed == ["plan"]


def test_a_dataset_that_the_mirror_lacks_is_named(finished: Finished, tmp_path: Path) -> None:
    clone = finished.workspace.clone(tmp_path / "clone")
    clone.change_settings({"tasks": {"sources": ["mnli"], "targets": ["searchqa"]}})
    done = clone.run("dvc", "repro", "prepare", check=False)
    assert done.returncode != 0
    assert "error: mrqa-workshop/mrqa (plain_text) has no rows of subset 'SearchQA' in split 'train'" in done.stderr
    assert "its subsets are HotpotQA, NaturalQuestionsShort" in done.stderr
    assert "Traceback" not in done.stderr
