"""Trained targets in MLflow's registry and their serving over HTTP by `mlflow models serve`."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from source_code import PACKAGES, REPOSITORY, closure, imported_by
from tiny import World, change_record, write_task

import pemt_core
from pemt_core.artifacts.description import TargetDescription, load_description
from pemt_core.artifacts.run_info import target_run
from pemt_core.errors import ArtifactError, PemtError, SettingsError
from pemt_core.prediction.predictor import load_predictor
from pemt_core.prediction.project import Project as Places
from pemt_core.settings import ModelSettings
from pemt_core.settings.steps import Register
from pemt_core.steps.register import NOT_SERVED, REQUIREMENTS, Folders, register
from pemt_core.tasks import get_task
from pemt_core.tracking import ARTIFACT, Tracker, TrackingError, connect

MODELS = {"enabled": True, "metric": "main", "alias": "champion", "backbone": "include"}
PEMT, CONTROL = "pemt-kfull-seed4096", "control-kfull-seed4096"


@dataclass(frozen=True)
class Project:
    """A trained target in the pipeline's folders, with its runs in a separate store."""

    folder: Path

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def folders(self) -> Folders:
        return Folders(*(self.folder / name for name in ("targets", "data", "backbone", "experts")))

    def tracker(self) -> Tracker:
        return connect(self.uri, "pemt", self.folder, "stop")

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.uri)

    def register(self, **changes: Any) -> dict[str, int]:
        models = ModelSettings(**{**MODELS, **changes})
        shared: dict[str, Any] = {"methods": ["pemt", "control"], "batch_size": 4, "prefix": "pemt", "code": ""}
        return register(self.folders, Register(targets=["cb"], own_tasks={}, models=models, **shared), self.tracker())

    def score(self, cell: str, value: float) -> None:
        """Set the validation score of a cell."""
        path = self.folder / "targets" / "cb" / cell / "training.json"
        change_record(path, validation={**json.loads(path.read_text())["validation"], "main": value})

    def record_run(self, cell: str, target: str = "cb") -> None:
        """Record the run of a cell as its training does."""
        description, artifact = load_description(self.folder / "targets" / target / cell, TargetDescription)
        with self.tracker().open_run(target_run(description)) as run:
            run.tag({ARTIFACT: artifact})


@pytest.fixture(scope="module")
def trained(world: World, tmp_path_factory: pytest.TempPathFactory) -> Project:
    folder = tmp_path_factory.mktemp("serving") / "project"
    shutil.copytree(world.folder, folder)
    write_task(folder / "data", "cb")
    World(folder).transfer(folder / "targets" / "cb", task="cb", methods=["pemt", "control"], epochs=6)
    project = Project(folder)
    project.score(PEMT, 80.0)
    project.score(CONTROL, 70.0)
    for cell in (PEMT, CONTROL):
        project.record_run(cell)
    return project


@pytest.fixture
def project(trained: Project, tmp_path: Path) -> Project:
    """A copy with an empty store."""
    shutil.copytree(trained.folder, tmp_path / "project", ignore=shutil.ignore_patterns("ml*", ".ml*"))
    copy = Project(tmp_path / "project")
    for cell in (PEMT, CONTROL):
        copy.record_run(cell)
    return copy


# The registry


def test_the_best_cell_becomes_a_version_linked_to_its_run(project: Project) -> None:
    assert project.register() == {"pemt-cb": 1}
    version = project.client().get_model_version_by_alias("pemt-cb", "champion")
    run = project.client().get_run(version.run_id)
    assert run.info.run_name == "cb pemt k=full seed=4096"
    assert (version.tags["pemt.validation"], version.tags["pemt.answer"]) == ("80.0000", "generate")
    assert version.tags[ARTIFACT] == run.data.tags[ARTIFACT]
    assert version.description == "transfer/cb/pemt/k=full/seed=4096: 80.0000 on validation (main)"
    assert "model" in {file.path for file in project.client().list_artifacts(version.run_id)}


def test_the_same_state_again_writes_nothing(project: Project) -> None:
    project.register()
    before = project.client().get_registered_model("pemt-cb").last_updated_timestamp
    assert project.register() == {"pemt-cb": 1}
    assert project.client().get_registered_model("pemt-cb").last_updated_timestamp == before


def test_the_alias_moves_only_to_a_better_version(project: Project) -> None:
    project.register()
    project.score(CONTROL, 90.0)
    assert project.register() == {"pemt-cb": 2}
    project.score(CONTROL, 70.0)
    project.score(PEMT, 85.0)
    assert project.register() == {"pemt-cb": 2}  # version 3 exists but is not better
    assert len(project.client().search_model_versions("name='pemt-cb'")) == 3


def test_scores_on_other_data_are_not_compared(project: Project) -> None:
    project.score(PEMT, 99.0)
    project.register()
    description = project.folder / "targets" / "cb" / PEMT / "adapter.json"
    change_record(description, data="of another preparation")
    project.score(PEMT, 81.0)
    assert project.register() == {"pemt-cb": 2}


def test_another_metric_can_select_the_champion(project: Project) -> None:
    path = project.folder / "targets" / "cb" / CONTROL / "training.json"
    change_record(path, validation={"accuracy": 100.1, "main": 0.0})
    assert project.register(metric="accuracy", alias="best") == {"pemt-cb": 1}
    assert project.client().get_model_version_by_alias("pemt-cb", "best").tags["pemt.cell"].split("/")[2] == "control"
    with pytest.raises(SettingsError, match=r"no validation metric 'acc'"):
        project.register(metric="acc")


def test_a_failed_registration_is_explained(project: Project) -> None:
    assert project.register(enabled=False) == {}
    client = project.client()
    for run in client.search_runs(["1"]):
        client.delete_run(run.info.run_id)
    with pytest.raises(TrackingError, match=r"no run of transfer/cb/pemt/.* `dvc repro -f -s record` writes it"):
        project.register()
    shutil.rmtree(project.folder / "targets")
    with pytest.raises(ArtifactError, match="has no trained cell"):
        project.register()


def test_requirements_are_the_imports_of_a_served_model() -> None:
    files = closure("pemt_core.prediction.served")
    modules = {".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files}
    imported = {name.split(".")[0] for module in modules for name in imported_by(module)}
    assert not {file.parts[1] for file in files} & set(NOT_SERVED)
    others = imported - set(sys.stdlib_module_names) - set(PACKAGES)
    distributions = packages_distributions()
    needed = {name.lower().replace("-", "_") for name in REQUIREMENTS}
    given = {module: {each.lower().replace("-", "_") for each in distributions[module]} for module in others}
    assert [module for module, names in given.items() if not names & needed] == []
    assert [name for name in needed if not any(name in names for names in given.values())] == []


# The command


def command(monkeypatch: pytest.MonkeyPatch, project: Project, *words: str) -> str:
    """Run `pemt WORDS` in the project's folder and return its standard error."""
    from components.cli import main

    monkeypatch.chdir(project.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", project.uri)
    monkeypatch.setattr("sys.argv", ["pemt", *words, "--params", str(REPOSITORY / "params.yaml")])
    with pytest.raises(SystemExit) as ended:
        main()
    return str(ended.value.code or "")


def test_serve_names_what_is_missing(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no registered model 'pemt-cb'; no model is registered" in command(monkeypatch, project, "serve", "cb")
    project.register(backbone="refer")
    message = command(monkeypatch, project, "serve", "cd")
    assert "there is no registered model 'pemt-cd'; did you mean 'pemt-cb'?" in message
    message = command(monkeypatch, project, "serve", "cb", "--alias", "champ")
    assert message == "error: the model pemt-cb has no alias 'champ'; did you mean 'champion'?"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"error: --port is {port}: " in command(monkeypatch, project, "serve", "cb", "--port", str(port))
    shutil.rmtree(project.folder / "backbone")
    message = command(monkeypatch, project, "serve", "cb")
    assert f"{project.folder / 'backbone'}: no such folder; models:/pemt-cb@champion needs it" in message


def test_predict_takes_a_target_or_a_registered_model(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.register()
    rows = project.folder / "rows.csv"
    rows.write_text("id,source\na,text: red\nb,text: blue stone\n")
    outputs = []
    for words in (
        ["--target", "cb", "--adapters", "targets"],
        ["--target", "cb", "--adapters", "targets", "--cell", PEMT],
        ["--model", "models:/pemt-cb@champion"],
        ["--model", "models:/pemt-cb/1"],
    ):
        answers = project.folder / "answers.jsonl"
        assert (
            command(monkeypatch, project, "predict", str(rows), "--output", str(answers), "--keep", "id", *words) == ""
        )
        outputs.append(answers.read_text())
    assert [json.loads(line)["id"] for line in outputs[0].splitlines()] == ["a", "b"]
    assert set(outputs) == {outputs[0]}


def test_predict_names_the_error(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.register()
    rows = project.folder / "rows.csv"
    rows.write_text("premise\nA.\n")

    def error(*words: str, file: str = "rows.csv") -> str:
        folders = ["--adapters", "targets"] if "--target" in words else []
        found = command(monkeypatch, project, "predict", file, "--output", "answers.csv", *folders, *words)
        assert not (project.folder / "answers.csv").exists()
        return found

    assert error("--target", "cb").startswith(
        "error: rows.csv, line 2, task cb: there is no value in column 'hypothesis'"
    )
    assert error("--target", "cbb").startswith("error: there is no task 'cbb': did you mean 'cb'?")
    assert "`dvc repro transfer@rte` trains its cells" in error("--target", "rte")
    assert error("--target", "cb", file="row.csv") == "error: row.csv: no such file; did you mean 'rows.csv'?"
    assert "has no version 7" in error("--model", "models:/pemt-cb/7")
    for model in ("models:/pemt-cb", f"models:/pemt-cb/{'9' * 5_000}"):
        assert "is not a model; expected models:/<name>@<alias>" in error("--model", model)
    assert "there is no cell 'pemt-kfull'; did you mean 'pemt-kf" in error("--target", "cb", "--cell", "pemt-kfull")
    assert "targets/cb: there is no cell '../../sources/alpha'; choose from: " in error(
        "--target", "cb", "--cell", "../../sources/alpha"
    )
    assert "elsewhere: no such folder; expected a model's folder" in error("--model", "elsewhere")
    assert "expected a model's folder, models:/<name>@<alias>, or a list of targets; did you mean 'data'?" in error(
        "--model", "dat"
    )
    assert "cb: no such folder; " in error("--model", "cb")
    for flags in (["--cell", PEMT], ["--backbone", "elsewhere"], ["--cell", "x", "--adapters", "targets"]):
        expected = f"error: --model names a whole model; {' and '.join(flags[::2])}: expected only with --target"
        assert error("--model", "models:/pemt-cb@champion", *flags) == expected
    rows.write_text("source\ntext: red\n")
    assert error("--target", "cb", "--output", "rows.csv").startswith("error: rows.csv: is the input file")
    assert "cannot be written" in error("--target", "cb", "--output", "rows.csv/answers.csv")
    shutil.rmtree(project.folder / "backbone")
    assert "backbone: no such folder; cb cannot answer" in error("--target", "cb")
    shutil.rmtree(project.folder / "data")
    assert "list cb in tasks.targets again and run `dvc repro`, or load its registered model" in error("--target", "cb")


def test_python_loads_targets_a_registered_model_or_its_folder(project: Project, tmp_path: Path) -> None:
    project.register()
    places = Places(REPOSITORY / "params.yaml", **asdict(project.folders))
    rows = ["text: red", "text: blue stone"]
    expected = pemt_core.load(["cb"], project=places).predict(rows)
    assert pemt_core.load(["cb"], project=places, cell=CONTROL).predict(rows)[0].expert_weights == {}
    assert pemt_core.load("models:/pemt-cb@champion", tracking=project.uri).predict(rows) == expected
    (folder,) = (path.parent for path in (project.folder / "mlartifacts").rglob("model.json"))
    assert pemt_core.load(folder).predict(rows) == pemt_core.load(str(folder)).predict(rows) == expected
    for what, message in (
        ([], "no target given; .*targets has: cb"),
        (["cbb"], "there is no task 'cbb': did you mean 'cb'?"),
        ("models:/pemt-cd@champion", "no registered model 'pemt-cd'; did you mean 'pemt-cb'?"),
        (folder.with_name("foldr"), r"foldr: no such folder; .*did you mean 'folder'\?"),
        (folder.parent, rf"has no model\.json; expected a model's folder, .*did you mean '{folder}'\?"),
        (folder.parent.parent, rf"has no model\.json; .*did you mean '{folder}'\?"),
        (folder / "model.json", rf"model\.json: is a file; expected a model's folder, .*did you mean '{folder}'\?"),
        (project.folder / "backbone", r"backbone: has no model\.json; expected a model's folder, .* list of targets$"),
        ("cb", r"cb: no such folder; for the trained target, give \['cb'\]"),
    ):
        with pytest.raises(PemtError, match=message):
            pemt_core.load(what, project=places, tracking=project.uri)
    for what in (folder, "models:/pemt-cb@champion"):
        with pytest.raises(SettingsError, match=r"the cell is 'pemt-k32', but .* has one cell; expected no cell, or a"):
            pemt_core.load(what, cell="pemt-k32", tracking=project.uri)
    with pytest.raises(SettingsError, match=r"params\.yaml: no such file"):
        pemt_core.load(["cb"], project=tmp_path)


def test_a_registered_model_is_loaded_without_a_project(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.register()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(SettingsError, match=r"params\.yaml: no such file, and MLFLOW_TRACKING_URI is not set"):
        pemt_core.load("models:/pemt-cb@champion", project=tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", project.uri)
    assert list(pemt_core.load("models:/pemt-cb@champion", project=tmp_path).targets) == ["cb"]


def test_a_copied_project_has_its_own_models_and_backbone(project: Project, tmp_path: Path) -> None:
    project.register(backbone="refer")
    places = Places(REPOSITORY / "params.yaml", **asdict(project.folders))
    expected = pemt_core.load("models:/pemt-cb@champion", project=places, tracking=project.uri).predict(["text: red"])
    copy = Project(tmp_path / "copy")
    shutil.copytree(project.folder, copy.folder)
    project.folder.rename(tmp_path / "elsewhere")
    copied = pemt_core.load("models:/pemt-cb@champion", project=places, tracking=copy.uri)
    assert copied.predict(["text: red"]) == expected


def test_importing_the_package_loads_no_heavy_library() -> None:
    program = "import sys, pemt_core; print({'torch', 'pydantic', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


# Over HTTP


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict[str, Any]


@dataclass(frozen=True)
class Server:
    url: str

    def ask(self, body: bytes | dict[str, Any], content_type: str = "application/json") -> Answer:
        data = json.dumps(body).encode() if isinstance(body, dict) else body
        request = urllib.request.Request(f"{self.url}/invocations", data, {"Content-Type": content_type})
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return Answer(response.status, json.load(response))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, json.load(error))


def start(project: Project, program: list[str], port: int, **environment: str) -> subprocess.Popen[str]:
    """Start a server that reads the project's registry."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    shared = {"MLFLOW_TRACKING_URI": project.uri, "MLFLOW_DISABLE_TELEMETRY": "true", "PATH": path}
    return subprocess.Popen(
        [sys.executable, "-m", *program, "--port", str(port)],
        cwd=REPOSITORY,
        env={**os.environ, **shared, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def serving(project: Project, program: list[str], **environment: str) -> Iterator[Server]:
    port = free_port()
    process = start(project, program, port, **environment)
    try:
        url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            try:
                urllib.request.urlopen(f"{url}/ping", timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        else:
            process.kill()
            pytest.fail(f"the server did not start: {process.communicate()[0]}")
        yield Server(url)
    finally:
        with suppress(ProcessLookupError):  # the server did not start
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture(scope="module")
def server(trained: Project) -> Iterator[Server]:
    trained.register()
    with serving(trained, ["components.serve", "cb"]) as running:
        yield running


def test_a_served_champion_answers_known_rows(trained: Project, server: Server) -> None:
    rows = pq.read_table(trained.folder / "data" / "cb" / "test.parquet").to_pylist()
    predictor = load_predictor(
        trained.folder / "backbone",
        trained.folder / "experts",
        {"cb": trained.folder / "targets" / "cb" / PEMT},
        {"cb": trained.folder / "data" / "cb"},
        {"cb": get_task("cb").conversion},
        batch_size=4,
    )
    expected = predictor.predict([row["source"] for row in rows])
    answer = server.ask({"dataframe_records": [{"source": row["source"]} for row in rows]})
    assert answer.status == 200
    for found, known in zip(answer.body["predictions"], expected, strict=True):
        assert (found["task"], found["prediction"], found["truncated"]) == ("cb", known.prediction, False)
        assert found["answer"] == known.answer == "generate"
        assert found["scores"] == pytest.approx(known.scores, rel=1e-4)
        assert found["expert_weights"] == pytest.approx(known.expert_weights, rel=1e-4)


def test_a_served_model_takes_raw_columns_in_every_form_of_mlflow(trained: Project, server: Server) -> None:
    row = {"premise": "It rains.", "hypothesis": "It is wet."}
    forms: list[tuple[bytes | dict[str, Any], str]] = [
        ({"dataframe_records": [row]}, "application/json"),
        ({"dataframe_split": {"columns": list(row), "data": [list(row.values())]}}, "application/json"),
        ({"inputs": [row]}, "application/json"),
        ({"instances": [row]}, "application/json"),
        (b"premise,hypothesis\nIt rains.,It is wet.\n", "text/csv"),
        ({"dataframe_records": [{"source": "premise: It rains. hypothesis: It is wet."}]}, "application/json"),
    ]
    scores = [server.ask(body, content_type).body["predictions"][0]["scores"] for body, content_type in forms]
    assert all(score == pytest.approx(scores[0], rel=1e-6) for score in scores)
    assert sum(scores[0].values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"dataframe_records": [{"premise": "A."}]}, "row 0, task cb: there is no value in column 'hypothesis'"),
        ({"dataframe_records": [{"premis": "A.", "hypothesis": "B."}]}, "no value in column 'premise': "),
        (
            {"dataframe_records": [{"unknown": "A."}]},
            "no row has a known column; expected some of: premise, hypothesis, source",
        ),
        ({"dataframe_records": [{"premise": 3, "hypothesis": "B."}]}, "'premise' is 3, expected text"),
        ({"rows": []}, "dataframe_split"),
        (b'{"dataframe_records": [', "not readable as JSON (Expecting value: line 1 column 24 (char 23))"),
        (b"\xff\xfe", "not readable as JSON ("),
        (b"[" * 5_000 + b"]" * 5_000, "not readable as JSON (nested deeper than 20 levels)"),
        (b'{"dataframe_records": [{"premise": ' + b"[" * 50 + b"]" * 50 + b"}]}", "nested deeper than 20 levels"),
        (b'{"dataframe_records": [{"premise": ' + b"9" * 5_000 + b', "hypothesis": "B."}]}', "Exceeds the limit"),
        (b'{"dataframe_records": [{"premise": NaN, "hypothesis": "B."}]}', "no value in column 'premise'"),
        (b'{"dataframe_records": [{"premise": 1e999, "hypothesis": "B."}]}', "'premise' is inf, expected text"),
        (b'{"dataframe_records": [{"premise": ["A."], "hypothesis": "B."}]}', "'premise' is ['A.'], expected text"),
        ({"dataframe_records": [{"premise": "\ud800 A.", "hypothesis": "B."}]}, "dataframe_records.0.premise is"),
        ({"dataframe_records": [{"source": None}]}, "no value in column 'premise'"),
        (b"5", "The input must be a JSON dictionary"),
        ({"dataframe_records": 5}, ""),
        ({"dataframe_records": [None]}, ""),
        ({"dataframe_records": []}, "the request has no rows, expected at least one"),
        ({"dataframe_split": {"columns": ["source"], "data": 5}}, ""),
        ({"dataframe_split": {"columns": ["source", "source"], "data": [["a", "b"]]}}, ""),
        ({"inputs": 5}, ""),
        ({"inputs": "text: red"}, ""),
        ({"inputs": {"source": ["text: red"]}}, "'source' is ['text: red'], expected text"),
        ({"inputs": [{"source": "\udfff"}]}, "inputs.0.source is '\\udfff', expected Unicode text"),
        ({"inputs": [{"premise": 3, "hypothesis": "B."}]}, "'premise' is 3, expected text"),
        ({"instances": {"source": None}}, "no value in column 'premise'"),
        (
            {"inputs": ["a"], "dataframe_records": [{"source": "b"}]},
            "the request has dataframe_records and inputs, exp",
        ),
        ({"inputs": ["a"], "instances": ["b"]}, "the request has inputs and instances, expected rows in one of them"),
        (b'{"inputs": ["a"], "inputs": ["b"]}', "the key 'inputs' occurs twice"),
        (b'{"inputs": [{"source": "a", "source": "b"}]}', "the key 'source' occurs twice"),
        ({"messages": [{"role": "user", "content": "a"}]}, ""),
    ],
)
def test_a_bad_request_is_refused_without_a_traceback(
    server: Server, body: bytes | dict[str, Any], message: str
) -> None:
    answer = server.ask(body)
    assert 400 <= answer.status < 500
    assert message in answer.body["message"]
    assert "Traceback" not in json.dumps(answer.body)
    assert "stack_trace" not in answer.body


def test_a_request_needs_a_content_type(server: Server) -> None:
    answer = server.ask({"dataframe_records": [{"source": "text: red"}]}, "")
    assert answer.status == 415
    assert answer.body["message"] == "the request has no content type, expected application/json"


def test_broken_csv_is_refused_with_its_line(server: Server) -> None:
    answer = server.ask(b'premise,hypothesis\na,"b\n', "text/csv")
    assert (answer.status, answer.body["error_code"]) == (400, "BAD_REQUEST")
    assert answer.body["message"].startswith("the request, line 2: not readable as CSV (")


def test_a_huge_text_is_truncated_and_answered(server: Server) -> None:
    answer = server.ask({"dataframe_records": [{"source": "stone " * 200_000}]})
    assert (answer.status, answer.body["predictions"][0]["truncated"]) == (200, True)


def test_a_model_that_refers_to_its_backbone_accepts_a_new_path(project: Project) -> None:
    project.register(backbone="refer")
    moved = (project.folder / "backbone").rename(project.folder / "elsewhere")
    place = json.dumps({"backbone": str(moved)})
    program = ["mlflow", "models", "serve", "--env-manager", "local", "--model-uri", "models:/pemt-cb@champion"]
    with serving(project, program, SERVING_MODEL_CONFIG=place) as running:
        answer = running.ask({"dataframe_records": [{"source": "text: red"}]})
    assert answer.body["predictions"][0]["task"] == "cb"
