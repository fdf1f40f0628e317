"""A run on a cluster without one: its plan, programs told as Kubeflow tells them, and what its report finds."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from source_code import REPOSITORY
from test_components import run_here, write_params
from tiny import World

from pemt_core.artifacts.cell import Cell
from pemt_core.errors import SettingsError
from pemt_core.settings import (
    GROUPS_OF_STEP,
    Choices,
    Settings,
    load_settings,
    parse_settings,
    parse_step_settings,
    read_params,
    settings_text,
)
from pemt_core.steps.plan import Branch, Plan, make_plan

VALUES = read_params(REPOSITORY / "params.yaml")


def settings_with(choices: Mapping[str, Any] | None = None, **differences: Any) -> Settings:
    values = Choices.parse(json.dumps(choices or {})).laid_over({**VALUES, **differences})
    return parse_settings(values, "test")


# Choices


def test_choices_go_before_what_the_recipe_says() -> None:
    """Kubeflow writes whole numbers as floats; a recipe's own k and seeds give way."""
    chosen = settings_with({"recipe": "paper", "targets": ["cb"], "k": [16.0, "full"], "seeds": [1.0, 2.0]})
    assert (chosen.recipe, chosen.tasks.targets, chosen.tasks.sources) == ("paper", ["cb"], VALUES["tasks"]["sources"])
    assert (chosen.transfer.k, chosen.transfer.seeds) == ([16, "full"], [1, 2])
    assert chosen.transfer.learning_rates == VALUES["recipes"]["paper"]["transfer"]["learning_rates"]


def test_methods_of_targets_that_are_not_chosen_do_not_matter() -> None:
    """The study leaves mnli out for cb: a run without either is fine, one with cb alone is not."""
    settings = settings_with({"recipe": "study", "sources": ["squad", "sst2"], "targets": ["nq"]})
    assert settings.transfer_for("nq").methods == ["pemt", "control", "without_squad", "without_sst2"]
    with pytest.raises(SettingsError, match=r"per_target\.cb\.methods\.2' is 'without_mnli': no such method"):
        settings_with({"recipe": "study", "sources": ["squad", "sst2"], "targets": ["cb"]})


def test_no_choice_is_what_the_file_says() -> None:
    empty = {"recipe": "", "sources": [], "targets": None, "k": [], "seeds": []}
    assert settings_with(empty) == settings_with() == load_settings(REPOSITORY / "params.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"recipe": "papper"}', "recipe 'papper' is not in recipes; did you mean 'paper'?"),
        ('{"target": ["cb"]}', "unknown key 'target'; did you mean 'targets'?"),
        ('{"sources": "cb"}', "key 'sources' is 'cb'"),
        ('{"k": ["ful"]}', "key 'k.0"),
        ('{"seeds": [1.5]}', "key 'seeds.0' is 1.5"),
        ('{"k": ', "--choices: not readable as JSON"),
        ('["cb"]', "--choices: expected groups of settings, found list"),
    ],
)
def test_bad_choices_are_named(text: str, expected: str) -> None:
    with pytest.raises(SettingsError) as error:
        parse_settings(Choices.parse(text).laid_over(VALUES), "test")
    assert expected in str(error.value)


# The settings of one step


def text_of(plan: Plan, step: str, name: str = "") -> str:
    """The settings that a plan gives to one step, of one task."""
    if step == "train_source":
        return next(training.settings for training in plan.source_trainings if training.source == name)
    if step == "transfer":
        return branch_of(plan, name).transfer
    return str(getattr(plan, step))


def branch_of(plan: Plan, target: str) -> Branch:
    return next(branch for branch in plan.branches if branch.target == target)


def test_a_step_is_told_what_it_reads() -> None:
    """What a text gives is what the whole file gives, recipe and differences of the task laid in."""
    settings = settings_with({"recipe": "paper"})
    plan = make_plan(settings)
    assert parse_step_settings("prepare", plan.prepare).prepare == settings.prepare
    assert parse_step_settings("backbone", plan.backbone).backbone == settings.backbone
    for training in plan.source_trainings:
        told = parse_step_settings("train_source", training.settings)
        assert told.train_source_for(training.source) == settings.train_source_for(training.source)
    for branch in plan.branches:
        told = parse_step_settings("transfer", branch.transfer).transfer_for(branch.target)
        assert told == settings.transfer_for(branch.target)
        assert parse_step_settings("transfer", branch.transfer).evaluate.answer == settings.evaluate.answer
    assert parse_step_settings("evaluate", plan.evaluate).evaluate == settings.evaluate
    assert json.loads(branch_of(plan, "nq").transfer)["transfer"]["training"]["epochs"] == 5  # of this task alone
    assert parse_step_settings("collect_experts", plan.collect_experts).tasks.sources == settings.tasks.sources


@pytest.mark.parametrize(
    ("step", "text", "expected"),
    [
        ("evaluate", '{"evaluate": {}, "tracking": {}, "report": {}}', "unknown key 'report'"),
        ("collect_experts", "{}", "the settings of collect_experts: key 'tasks' is missing"),
        ("prepare", "{", "the settings of prepare: not readable as JSON"),
    ],
)
def test_texts_of_another_step_are_refused(step: str, text: str, expected: str) -> None:
    with pytest.raises(SettingsError) as error:
        parse_step_settings(step, text)
    assert expected in str(error.value)


CHANGES: list[tuple[dict[str, Any], set[tuple[str, str]]]] = [
    ({"report": {"confidence": 0.9, "layer_groups": 2}}, set()),
    ({"kubeflow": {**VALUES["kubeflow"], "retries": 5}}, set()),
    ({"per_target": {**VALUES["per_target"], "cb": {"learning_rates": [0.5]}}}, {("transfer", "cb")}),
    ({"per_source": {**VALUES["per_source"], "qqp": {"rank": 8}}}, {("train_source", "qqp")}),
    ({"imported_sources": {"own": {"adapter": "/pemt/own", "description": "A task."}}}, {("collect_experts", "")}),
    (
        {"evaluate": {**VALUES["evaluate"], "max_rows": 7}},
        {("evaluate", "")},
    ),
    (
        {"evaluate": {**VALUES["evaluate"], "answer": "score"}},  # it selects as well
        {("evaluate", ""), ("transfer", "cb"), ("transfer", "rte")}
        | {("train_source", source) for source in VALUES["tasks"]["sources"]},
    ),
]


@pytest.mark.parametrize(("differences", "expected"), CHANGES, ids=lambda value: str(list(value))[:40])
def test_a_change_reaches_the_texts_of_the_steps_that_read_it(
    differences: dict[str, Any], expected: set[tuple[str, str]]
) -> None:
    """A step's result is reused while its text stays the same: no other may change."""
    targets = {"targets": ["cb", "rte"]}
    before, after = make_plan(settings_with(targets)), make_plan(settings_with(targets, **differences))
    tasks = {"train_source": VALUES["tasks"]["sources"], "transfer": ["cb", "rte"]}
    pairs = [(step, name) for step in GROUPS_OF_STEP for name in tasks.get(step, [""])]
    assert {pair for pair in pairs if text_of(before, *pair) != text_of(after, *pair)} == expected
    changed = {target for target in ("cb", "rte") if branch_of(before, target).key != branch_of(after, target).key}
    trained = {pair for pair in expected if pair[0] != "evaluate"}  # scored in another way, an adapter is the same
    assert changed == {target for step, name in trained for target in ([name] if step == "transfer" else ["cb", "rte"])}


def test_another_target_leaves_experts_and_other_branches_their_settings() -> None:
    one, two = (make_plan(settings_with({"targets": targets})) for targets in (["cb"], ["cb", "rte"]))
    assert one.collect_experts == two.collect_experts
    assert text_of(one, "transfer", "cb") == text_of(two, "transfer", "cb")
    assert one.prepare != two.prepare


def test_a_branch_for_every_target_and_seed() -> None:
    plan = make_plan(settings_with({"targets": ["cb", "rte"], "seeds": [1, 2, 1]}))
    assert [(branch.target, branch.seed) for branch in plan.branches] == [("cb", 1), ("cb", 2), ("rte", 1), ("rte", 2)]
    assert [json.loads(branch.transfer)["transfer"]["seeds"] for branch in plan.branches] == [[1], [2], [1], [2]]
    assert len({branch.key for branch in plan.branches}) == 4


def test_an_unknown_task_ends_the_plan() -> None:
    values = {"per_target": {**VALUES["per_target"], "hotpottqa": {}}}
    recipes = {name: {**recipe, **values} for name, recipe in VALUES["recipes"].items()}
    with pytest.raises(SettingsError, match="there is no task 'hotpottqa': did you mean 'hotpotqa'"):
        make_plan(settings_with({"targets": ["hotpottqa"]}, **values, recipes=recipes))


# Programs, told as Kubeflow tells a container


def executor_input(folder: Path, outputs: list[str], inputs: Mapping[str, list[Path]] | None = None) -> str:
    """What a launcher puts in place of `{{$}}`."""
    artifacts = {name: {"artifacts": [{"name": name, "uri": str(folder / name)}]} for name in outputs}
    given = {
        name: {"artifacts": [{"name": str(n), "uri": str(path)} for n, path in enumerate(paths)]}
        for name, paths in (inputs or {}).items()
    }
    answer = str(folder / "executor_output.json")
    return json.dumps({"inputs": {"artifacts": given}, "outputs": {"artifacts": artifacts, "outputFile": answer}})


Told = Callable[..., str]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """Runs a step's program in this process, with variables; gives its error, empty where it ended well."""

    def run(step: str, *arguments: object, **environment: str) -> str:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return run_here(monkeypatch, step, *arguments)

    return run


def answer_in(folder: Path) -> Any:
    return json.loads((folder / "executor_output.json").read_text())


def test_the_plan_is_answered_as_parameters(told: Told, tmp_path: Path) -> None:
    text = executor_input(tmp_path, ["provenance"])
    choices = '{"recipe": "", "sources": ["mnli"], "targets": ["cb"], "k": [], "seeds": [3.0] }'
    flags = ["--settings", json.dumps(VALUES), "--choices", choices, "--provenance", tmp_path / "provenance"]
    assert told("plan", *flags, "--executor-input", text) == ""
    answer = answer_in(tmp_path)
    expected = make_plan(settings_with({"sources": ["mnli"], "targets": ["cb"], "seeds": [3]})).parameters()
    assert answer["parameterValues"] == expected
    assert answer["artifacts"]["provenance"]["artifacts"] == [
        {"name": "provenance", "uri": str(tmp_path / "provenance"), "metadata": {}}
    ]


def test_adapters_are_found_in_any_order_and_a_missing_one_is_named(told: Told, world: World, tmp_path: Path) -> None:
    settings = json.dumps({"tasks": {"sources": list(World.SOURCES), "targets": []}, "imported_sources": {}})
    adapters = [world.folder / "adapters" / name for name in reversed(World.SOURCES)]
    flags = ["--settings", settings, "--output", tmp_path / "experts", "--provenance", tmp_path / "provenance"]
    flags += ["--backbone", tmp_path / "not-read"]  # where there is nothing to import
    text = executor_input(tmp_path, ["experts", "provenance"], {"adapters": adapters})
    assert told("collect_experts", *flags, "--executor-input", text) == ""
    manifest = json.loads((tmp_path / "experts" / "experts.json").read_text())
    assert [expert["task"] for expert in manifest["experts"]] == list(World.SOURCES)
    assert manifest == json.loads((world.folder / "experts" / "experts.json").read_text())

    text = executor_input(tmp_path, ["experts"], {"adapters": [adapters[0], tmp_path / "absent"]})
    error = told("collect_experts", *flags, "--executor-input", text)
    assert error.startswith(
        f"error: {tmp_path / 'absent'}: Kubeflow named it as one of 2 adapters, and did not bring it"
    )
    assert "did not bring it" in (tmp_path / "error.txt").read_text()


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("minio://mlpipeline/v2/artifacts/x", "/minio/mlpipeline/v2/artifacts/x"),
        ("s3://bucket/x", "/s3/bucket/x"),
        ("gs://bucket/x", "/gcs/bucket/x"),
        ("/runs/x", "/runs/x"),
    ],
)
def test_uris_are_where_a_launcher_keeps_them(uri: str, path: str) -> None:
    from components.executor import local_path

    assert local_path(uri) == Path(path)


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"outputs": {}}'])
def test_what_is_no_executor_input_is_named(told: Told, text: str, tmp_path: Path) -> None:
    error = told("plan", "--provenance", tmp_path / "p", "--executor-input", text)
    assert error.startswith("error: --executor-input: not what Kubeflow gives a container")


# From transfer to the report, by way of the tracking store


@pytest.fixture
def branch_params(tmp_path: Path) -> Path:
    values = {"transfer": {"methods": ["pemt", "control"]}, "models": NOT_REGISTERED}
    return write_params(tmp_path / "params.yaml", values)


NOT_REGISTERED = {"enabled": False}  # the world's target has no record that says how its rows become text


def run_branch(
    told: Told, world: World, folder: Path, params: Path, key: str, *, train: bool = True, score: bool = True
) -> str:
    """transfer, then evaluate, of the world's target as a branch with `key`; returns what went wrong."""
    settings, target = load_settings(params), World.TARGET
    data, common = world.folder / "data", ["--backbone", world.folder / "backbone"]
    common += ["--experts", world.folder / "experts", "--plan", key]
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}
    text = settings_text(settings, "transfer", transfer=settings.transfer_for(target), per_target={target: {}})
    flags = ["--settings", text, "--target", target, "--data", data / target, "--checkpoints", folder / "checkpoints"]
    out = ["--output", folder / "adapters" / target, "--provenance", folder / "transfer"]
    outputs = executor_input(folder, ["metrics"])
    if train:
        error = told("transfer", *flags, *common, *out, "--executor-input", outputs, **environment)
        if error or not score:
            return error
    flags = ["--settings", settings_text(settings, "evaluate"), "--targets", target, "--data", data]
    out = ["--adapters", folder / "adapters", "--output", folder / "scores", "--provenance", folder / "evaluate"]
    return told("evaluate", *flags, *common, *out, "--executor-input", outputs, **environment)


def test_a_branch_leaves_its_results_where_the_report_finds_them(
    told: Told, world: World, tmp_path: Path, branch_params: Path
) -> None:
    from pemt_core.tracking import connect
    from pemt_core.tracking.results import gather_result

    assert run_branch(told, world, tmp_path, branch_params, "key-1") == ""
    scores = answer_in(tmp_path)["artifacts"]["metrics"]["artifacts"][0]["metadata"]
    assert set(scores) == {"gamma/pemt-kfull-seed4096", "gamma/control-kfull-seed4096"}
    assert json.loads((tmp_path / "metrics").read_text()) == scores
    cell = Cell(World.TARGET, "pemt", "full", 4096)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    tracker = connect(uri, "pemt", tmp_path, "stop").of_plan("key-1")
    scoring = load_settings(branch_params).evaluate
    assert gather_result(cell, scoring, tracker, tmp_path / "gathered") is None
    result = Path("gamma") / cell.name / "result.json"
    assert (tmp_path / "gathered" / result).read_bytes() == (tmp_path / "scores" / result).read_bytes()
    other = connect(uri, "pemt", tmp_path, "stop").of_plan("key-2")
    assert (
        gather_result(cell, scoring, other, tmp_path / "other") == "it was not started, or failed before its training"
    )
    lacks = "it was trained, and its scoring failed"
    assert gather_result(cell, scoring.model_copy(update={"max_rows": 3}), tracker, tmp_path / "other") == lacks
    assert not (tmp_path / "other").exists()


def test_a_run_keeps_what_each_way_of_scoring_found(
    told: Told, world: World, tmp_path: Path, branch_params: Path
) -> None:
    """A cache gives back the first way's scores without running anything: they must still be there."""
    from pemt_core.tracking import connect
    from pemt_core.tracking.results import gather_result

    values = {"transfer": {"methods": ["pemt"]}, "evaluate": {"max_rows": 3}, "models": NOT_REGISTERED}
    fewer = write_params(tmp_path / "fewer.yaml", values)
    assert run_branch(told, world, tmp_path, branch_params, "key-1") == ""
    shutil.copytree(tmp_path / "scores", tmp_path / "first")
    assert run_branch(told, world, tmp_path, fewer, "key-1", train=False) == ""
    cell = Cell(World.TARGET, "pemt", "full", 4096)
    tracker = connect(f"sqlite:///{tmp_path / 'mlflow.db'}", "pemt", tmp_path, "stop").of_plan("key-1")
    for params, scores in ((branch_params, "first"), (fewer, "scores")):
        assert gather_result(cell, load_settings(params).evaluate, tracker, tmp_path / f"of-{scores}") is None
        result = Path("gamma") / cell.name / "result.json"
        assert (tmp_path / f"of-{scores}" / result).read_bytes() == (tmp_path / scores / result).read_bytes()
    assert json.loads((tmp_path / "of-scores" / result).read_text())["test_rows"] == 3


def test_another_plan_keeps_its_own_runs(told: Told, world: World, tmp_path: Path, branch_params: Path) -> None:
    from mlflow import MlflowClient

    for key in ("key-1", "key-2", "key-1"):
        assert run_branch(told, world, tmp_path, branch_params, key, score=False) == ""
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    found = sorted((run.data.tags["pemt.plan"], run.data.tags["pemt.method"]) for run in runs)
    assert found == [(key, method) for key in ("key-1", "key-2") for method in ("control", "pemt")]
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_the_report_says_what_failed_and_why(told: Told, world: World, tmp_path: Path) -> None:
    from pemt_core.tracking import connect
    from pemt_core.tracking.results import gather_result

    params = write_params(tmp_path / "params.yaml", {"transfer": {"learning_rates": [1e30]}})
    assert "the loss is" in run_branch(told, world, tmp_path, params, "key-1")
    cell = Cell(World.TARGET, "pemt", "full", 4096)
    tracker = connect(f"sqlite:///{tmp_path / 'mlflow.db'}", "pemt", tmp_path, "stop").of_plan("key-1")
    lacks = gather_result(cell, load_settings(params).evaluate, tracker, tmp_path / "gathered")
    assert lacks is not None
    assert lacks.startswith("its training failed: transfer gamma pemt-kfull-seed4096: the loss is")

    params = write_params(tmp_path / "fine.yaml", {})
    assert run_branch(told, world, tmp_path, params, "key-2", score=False) == ""
    tracker = connect(f"sqlite:///{tmp_path / 'mlflow.db'}", "pemt", tmp_path, "stop").of_plan("key-2")
    assert (
        gather_result(cell, load_settings(params).evaluate, tracker, tmp_path / "gathered")
        == "it was trained, and its scoring failed"
    )


def test_a_report_without_any_result_names_every_branch(told: Told, tmp_path: Path) -> None:
    flags = ["--settings", json.dumps(VALUES), "--choices", '{"targets": ["cb"], "k": [], "seeds": [], "sources": []}']
    out = ["--scores", tmp_path / "scores", "--output", tmp_path / "results", "--provenance", tmp_path / "p"]
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    error = told("report", *flags, "--gather", *out, MLFLOW_TRACKING_URI=uri)
    assert error.startswith("error: not one result is there to report. cb, pemt, k = 32, seed 31: it was not started")
    assert not (tmp_path / "results").exists()


# Several processes


@pytest.mark.slow
def test_a_program_becomes_the_processes_that_share_its_batches(still_world: World, tmp_path: Path) -> None:
    world = still_world
    params = write_params(tmp_path / "params.yaml", {})
    settings = load_settings(params)
    text = settings_text(
        settings, "train_source", train_source=settings.train_source_for("alpha"), per_source={"alpha": {}}
    )
    flags = ["--settings", text, "--source", "alpha", "--data", world.folder / "data" / "alpha"]
    flags += ["--backbone", world.folder / "backbone", "--checkpoints", tmp_path / "checkpoints"]
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        out = ["--output", folder / "adapter", "--provenance", folder / "provenance", "--processes", processes]
        answer = executor_input(folder, ["adapter"])
        command = [sys.executable, "-m", "components.train_source", *flags, *out, "--executor-input", answer]
        variables = {**os.environ, "MLFLOW_TRACKING_URI": uri}
        done = subprocess.run(
            [*map(str, command)], cwd=REPOSITORY, env=variables, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr[-2000:]
        assert "adapter" in answer_in(folder)["artifacts"]
    losses = [
        [point["train/loss"] for point in json.loads(text)["history"] if "train/loss" in point]
        for text in ((tmp_path / n / "adapter" / "training.json").read_text() for n in ("1", "2"))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_fewer_than_one_process_is_an_error(told: Told, world: World, tmp_path: Path) -> None:
    error = told(
        "train_source", "--params", write_params(tmp_path / "params.yaml", {}), "--source", "alpha", "--data", "x",
        "--backbone", "x", "--output", tmp_path / "x", "--provenance", tmp_path / "p", "--processes", 0,
    )  # fmt: skip
    assert error == "error: processes is 0: expected a number from 1"


def test_yaml_of_the_file_is_what_travels() -> None:
    """The pipeline's parameter is the file as JSON: no value may change on the way."""
    from pipelines.command import load

    _, text = load(REPOSITORY / "params.yaml")
    assert json.loads(text) == YAML(typ="safe", pure=True).load(REPOSITORY / "params.yaml")


def test_a_password_does_not_travel(tmp_path: Path) -> None:
    from pipelines.command import load

    params = write_params(tmp_path / "params.yaml", {"tracking": {"uri": "postgresql://me:secret@db/mlflow"}})
    with pytest.raises(SettingsError, match="holds a user or a password") as error:
        load(params)
    assert "secret@" not in str(error.value)
