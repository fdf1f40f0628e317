"""Runs submitted through the API: the requests that arrive, and the message for every failure."""

import csv
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from kfp_containers import containers
from kfp_server import KfpServer, StepsFailedError
from source_code import REPOSITORY
from test_components import assert_one_line, free_port
from workspace import write_params

IMAGE = "registry.example/pemt-pipeline:0123456789ab"
# One source, one target, and one method with a few steps
SHORT: Mapping[str, Any] = {
    "tasks": {"sources": ["squad"], "targets": ["nq"]},
    "prepare": {"max_rows": {"train": 256, "validation": 32, "test": 32}},
    "train_source": {"training": {"max_steps": 10, "evaluate_every": 10, "validation_rows": 8}},
    "transfer": {
        "methods": ["pemt"],
        "learning_rates": [1.0e-2],
        "training": {"max_steps": 10, "evaluate_every": 10, "validation_rows": 8},
    },
    "evaluate": {"max_rows": 16},
    "kubeflow": {"retry": {"times": 0}},
}

Submit = Callable[..., subprocess.CompletedProcess[str]]


def nothing(package: Path, parameters: dict[str, Any]) -> None:
    """An executor that makes every run succeed immediately."""


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return write_params(tmp_path / "params.yaml", {})


@pytest.fixture
def submit(tmp_path: Path, params: Path) -> Submit:
    """Run the program as a user does, with warnings as errors and without kfp's files in the user's home."""

    def run(host: str, *flags: object, **environment: str) -> subprocess.CompletedProcess[str]:
        words = ["--host", host, "--image", IMAGE, "--params", params, *flags]
        command = [sys.executable, "-W", "error", "-m", "pipelines.submit", *map(str, words)]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("KF_", "MLFLOW_"))}
        return subprocess.run(
            command,
            cwd=REPOSITORY,
            env={**inherited, "HOME": str(tmp_path / "home"), **environment},
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    """Return the output of a program that succeeded without warnings."""
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the final error line of a program, without what it printed while waiting."""
    done.stdout = ""
    line = assert_one_line(done)
    assert done.stderr.count("\n") == 1
    return line


# Received requests


def test_the_same_submission_twice_registers_once(submit: Submit) -> None:
    with KfpServer(nothing) as kfp:
        first, second = succeeded(submit(kfp.url)), succeeded(submit(f"{kfp.url}/"))
        assert [pipeline["display_name"] for pipeline in kfp.pipelines] == ["pemt"]
        assert [experiment["display_name"] for experiment in kfp.experiments] == ["pemt"]
        (version,) = kfp.versions
        assert version["display_name"].startswith("pemt-0123456789ab-")
        runs = {run["run_id"]: run["pipeline_version_reference"]["pipeline_version_id"] for run in kfp.runs}
        assert list(runs.values()) == [version["pipeline_version_id"]] * 2
        for output, run in zip((first, second), runs, strict=True):
            assert f"{kfp.url}/#/runs/details/{run}\n" in output


def test_changed_settings_make_a_new_version(submit: Submit, params: Path) -> None:
    with KfpServer(nothing) as kfp:
        succeeded(submit(kfp.url))
        write_params(params, {"train_source": {"training": {"max_steps": 7}}})
        succeeded(submit(kfp.url))
        assert len(kfp.pipelines) == 1
        names = [version["display_name"] for version in kfp.versions]
        assert len(set(names)) == 2
        assert {name.rpartition("-")[0] for name in names} == {"pemt-0123456789ab"}
        defaults = [version["pipeline_spec"]["root"]["inputDefinitions"]["parameters"] for version in kfp.versions]
        steps = [json.loads(d["params"]["defaultValue"])["train_source"]["training"]["max_steps"] for d in defaults]
        assert steps == [400, 7]


def test_the_compiled_pipeline_and_the_arguments_arrive(submit: Submit, params: Path, tmp_path: Path) -> None:
    received: list[tuple[bytes, dict[str, Any]]] = []
    output = tmp_path / "compiled.yaml"
    command = [sys.executable, "-m", "pipelines.compile", "--params", params, "--image", IMAGE, "--output", output]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    choices = ["--recipe", "scratch", "--sources", "mnli", "sst2", "--targets", "rte", "--k", "8", "full", "--seeds", 5]
    names = ["--experiment", "trial", "--run-name", "by hand", "--pipeline-root", "s3://bucket/pemt"]
    with KfpServer(lambda package, parameters: received.append((package.read_bytes(), parameters))) as kfp:
        succeeded(submit(kfp.url, "--wait", *choices, *names))
        assert kfp.experiments[0]["display_name"] == "trial"
        assert kfp.runs[0]["display_name"] == "by hand"
        assert kfp.runs[0]["experiment_id"] == kfp.experiments[0]["experiment_id"]
        assert kfp.runs[0]["runtime_config"]["pipeline_root"] == "s3://bucket/pemt"
    lists = {"sources": ["mnli", "sst2"], "targets": ["rte"], "k": [8, "full"], "seeds": [5]}
    assert received == [(output.read_bytes(), {"recipe": "scratch", **lists})]


def test_no_cache_disables_the_cache_of_every_task(submit: Submit) -> None:
    def cached(tree: Any) -> int:
        children = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ()
        enabled = isinstance(tree, dict) and tree.get("cachingOptions", {}).get("enableCache", False)
        return enabled + sum(map(cached, children))

    with KfpServer(nothing) as kfp:
        succeeded(submit(kfp.url))
        succeeded(submit(kfp.url, "--no-cache"))
        specifications = [list(yaml.safe_load_all(kfp.uploaded(version).read_bytes())) for version in kfp.versions]
    assert [cached(specification) for specification in specifications] == [9, 0]  # the report is never cached
    for (specification, *_), rerun in zip(specifications, ("", "{{$.pipeline_job_uuid}}"), strict=True):
        tasks = specification["root"]["dag"]["tasks"]
        values = [tasks[step]["inputs"]["parameters"]["rerun"] for step in ("plan", "report")]
        assert values == [{"runtimeValue": {"constant": rerun}}] * 2


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (
            ["--targets", "cbb"],
            1,
            "params.yaml with --targets: tasks.targets: there is no task 'cbb': did you mean 'cb'?",
        ),
        (["--seeds", "-1"], 2, "argument --seeds: '-1': expected a number from 0 to"),
        (["--k", "0"], 2, "argument --k: '0': expected full, or a number of rows from 1 to"),
        (["--image", "My Image"], 2, "argument --image: 'My Image': expected an image, as in ghcr.io/team/pemt:tag"),
        (["--namespace", "My_Team"], 2, "argument --namespace: 'My_Team': expected lower-case letters, digits and -"),
        (["--token-file", "~/token"], 1, "~/token: there is no folder ~ here; write out what ~ stands for"),
    ],
)
def test_bad_flags_are_named_before_anything_is_asked(
    submit: Submit, words: list[str], code: int, expected: str
) -> None:
    done = submit("http://localhost:1", *words)
    assert done.returncode == code
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


# Waiting


def test_waiting_prints_each_state_and_succeeds(submit: Submit) -> None:
    with KfpServer(lambda package, parameters: time.sleep(2)) as kfp:
        output = succeeded(submit(kfp.url, "--wait"))
    states = [line.split()[1] for line in output.splitlines() if line[2:3] == ":"]
    assert states[-2:] == ["RUNNING", "SUCCEEDED"]


def test_without_waiting_the_run_continues(submit: Submit) -> None:
    ended = threading.Event()
    with KfpServer(lambda package, parameters: ended.set() if ended.wait(60) else None) as kfp:
        output = succeeded(submit(kfp.url))
        assert kfp.runs[0]["state"] == "RUNNING"
        ended.set()
    assert "SUCCEEDED" not in output


def test_a_failed_run_is_an_error_with_the_messages_of_its_steps(submit: Submit) -> None:
    def fail(package: Path, parameters: dict[str, Any]) -> None:
        raise StepsFailedError(("transfer", "the loss is nan\nat step 2"), ("transfer", "no rows"), ("evaluate", ""))

    with KfpServer(fail) as kfp:
        done = submit(kfp.url, "--wait")
        run = kfp.runs[0]["run_id"]
    assert "failed: transfer: the loss is nan at step 2\n" in done.stdout
    steps = "transfer: the loss is nan at step 2; transfer: no rows; evaluate: see its log"
    assert error_of(done) == f"error: the run {run} ended as FAILED: {steps}"  # the group `root` is left out


@pytest.mark.parametrize("state", ["CANCELED", "SKIPPED"])
def test_a_terminated_run_is_an_error(submit: Submit, state: str) -> None:
    def end(package: Path, parameters: dict[str, Any]) -> None:
        raise StepsFailedError(state=state)

    with KfpServer(end) as kfp:
        assert f"ended as {state}: the run did not end well" in error_of(submit(kfp.url, "--wait"))


def test_waiting_survives_a_server_outage_and_a_renewed_token(submit: Submit, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("old\n")
    with KfpServer(nothing, token="old") as kfp:

        def disturb(package: Path, parameters: dict[str, Any]) -> None:
            kfp.refusals = {"get_run": (503, "upstream connect error")}
            time.sleep(2)
            file.write_text("new\n")
            kfp.token, kfp.refusals = "new", {}

        kfp.executor = disturb
        assert "SUCCEEDED" in succeeded(submit(kfp.url, "--wait", "--token-file", file))
        assert kfp.requests.count("get_run") > 1


def test_a_token_that_expires_while_waiting_is_an_error(submit: Submit, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("old")
    with KfpServer(nothing, token="old") as kfp:

        def expire(package: Path, parameters: dict[str, Any]) -> None:
            time.sleep(1)
            kfp.token = "new"
            time.sleep(2)

        kfp.executor = expire
        error = error_of(submit(kfp.url, "--wait", "--token-file", tmp_path / "token"))
        assert f"the request for the run {kfp.runs[0]['run_id']}, which continues" in error
        assert f"the content of {tmp_path / 'token'} is wrong or expired" in error


# Secrets


def test_a_token_a_cookie_or_a_mounted_token_authenticates(submit: Submit, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret=abc; other=def\n")
    with KfpServer(nothing, token="s3cret=abc; other=def") as kfp:
        outputs = [succeeded(submit(kfp.url, "--wait", "--token-file", tmp_path / "secret"))]
        outputs += [succeeded(submit(kfp.url, KF_PIPELINES_SA_TOKEN_PATH=str(tmp_path / "secret")))]
        assert len(kfp.runs) == 2
    with KfpServer(nothing, cookie="s3cret=abc; other=def") as kfp:
        outputs += [succeeded(submit(kfp.url, "--cookie-file", tmp_path / "secret"))]
        assert len(kfp.runs) == 1
    assert not any("s3cret" in output for output in outputs)


def test_a_secret_that_is_rejected_is_not_shown(submit: Submit, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret")
    with KfpServer(nothing, token="another") as kfp:
        for flag in ("--token-file", "--cookie-file"):
            error = error_of(submit(kfp.url, flag, tmp_path / "secret"))
            assert "it rejects the login for the request for its health (401 Request header error" in error
            assert f"the content of {tmp_path / 'secret'} is wrong or expired" in error
            assert "s3cret" not in error
        assert "pass --token-file or --cookie-file" in error_of(submit(kfp.url))
        assert (kfp.experiments, kfp.pipelines) == ([], [])


@pytest.mark.parametrize("flag", ["--token-file", "--cookie-file"])
def test_a_missing_secret_file_is_named_before_any_request(submit: Submit, tmp_path: Path, flag: str) -> None:
    (tmp_path / "empty").write_text(" \n")
    with KfpServer(nothing) as kfp:
        assert f"{flag} is {tmp_path / 'absent'}: not readable" in error_of(submit(kfp.url, flag, tmp_path / "absent"))
        assert f"{flag} is {tmp_path / 'empty'}: it is empty" in error_of(submit(kfp.url, flag, tmp_path / "empty"))
        (tmp_path / "lines").write_text("s3cret\nand more")
        error = error_of(submit(kfp.url, flag, tmp_path / "lines"))
        assert f"{flag} is {tmp_path / 'lines'}: expected one line of ASCII text" in error
        assert "s3cret" not in error
        assert kfp.requests == []


# Namespaces


def test_a_run_in_a_namespace(submit: Submit) -> None:
    with KfpServer(nothing, namespaces=["team", "other"]) as kfp:
        succeeded(submit(kfp.url, "--namespace", "team"))
        succeeded(submit(kfp.url, "--namespace", "other"))
        for records in (kfp.experiments, kfp.pipelines):
            assert [record["namespace"] for record in records] == ["team", "other"]


def test_a_namespace_that_is_missing_or_unknown(submit: Submit, tmp_path: Path) -> None:
    with KfpServer(nothing, namespaces=["team"]) as kfp:
        assert error_of(submit(kfp.url)) == (
            f"error: {kfp.url}: each user has a namespace there; name yours in --namespace"
        )
        error = error_of(submit(kfp.url, "--namespace", "taem"))
        assert "it refuses the request for the experiment pemt (403 User 'user@example.com' is not authorized" in error
        assert error.endswith("may you use the namespace taem?")
        assert (kfp.experiments, kfp.pipelines, kfp.runs) == ([], [], [])


# Rejected requests


@pytest.mark.parametrize(
    ("route", "status", "asked"),
    [
        ("create_experiment", 500, "for the experiment pemt"),
        ("create_pipeline", 409, "for the pipeline pemt"),
        ("upload_pipeline_version", 400, "for the version pemt-0123456789ab-"),
        ("create_run", 400, "for a run of pemt-0123456789ab-"),
    ],
)
def test_an_error_of_the_server_is_quoted(submit: Submit, route: str, status: int, asked: str) -> None:
    with KfpServer(nothing, refusals={route: (status, "Invalid input error: its own words")}) as kfp:
        error = error_of(submit(kfp.url))
        assert error.startswith(f"error: {kfp.url}: it refuses the request {asked}")
        assert error.endswith(f" ({status} Invalid input error: its own words)")
        assert kfp.requests[-1] == route
        assert kfp.runs == []


# Servers that are not the API


def test_an_unreachable_host_is_explained(submit: Submit) -> None:
    host = f"http://127.0.0.1:{free_port()}"
    error = error_of(submit(host))
    assert error.startswith(f"error: {host}: no answer to the request for its health")
    assert "Connection refused" in error


@pytest.mark.parametrize(("status", "found"), [(404, "404 Not Found"), (200, "text/html: a login page")])
def test_a_server_without_the_api_is_explained(submit: Submit, status: int, found: str) -> None:
    with another_program(status) as host:
        begin = time.monotonic()
        error = error_of(submit(host))
        assert time.monotonic() - begin < 15  # kfp's five attempts take longer if a status is not 200
    assert error.startswith(f"error: {host}: the server is not the API of Kubeflow Pipelines")
    assert found in error


@contextmanager
def another_program(status: int) -> Iterator[str]:
    """Run a server that answers every request with a page."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<html>welcome</html>")

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_host_without_a_scheme_and_missing_certificates_are_explained(submit: Submit, tmp_path: Path) -> None:
    expected = "--host is 'localhost:8888': expected a URL that begins with http:// or https://"
    assert error_of(submit("localhost:8888")) == f"error: {expected}"
    error = error_of(submit("https://localhost:1", "--ca", tmp_path / "absent.pem"))
    assert error.startswith(f"error: --ca is {tmp_path / 'absent.pem'}: no such file")


# Errors that would otherwise appear only on the cluster


def test_tracking_to_a_file_is_an_error_before_any_request(submit: Submit, params: Path) -> None:
    write_params(params, {"kubeflow": {"secret": ""}})
    with KfpServer(nothing) as kfp:
        error = error_of(submit(kfp.url, MLFLOW_TRACKING_URI="http://mlflow:5000"))  # not passed to containers
        assert error.startswith(f"error: {params}: tracking.uri is sqlite:///mlflow.db and kubeflow.secret is empty")
        assert kfp.requests == []
        write_params(params, {"kubeflow": {"secret": ""}, "tracking": {"uri": "http://mlflow:5000"}})
        succeeded(submit(kfp.url))


def test_an_unknown_choice_is_an_error_before_any_request(submit: Submit) -> None:
    with KfpServer(nothing) as kfp:
        error = error_of(submit(kfp.url, "--recipe", "papper"))
        assert "recipe 'papper': there is no recipes/papper.yaml; did you mean 'paper'?" in error
        assert kfp.requests == []


# Runs in containers


@pytest.mark.engine
@pytest.mark.slow
def test_a_run_in_containers_writes_its_scores(submit: Submit, params: Path, tmp_path: Path, engine_image: str) -> None:
    write_params(params, SHORT)
    with KfpServer(containers(params, tmp_path / "root")) as kfp:
        output = succeeded(submit(kfp.url, "--wait", "--image", engine_image, "--seeds", 7))
    assert output.endswith("SUCCEEDED\n")
    (table,) = (tmp_path / "root").glob("runs/*/report/results/table.csv")
    with table.open() as lines:
        (row,) = csv.DictReader(lines)
    assert (row["target"], row["method"], row["k"]) == ("nq", "pemt", "32")
    with closing(sqlite3.connect(tmp_path / "root" / "mlflow.db")) as database:
        tracked = database.execute(
            "select distinct t.value, m.value from tags t join metrics m using (run_uuid) join runs r using (run_uuid) "
            "where t.key = 'pemt.cell' and m.key = 'test/main' and r.status = 'FINISHED'"
        ).fetchall()
    ((cell, score),) = tracked
    assert cell == "transfer/nq/pemt/k=32/seed=7"
    assert score > 0
    assert float(row["mean"]) == pytest.approx(score, abs=1e-5)


@pytest.mark.engine
@pytest.mark.slow
def test_a_message_from_a_container_reaches_the_user(
    submit: Submit, params: Path, tmp_path: Path, engine_image: str
) -> None:
    write_params(params, {**SHORT, "per_target": {"nq": {"learning_rates": [1.0e30]}}})
    with KfpServer(containers(params, tmp_path / "root")) as kfp:
        done = submit(kfp.url, "--wait", "--image", engine_image)
        error = error_of(done)
        assert kfp.runs[0]["state"] == "FAILED"
    assert "ended as FAILED: transfer: transfer nq pemt-k32-seed31: the loss is nan" in error
    assert "learning rate 1e+30" in error
    assert "; report: there are no results to report" in error  # the report runs even if a step failed
