"""A cluster run without a cluster: the plan, programs started as Kubeflow starts them, and the report."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from source_code import REPOSITORY
from test_components import SHORT, run_here, source_text, tracking_in
from tiny import World, transfer_settings
from workspace import write_params

from pemt_core.artifacts.cell import Cell
from pemt_core.errors import SettingsError
from pemt_core.schema.group import Group
from pemt_core.schema.validation import merged
from pemt_core.settings import EvaluateSettings, Settings, load_settings, parse_run, read_params
from pemt_core.settings.settings import cells_of
from pemt_core.settings.steps import (
    CollectExperts,
    Evaluate,
    Prepare,
    StepType,
    TrainSource,
    Transfers,
    as_text,
    read_step,
)
from pemt_core.steps.plan import Plan, make_plan

VALUES = read_params(REPOSITORY / "params.yaml")
TICKETS = {
    "files": {"train": "tickets.csv"}, "text": {"subject": "subject"}, "target": "queue", "labels": ["mail", "print"],
    "description": "Decide which queue a ticket belongs to.", "metrics": ["accuracy"],
}  # fmt: skip


def run_text(choices: Mapping[str, Any] | None = None, **differences: Any) -> str:
    """Return the run parameter of a cluster: params.yaml with changes, and the choices of the run."""
    return json.dumps({"params": merged(VALUES, differences), "choices": choices or {}})


def settings_with(choices: Mapping[str, Any] | None = None, **differences: Any) -> Settings:
    return parse_run(run_text(choices, **differences))


def plan_with(choices: Mapping[str, Any] | None = None, **differences: Any) -> Plan:
    return make_plan(settings_with(choices, **differences), REPOSITORY)


# Choices


def test_choices_override_the_recipe() -> None:
    """Choices override k and seeds of the recipe; Kubeflow writes whole numbers as floats."""
    chosen = settings_with({"recipe": "paper", "targets": ["cb"], "k": [16.0, "full"], "seeds": [1.0, 2.0]})
    assert (chosen.recipe, chosen.tasks.targets, chosen.tasks.sources) == ("paper", ["cb"], VALUES["tasks"]["sources"])
    assert (chosen.transfer.k, chosen.transfer.seeds) == ([16, "full"], [1, 2])
    assert chosen.transfer.learning_rates == VALUES["recipes"]["paper"]["transfer"]["learning_rates"]


def test_methods_of_unchosen_targets_are_not_checked() -> None:
    """The study leaves mnli out for cb: a run without both is valid, a run with cb but without mnli is not."""
    plan = plan_with({"recipe": "study", "sources": ["squad", "sst2"], "targets": ["nq"]})
    names = ["pemt", "control", "without_squad", "without_sst2"]
    assert list(plan.transfer["nq"].methods) == names
    assert {*plan.record.methods} == {*plan.report.methods} == {*plan.register.methods} == {*names}
    with pytest.raises(SettingsError, match=r"methods\.without_mnli: without names 'mnli', which is not a source"):
        settings_with({"recipe": "study", "sources": ["squad", "sst2"], "targets": ["cb"]})


def test_empty_choices_keep_the_settings_of_the_file() -> None:
    empty = {"recipe": "", "sources": [], "targets": None, "k": [], "seeds": []}
    assert settings_with(empty) == settings_with() == load_settings(REPOSITORY / "params.yaml")


@pytest.mark.parametrize(
    ("choices", "expected"),
    [
        ({"recipe": "papper"}, "recipe 'papper': there is no recipes/papper.yaml; did you mean 'paper'?"),
        ({"target": ["cb"]}, "unknown key 'target'; did you mean 'targets'?"),
        ({"sources": "cb"}, "key 'sources' is 'cb'"),
        ({"k": ["ful"]}, "key 'k.0"),
        ({"seeds": [1.5]}, "key 'seeds.0' is 1.5"),
    ],
)
def test_bad_choices_are_named(choices: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError) as error:
        settings_with(choices)
    assert expected in str(error.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"params": ', "--run: not readable as JSON"),
        ('["cb"]', "--run: expected groups of settings, found list"),
        ('{"params": {}}', "--run: key 'choices' is missing"),
    ],
)
def test_an_invalid_run_is_explained(text: str, expected: str) -> None:
    with pytest.raises(SettingsError) as error:
        parse_run(text)
    assert expected in str(error.value)


# The settings of one step


Pair = tuple[str, str]


def texts_of(plan: Plan) -> dict[Pair, str]:
    """Return the text that a plan gives to each step of each task."""
    texts = {(step, ""): as_text(settings) for step, settings in plan.steps.items()}
    texts |= {("train_source", name): as_text(settings) for name, settings in plan.train_source.items()}
    return texts | {("transfer", name): as_text(settings) for name, settings in plan.transfer.items()}


def read_again(settings: StepType) -> StepType:
    return read_step(type(settings), as_text(settings), "a step")


def test_the_text_of_a_step_holds_its_settings() -> None:
    """A step's text holds the same settings as the whole file with recipe and per-task settings applied."""
    settings = settings_with({"recipe": "paper"})
    plan = make_plan(settings, REPOSITORY)
    assert read_again(plan.prepare).prepare == settings.prepare
    assert read_again(plan.backbone).backbone == settings.backbone
    for name, source in plan.train_source.items():
        assert read_again(source).train_source == settings.train_source_for(name)
    for name, target in plan.transfer.items():
        transfer = settings.transfer_for(name)
        cells = cells_of(name, transfer.methods, transfer.k, transfer.seeds)
        assert (read_again(target).cells, target.answer) == (cells, settings.evaluate.answer)
        assert {method: target.method(method) for method in target.methods} == settings.methods_for(name)
    assert read_again(plan.evaluate).evaluate == settings.evaluate
    assert plan.transfer["nq"].method("pemt").training.epochs == 5  # set only for this task
    assert read_again(plan.collect_experts).sources == settings.tasks.sources


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        (Evaluate, '{"evaluate": {}, "tracking": {}, "targets": [], "code": ""}', "unknown key 'tracking'"),
        (CollectExperts, "{}", "the settings of x: key 'code' is missing; key 'sources' is missing"),
        (Prepare, "{", "the settings of x: not readable as JSON"),
    ],
)
def test_texts_of_another_step_are_refused(kind: type[Any], text: str, expected: str) -> None:
    with pytest.raises(SettingsError) as error:
        read_step(kind, text, "x")
    assert expected in str(error.value)


def test_the_plan_writes_a_file_per_step(tmp_path: Path) -> None:
    """The keys keep their order, which is the order of the experts."""
    sources = [*reversed(VALUES["tasks"]["sources"])]
    plan = plan_with({"targets": ["cb", "rte"], "sources": sources})
    plan.write(tmp_path / "plan")
    written = {path.relative_to(tmp_path / "plan").with_suffix("").as_posix() for path in tmp_path.rglob("*.json")}
    assert written == {*plan.steps, "tracking", "transfer/cb", "transfer/rte", *(f"train_source/{n}" for n in sources)}
    path = tmp_path / "plan" / "transfer" / "cb.json"
    assert read_step(Transfers, str(path), "transfer").targets == [plan.transfer["cb"]]
    assert json.loads((tmp_path / "plan" / "collect_experts.json").read_text())["sources"] == sources
    with pytest.raises(SettingsError, match=r"rte\.json: .*key 'source' is missing"):
        read_step(TrainSource, str(path.with_name("rte.json")), "train_source")


SCORING, REPORTING = {("evaluate", ""), ("record", "")}, {("record", ""), ("report", "")}
CHANGES: list[tuple[dict[str, Any], set[Pair]]] = [
    ({"report": {"confidence": 0.9, "layer_groups": 2}}, REPORTING),
    ({"kubeflow": {"parallelism": 5}, "tracking": {"experiment": "other"}}, {("register", "")}),
    ({"models": {"alias": "best"}}, {("register", "")}),
    ({"per_target": {"cb": {"learning_rates": [0.5]}}}, {("transfer", "cb")}),
    ({"per_target": {"sst2": {"k": [4]}}, "methods": {"idle": {"kind": "pemt", "gate": "uniform"}}}, set()),
    ({"methods": {"control": {"reduction_factor": 2}}}, {("transfer", "cb"), ("transfer", "rte")}),
    (
        {"methods": {"pemt": {"gate": "uniform"}}},  # evaluate and serving run the code of this gate
        {("transfer", "cb"), ("transfer", "rte"), *SCORING, *REPORTING, ("register", "")},
    ),
    ({"per_source": {"qqp": {"rank": 8}}}, {("train_source", "qqp")}),
    ({"imported_sources": {"own": {"adapter": "/pemt/own", "description": "A task."}}}, {("collect_experts", "")}),
    ({"evaluate": {"max_rows": 7}}, SCORING),
    (
        {"recipes": {"demo": {"evaluate": {"answer": "generate"}}}},  # training selects checkpoints by it too
        {*SCORING, ("transfer", "cb"), ("transfer", "rte"), *(("train_source", n) for n in VALUES["tasks"]["sources"])},
    ),
]


@pytest.mark.parametrize(
    ("differences", "expected"),
    CHANGES,
    ids=lambda value: str(value if isinstance(value, dict) else sorted(value))[:50],
)
def test_a_change_reaches_the_texts_of_the_steps_that_read_it(differences: dict[str, Any], expected: set[Pair]) -> None:
    """A step's result is reused while its text is unchanged, so no other text may change."""
    before, after = (plan_with({"targets": ["cb", "rte"]}, **changes) for changes in ({}, differences))
    texts = texts_of(after)
    assert {pair for pair, text in texts_of(before).items() if texts[pair] != text} == expected
    keys = {branch.targets[0]: branch.key for branch in before.branches}
    changed = {branch.targets[0] for branch in after.branches if branch.key != keys[branch.targets[0]]}
    trained = {pair for pair in expected if pair[0] not in ("evaluate", "record", "register", "report")}
    assert changed == {target for step, name in trained for target in ([name] if step == "transfer" else ["cb", "rte"])}


def test_another_target_leaves_experts_and_other_branches_their_settings() -> None:
    one, two = (plan_with({"targets": targets}) for targets in (["cb"], ["cb", "rte"]))
    assert one.collect_experts == two.collect_experts
    assert one.transfer["cb"] == two.transfer["cb"]
    assert one.prepare != two.prepare


def test_every_target_and_seed_has_a_branch() -> None:
    plan = plan_with({"targets": ["cb", "rte"], "seeds": [1, 2, 1]})
    found = [(branch.targets, branch.seed) for branch in plan.branches]
    assert found == [(["cb"], 1), (["cb"], 2), (["rte"], 1), (["rte"], 2)]
    assert [each.seeds for branch in plan.branches for each in branch.transfers] == [[1], [2], [1], [2]]
    assert len({branch.key for branch in plan.branches}) == 4


def test_a_branch_may_hold_several_targets() -> None:
    """A target's own seeds decide in which branches it is."""
    changes = {"kubeflow": {"targets_per_branch": 2}, "per_target": {"rte": {"seeds": [2]}}}
    plan = plan_with({"targets": ["cb", "rte", "wic"], "seeds": [1, 2]}, **changes)
    found = [(branch.targets, branch.seed) for branch in plan.branches]
    assert found == [(["cb"], 1), (["cb", "rte"], 2), (["wic"], 1), (["wic"], 2)]
    assert all(each.seeds == [branch.seed] for branch in plan.branches for each in branch.transfers)
    assert {(key, cell.task, cell.seed) for key, cell in plan.cells} == {
        (branch.key, target, branch.seed) for branch in plan.branches for target in branch.targets
    }
    (several,) = (each for each in plan.parameters()["branches"] if json.loads(each["targets"]) == ["cb", "rte"])
    assert [each.target for each in read_step(Transfers, several["transfer"], "transfer").targets] == ["cb", "rte"]


def test_a_run_that_does_every_step_again_has_branches_of_its_own() -> None:
    settings = settings_with({"targets": ["cb"]})
    plans = [make_plan(settings, REPOSITORY, rerun) for rerun in ("", "run-1", "run-2", "run-1")]
    (plain,), (first,), (second,), (again,) = (plan.branches for plan in plans)
    assert first == again
    assert len({plain.key, first.key, second.key}) == 3
    assert plain.transfers == first.transfers


@pytest.mark.parametrize("role", ["sources", "targets"])
def test_an_unknown_task_ends_the_plan(role: str) -> None:
    with pytest.raises(SettingsError, match="there is no task 'hotpottqa': did you mean 'hotpotqa'"):
        plan_with({role: ["hotpottqa"]})


# Programs started as Kubeflow starts a container


def executor_input(folder: Path, outputs: list[str], inputs: Mapping[str, list[Path]] | None = None) -> str:
    """Return the value that a launcher substitutes for `{{$}}`."""
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
    """Run a step's program in this process; return its error, or an empty string if it succeeds."""

    def run(step: str, *arguments: object, **environment: str) -> str:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return run_here(monkeypatch, step, *arguments)

    return run


def answer_in(folder: Path) -> Any:
    return json.loads((folder / "executor_output.json").read_text())


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ({"prepare": {"source": "embeded"}}, "prepare.source is 'embeded': no such folder; did you mean 'embedded'?"),
        ({"prepare": {"source": "{}/huub"}}, "prepare.source is '{}/huub': no such folder; did you mean 'hub'?"),
        ({"prepare": {"source": "~/hub"}}, "prepare.source is '~/hub': no such folder; write out what ~ stands for"),
        ({"prepare": {"source": "{}/file"}}, "is a file; expected hub, embedded, or an existing folder"),
        (
            {"imported_sources": {"news": {"adapter": "/nowhere/news", "description": "Tell the topic of the news."}}},
            "imported_sources.news.adapter is '/nowhere/news': no such folder; expected an existing folder",
        ),
        ({"own_tasks": {"tickets": TICKETS}, "tasks": {"targets": ["tickets"]}},
         "own_tasks.tickets.files.train: {}/tickets.csv: no such file"),
    ],
)  # fmt: skip
def test_a_folder_or_file_that_is_not_there_is_an_error_before_any_step(
    differences: dict[str, Any], expected: str, told: Told, tmp_path: Path
) -> None:
    (tmp_path / "hub").mkdir()
    (tmp_path / "file").write_text("")
    here = json.loads(json.dumps(differences).replace("{}", str(tmp_path)))
    params = write_params(tmp_path / "params.yaml", {"recipe": "study"}, here)
    output = ["--output", tmp_path / "plan", "--provenance", tmp_path / "provenance.json"]
    assert expected.replace("{}", str(tmp_path)) in told("plan", "--params", params, *output)
    assert not (tmp_path / "plan").exists()


def test_files_of_the_plan_before_may_be_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A colleague who pulls prepared data changes other settings without the files that it was made of."""
    (tmp_path / "tickets.csv").touch()
    changes = [{"own_tasks": {"tickets": TICKETS}, "tasks": {"targets": ["tickets"]}}, {"transfer": {"seeds": [7]}}]
    for number in range(2):
        params = write_params(tmp_path / "params.yaml", {"recipe": "demo"}, *changes[: number + 1])
        output = ["--output", tmp_path / "plan", "--provenance", tmp_path / "provenance.json"]
        assert not run_here(monkeypatch, "plan", "--params", params, *output)
        (tmp_path / "tickets.csv").unlink(missing_ok=True)
    assert json.loads((tmp_path / "plan" / "transfer" / "tickets.json").read_text())["targets"][0]["seeds"] == [7]


def test_the_plan_returns_parameters(told: Told, tmp_path: Path) -> None:
    text = executor_input(tmp_path, ["provenance"])
    choices = '{"recipe": "", "sources": ["mnli"], "targets": ["cb"], "k": [], "seeds": [3.0] }'
    run = f'{{"params": {json.dumps(VALUES)}, "choices": {choices} }}'
    flags = ["--run", run, "--provenance", tmp_path / "provenance"]
    assert told("plan", *flags, "--executor-input", text) == ""
    answer = answer_in(tmp_path)
    expected = plan_with({"sources": ["mnli"], "targets": ["cb"], "seeds": [3]}).parameters()
    assert answer["parameterValues"] == expected
    assert answer["artifacts"]["provenance"]["artifacts"] == [
        {"name": "provenance", "uri": str(tmp_path / "provenance"), "metadata": {}}
    ]


def test_adapters_are_found_in_any_order_and_a_missing_one_is_named(told: Told, world: World, tmp_path: Path) -> None:
    settings = as_text(CollectExperts(sources=list(World.SOURCES), imported_sources={}, code=""))
    adapters = [world.folder / "adapters" / name for name in reversed(World.SOURCES)]
    flags = ["--settings", settings, "--output", tmp_path / "experts", "--provenance", tmp_path / "provenance"]
    flags += ["--backbone", world.folder / "backbone"]
    text = executor_input(tmp_path, ["experts", "provenance"], {"adapters": adapters})
    assert told("collect_experts", *flags, "--executor-input", text) == ""
    manifest = json.loads((tmp_path / "experts" / "experts.json").read_text())
    assert [expert["task"] for expert in manifest["experts"]] == list(World.SOURCES)
    assert manifest == json.loads((world.folder / "experts" / "experts.json").read_text())

    text = executor_input(tmp_path, ["experts"], {"adapters": [adapters[0], tmp_path / "absent"]})
    error = told("collect_experts", *flags, "--executor-input", text)
    assert error.startswith(
        f"error: {tmp_path / 'absent'}: Kubeflow lists it as one of 2 adapters, but did not provide it"
    )
    assert "did not provide it" in (tmp_path / "error.txt").read_text()


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
def test_an_invalid_executor_input_is_explained(told: Told, text: str, tmp_path: Path) -> None:
    error = told("plan", "--provenance", tmp_path / "p", "--executor-input", text)
    assert error.startswith("error: --executor-input: expected the JSON that Kubeflow passes to a container")


# From transfer to the report through the tracking store


WHOLE = EvaluateSettings(answer="generate", batch_size=8, precision="float32", max_rows=None)
CELL = Cell(World.TARGET, "pemt", "full", 4096)
RESULT = Path(CELL.task) / CELL.name / "result.json"


@dataclass(frozen=True)
class BranchRun:
    """transfer, evaluate and record of the world's target, started like those of a branch with a key."""

    told: Told
    world: World
    folder: Path

    def transfer(self, key: str, **changes: Any) -> str:
        """Run transfer; return its error, as the other methods do."""
        settings = Transfers(targets=[transfer_settings(**{"methods": ["pemt", "control"], **SHORT, **changes})])
        data, output = self.world.folder / "data", self.folder / "adapters"
        flags = ["--data", data, "--checkpoints", self.folder / "checkpoints", "--output", output, *self._models]
        return self._run("transfer", settings, *flags, *self._tracked(key))

    def score(self, key: str, scoring: EvaluateSettings = WHOLE) -> str:
        """Run evaluate and then record."""
        data, scores = self.world.folder / "data", self.folder / "scores"
        flags = ["--data", data, "--adapters", self.folder / "adapters", "--output", scores, *self._models]
        flags += ["--targets", json.dumps([World.TARGET])]  # as Kubeflow inserts a list
        error = self._run("evaluate", Evaluate(targets=[World.TARGET], evaluate=scoring, code=""), *flags)
        record = plan_with().record.model_copy(update={"evaluate": scoring})
        return error or self._run("record", record, "--scores", scores, *self._tracked(key))

    def gathered(self, key: str, scoring: EvaluateSettings = WHOLE, into: str = "gathered") -> str | None:
        """Gather the cell from tracking as the report does; return why it is missing, or None if it is found."""
        from pemt_core.tracking import connect
        from pemt_core.tracking.gather import gather_result

        tracker = connect(f"sqlite:///{self.folder / 'mlflow.db'}", "pemt", self.folder, "stop").of_plan(key)
        return gather_result(CELL, scoring, tracker, self.folder / into)

    @property
    def _models(self) -> list[object]:
        return ["--backbone", self.world.folder / "backbone", "--experts", self.world.folder / "experts"]

    def _tracked(self, key: str) -> list[object]:
        return ["--tracking", tracking_in(self.folder), "--plan", key]

    def _run(self, step: str, settings: Group, *flags: object) -> str:
        outputs = executor_input(self.folder / f"of-{step}", ["metrics"])
        common = ["--settings", as_text(settings), "--provenance", self.folder / "provenance" / step]
        return self.told(step, *flags, *common, "--executor-input", outputs)


@pytest.fixture
def branch(told: Told, world: World, tmp_path: Path) -> BranchRun:
    return BranchRun(told, world, tmp_path)


def test_the_report_finds_the_results_of_a_branch(branch: BranchRun) -> None:
    folder = branch.folder
    assert (branch.transfer("key-1"), branch.score("key-1")) == ("", "")
    scores = answer_in(folder / "of-evaluate")["artifacts"]["metrics"]["artifacts"][0]["metadata"]
    assert set(scores) == {"gamma/pemt-kfull-seed4096", "gamma/control-kfull-seed4096"}
    assert json.loads((folder / "of-evaluate" / "metrics").read_text()) == scores
    assert branch.gathered("key-1") is None
    assert (folder / "gathered" / RESULT).read_bytes() == (folder / "scores" / RESULT).read_bytes()
    assert branch.gathered("key-2", into="other") == "it did not start, or failed before its training"
    fewer = WHOLE.model_copy(update={"max_rows": 3})
    assert (
        branch.gathered("key-1", fewer, into="other")
        == "it was trained, but its branch failed before its scores were recorded"
    )
    assert not (folder / "other").exists()


def test_a_run_keeps_the_scores_of_each_evaluation_setting(branch: BranchRun) -> None:
    """A cache hit runs nothing and relies on the scores of the first settings, so they must be kept."""
    folder, fewer = branch.folder, WHOLE.model_copy(update={"max_rows": 3})
    assert (branch.transfer("key-1"), branch.score("key-1")) == ("", "")
    shutil.copytree(folder / "scores", folder / "first")
    assert branch.score("key-1", fewer) == ""
    for scoring, scores in ((WHOLE, "first"), (fewer, "scores")):
        assert branch.gathered("key-1", scoring, into=f"of-{scores}") is None
        assert (folder / f"of-{scores}" / RESULT).read_bytes() == (folder / scores / RESULT).read_bytes()
    assert json.loads((folder / "of-scores" / RESULT).read_text())["test_rows"] == 3


def test_another_plan_keeps_its_own_runs(branch: BranchRun) -> None:
    from mlflow import MlflowClient

    for key in ("key-1", "key-2", "key-1"):
        assert branch.transfer(key) == ""
        shutil.rmtree(branch.folder / "adapters")  # a container does not see the folder of an earlier one
    client = MlflowClient(f"sqlite:///{branch.folder / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    found = sorted((run.data.tags["pemt.plan"], run.data.tags["pemt.method"]) for run in runs)
    assert found == [(key, method) for key in ("key-1", "key-2") for method in ("control", "pemt")]
    assert {run.info.status for run in runs} == {"FINISHED"}


def test_the_report_says_what_failed_and_why(branch: BranchRun) -> None:
    assert "the loss is" in branch.transfer("key-1", learning_rates=[1e30])
    lacks = branch.gathered("key-1")
    assert lacks is not None
    assert lacks.startswith("its training failed: transfer gamma pemt-kfull-seed4096: the loss is")
    assert branch.transfer("key-2") == ""
    assert branch.gathered("key-2") == "it was trained, but its branch failed before its scores were recorded"


def test_a_report_without_any_result_names_every_branch(told: Told, tmp_path: Path) -> None:
    run = run_text({"targets": ["cb"], "k": [], "seeds": [], "sources": []})
    out = ["--scores", tmp_path / "scores", "--output", tmp_path / "results", "--provenance", tmp_path / "p"]
    error = told("report", "--run", run, *out, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert error.startswith("error: there are no results to report. cb, pemt, k = 32, seed 31: it did not start")
    assert not (tmp_path / "results").exists()


# Multiple processes


@pytest.mark.slow
def test_a_program_starts_the_processes_that_share_its_batches(still_world: World, tmp_path: Path) -> None:
    world = still_world
    flags = ["--settings", source_text("alpha"), "--tracking", tracking_in(tmp_path)]
    flags += ["--data", world.folder / "data" / "alpha", "--backbone", world.folder / "backbone"]
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        out = ["--output", folder / "adapter", "--provenance", folder / "provenance", "--processes", processes]
        out += ["--checkpoints", folder / "checkpoints"]
        answer = executor_input(folder, ["adapter"])
        command = [sys.executable, "-m", "components.train_source", *flags, *out, "--executor-input", answer]
        done = subprocess.run([*map(str, command)], cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "adapter" in answer_in(folder)["artifacts"]
    losses = [
        [point["train/loss"] for point in json.loads(text)["history"] if "train/loss" in point]
        for text in ((tmp_path / n / "adapter" / "training.json").read_text() for n in ("1", "2"))
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_fewer_than_one_process_is_an_error(told: Told, tmp_path: Path) -> None:
    error = told(
        "train_source", "--settings", source_text("alpha"), "--tracking", tracking_in(tmp_path), "--data", "x",
        "--backbone", "x", "--output", tmp_path / "x", "--provenance", tmp_path / "p", "--processes", 0,
    )  # fmt: skip
    assert error == "error: processes is 0: expected at least 1"


def test_the_files_survive_the_conversion_to_json() -> None:
    """The pipeline parameter is the YAML files as JSON; the conversion must not change any value."""
    from pipelines.command import load

    _, text = load(REPOSITORY / "params.yaml")
    assert json.loads(text) == VALUES


def test_a_password_in_the_tracking_uri_is_refused(tmp_path: Path) -> None:
    from pipelines.command import load

    params = write_params(tmp_path / "params.yaml", {"tracking": {"uri": "postgresql://me:secret@db/mlflow"}})
    with pytest.raises(SettingsError, match="contains a user or a password") as error:
        load(params)
    assert "secret@" not in str(error.value)
