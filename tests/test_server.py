"""One server for several targets: real processes and requests, compared with a predictor in this process."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import jsonschema
import kubernetes_validate
import pytest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML
from source_code import REPOSITORY
from test_serving import CONTROL, MODELS, PEMT, Project, command, free_port
from tiny import World, write_task

from pemt_core.prediction.predictor import Predictor, load_predictor
from pemt_core.serving.batching import QueueLimits, RowQueue
from pemt_core.serving.errors import BusyError, MediaTypeError, RequestError, TooLargeError
from pemt_core.serving.requests import rows_of
from pemt_core.settings import ModelSettings
from pemt_core.settings.steps import Register
from pemt_core.steps.register import register
from pemt_core.tasks import get_task
from pemt_core.tracking.models import FINGERPRINT

REMEDY = "`dvc repro register` registers the trained targets"
TARGETS = ("boolq", "cb", "rte")
ROWS: dict[str, dict[str, Any]] = {
    "boolq": {"question": "is the stone red", "passage": "The stone is blue."},
    "cb": {"premise": "The lamp is red.", "hypothesis": "The lamp is blue."},
    "rte": {"sentence1": "A river.", "sentence2": "It is red."},
}


def register_targets(project: Project, targets: Sequence[str]) -> None:
    models = ModelSettings(**{**MODELS, "backbone": "refer"})
    shared: dict[str, Any] = {"methods": ["pemt", "control"], "batch_size": 4, "prefix": "pemt", "code": ""}
    register(project.folders, Register(targets=list(targets), own_tasks={}, models=models, **shared), project.tracker())


@pytest.fixture(scope="module")
def project(world: World, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Three targets with one version each, and a second version of cb, its control, without the alias."""
    folder = tmp_path_factory.mktemp("server") / "project"
    shutil.copytree(world.folder, folder)
    project = Project(folder)
    for target in TARGETS:
        write_task(folder / "data", target)
        World(folder).transfer(
            folder / "targets" / target,
            task=target,
            methods=["pemt", "control"] if target == "cb" else ["pemt"],
            epochs=1,
        )
        for cell in sorted((folder / "targets" / target).iterdir()):
            project.record_run(cell.name, target)
    project.score(PEMT, 80.0)
    project.score(CONTROL, 70.0)
    register_targets(project, TARGETS)
    project.score(CONTROL, 90.0)
    register_targets(project, ["cb"])
    point(project, 1)
    return project


def point(project: Project, version: int) -> None:
    """Move the alias of cb."""
    project.client().set_registered_model_alias("pemt-cb", "champion", str(version))


def predictor_of(project: Project, cell: str = PEMT, targets: Sequence[str] = TARGETS) -> Predictor:
    cells = dict.fromkeys(targets, PEMT) | {"cb": cell}
    folder = project.folder
    return load_predictor(
        folder / "backbone",
        folder / "experts",
        {target: folder / "targets" / target / cell for target, cell in cells.items()},
        {target: folder / "data" / target for target in cells},
        {target: get_task(target).conversion for target in cells},
        batch_size=4,
    )


@pytest.fixture(scope="module")
def known(project: Project) -> dict[str, dict[str, Any]]:
    """The answers to ROWS, and to cb's row by its second version."""
    answers = predictor_of(project).predict([{"task": target, **row} for target, row in ROWS.items()])
    (control,) = predictor_of(project, CONTROL, ["cb"]).predict([ROWS["cb"]])
    return {each.task: each.record() for each in answers} | {"cb control": control.record()}


def is_same(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether two answers are equal but for rounding: batches of other sizes round differently."""
    numbers = ("score", "scores", "expert_weights")
    same = all(found[name] == expected[name] for name in found if name not in numbers)
    return same and all(found[name] == pytest.approx(expected[name], rel=1e-4) for name in numbers)


@dataclass(frozen=True)
class Server:
    process: "subprocess.Popen[bytes]"
    client: httpx2.Client
    log: Path

    def ask(self, *rows: dict[str, Any]) -> httpx2.Response:
        return self.client.post("/invocations", json={"dataframe_records": list(rows)})

    def predictions(self, *rows: dict[str, Any]) -> list[dict[str, Any]]:
        answer = self.ask(*rows)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["predictions"]
        return found

    def target(self, name: str) -> dict[str, Any]:
        return {each["target"]: each for each in self.client.get("/targets").json()["targets"]}[name]

    def metric(self, name: str, **labels: str) -> float:
        families = text_string_to_metric_families(self.client.get("/metrics").text)
        samples = [s for family in families for s in family.samples if s.name == name]
        return sum(s.value for s in samples if labels.items() <= s.labels.items())


@contextmanager
def serving(project: Project, log: Path, *words: str) -> Iterator[Server]:
    port, variables = free_port(), {"MLFLOW_TRACKING_URI": project.uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "components.serve", *words, "--port", str(port)],
            cwd=REPOSITORY, env={**os.environ, **variables}, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            wait_for(lambda: process.poll() is not None or is_ready(client))
            assert process.poll() is None, log.read_text()
            yield Server(process, client, log)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()


def is_ready(client: httpx2.Client) -> bool:
    try:
        return client.get("/ready").status_code == 200
    except httpx2.TransportError:
        return False


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def server(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """All champions, on the registry's heels."""
    with serving(project, tmp_path_factory.mktemp("log") / "server.log", "--poll", "0.1", "--wait", "30") as running:
        yield running


# Answers


def test_rows_of_all_targets_get_the_predictors_answers(server: Server, known: dict[str, Any]) -> None:
    rows = [{"task": target, **row} for target, row in ROWS.items()]
    mixed = server.predictions(*rows, *reversed(rows), {"task": "cb", "source": "text: red"})
    assert [each["task"] for each in mixed] == [*TARGETS, *reversed(TARGETS), "cb"]
    assert all(is_same(each, known[each["task"]]) for each in mixed[:-1])


def test_concurrent_requests_are_answered_together(server: Server, known: dict[str, Any]) -> None:
    before = server.metric("pemt_batch_rows_count")
    targets = TARGETS * 8
    with ThreadPoolExecutor(len(targets)) as threads:
        answers = list(threads.map(lambda name: server.predictions({"task": name, **ROWS[name]}), targets))
    assert all(is_same(answer, known[name]) for (answer,), name in zip(answers, targets, strict=True))
    assert server.metric("pemt_batch_rows_count") - before < len(targets)


def test_a_bad_request_harms_no_other(server: Server, known: dict[str, Any]) -> None:
    bad = [{"task": "cb", "premise": "A."}, {"task": "cbb", "source": "a"}, {"source": "a"}]
    with ThreadPoolExecutor(12) as threads:
        good = [threads.submit(server.predictions, {"task": "rte", **ROWS["rte"]}) for _ in range(9)]
        refused = list(threads.map(server.ask, bad))
    assert all(is_same(each.result()[0], known["rte"]) for each in good)
    assert [answer.status_code for answer in refused] == [400] * 3
    messages = [answer.json()["message"] for answer in refused]
    assert messages[0].startswith("row 0, task cb: there is no value in column 'hypothesis'")
    assert messages[1] == "row 0: there is no target 'cbb' here; did you mean 'cb'?"
    assert messages[2] == "row 0: the column 'task' must name its target: boolq, cb, rte"


def test_csv_names_targets_too(server: Server, known: dict[str, Any]) -> None:
    body = "task,premise,hypothesis\ncb,The lamp is red.,The lamp is blue.\n"
    answer = server.client.post("/invocations", content=body, headers={"Content-Type": "text/csv; charset=utf-8"})
    assert is_same(answer.json()["predictions"][0], known["cb"])


# Changes at run time


def test_the_alias_moves_under_load_without_a_lost_request(
    server: Server, project: Project, known: dict[str, Any]
) -> None:
    stopped, answers = threading.Event(), list[httpx2.Response]()

    def keep_asking() -> None:
        while not stopped.is_set():
            answers.append(server.ask({"task": "cb", **ROWS["cb"]}))

    with ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(keep_asking) for _ in range(4)]
        try:
            for version in (2, 1):
                point(project, version)
                wait_for(lambda version=version: server.target("cb")["version"] == version)
                (now,) = server.predictions({"task": "cb", **ROWS["cb"]})
                assert is_same(now, known["cb control" if version == 2 else "cb"])
        finally:
            stopped.set()
    assert all(each.result() is None for each in asking)
    assert {answer.status_code for answer in answers} == {200}
    found = [answer.json()["predictions"][0] for answer in answers]
    assert all(is_same(each, known["cb"]) or is_same(each, known["cb control"]) for each in found)
    assert server.metric("pemt_target_version", target="cb") == 1


def test_calls_add_replace_and_remove_targets(server: Server, known: dict[str, Any]) -> None:
    row = {"task": "cb", **ROWS["cb"]}
    pinned = server.client.post("/targets/cb", json={"version": 2}).json()
    assert (pinned["version"], pinned["follows_alias"], pinned["error"]) == (2, False, None)
    assert pinned["run"] == "transfer/cb/control/k=full/seed=4096"
    assert is_same(server.predictions(row)[0], known["cb control"])
    assert server.client.delete("/targets/cb").json()["target"] == "cb"
    refused = server.ask(row)
    assert (refused.status_code, refused.json()["message"]) == (
        400,
        "row 0: there is no target 'cb' here; choose from: boolq, rte",
    )
    looks = server.metric("pemt_requests_total", path="/targets")
    wait_for(lambda: server.metric("pemt_requests_total", path="/targets") >= looks)  # it stays removed
    assert server.client.delete("/targets/cb").status_code == 404
    assert server.client.post("/targets/cb").json()["follows_alias"]
    assert is_same(server.predictions(row)[0], known["cb"])


def test_a_call_names_what_it_cannot_do(server: Server) -> None:
    def refused(name: str, body: dict[str, Any]) -> tuple[int, str]:
        answer = server.client.post(f"/targets/{name}", json=body)
        return answer.status_code, answer.json()["message"]

    assert refused("cb", {"version": 9}) == (404, "the model pemt-cb has no version 9; choose from: 1, 2")
    for name, body in (("cb", {"version": 10**30}), ("c@b", {"version": 1}), ("c@b", {})):
        status, message = refused(name, body)
        assert (status, "is not a model; expected models:/<name>@<alias> or" in message) == (404, True)
    status, message = refused("cd", {})
    assert (status, "no registered model 'pemt-cd'; did you mean 'pemt-cb'?" in message) == (404, True)
    for version in (True, 1.0, "1"):
        status, message = refused("cb", {"version": version})
        assert (status, message.startswith("body.version: Input should be a valid integer")) == (400, True)
    status, message = refused("cb", {"versions": 1})
    assert (status, message.startswith("body.versions: Extra inputs are not permitted")) == (400, True)
    answer = server.client.get("/invocation")
    assert (answer.status_code, "/invocations" in answer.json()["message"]) == (404, True)
    assert server.client.get("/invocations").status_code == 405


def test_a_version_that_fails_to_load_changes_nothing(server: Server, project: Project, known: dict[str, Any]) -> None:
    failures = server.metric("pemt_target_load_failures_total", target="cb")
    (tensors,) = [
        path
        for path in (project.folder / "mlartifacts").rglob("adapter.safetensors")
        if path.parent.name == "cb" and is_control(path.parent)
    ]
    content = tensors.read_bytes()
    tensors.write_bytes(content[:-1])
    try:
        answer = server.client.post("/targets/cb", json={"version": 2})
        assert answer.status_code == 409
        assert answer.json()["message"].startswith("version 2 of pemt-cb cannot be served: targets/cb/adapter.safe")
        assert answer.json()["message"].endswith("; it is truncated or altered; version 1 stays")
        assert server.target("cb")["error"] == answer.json()["message"]
        assert server.target("cb")["version"] == 1
        assert is_same(server.predictions({"task": "cb", **ROWS["cb"]})[0], known["cb"])
        assert server.metric("pemt_target_load_failures_total", target="cb") == failures + 1
        assert answer.json()["message"] in server.log.read_text()
    finally:
        tensors.write_bytes(content)
    assert server.client.post("/targets/cb", json={}).json()["error"] is None


def is_control(folder: Path) -> bool:
    return bool(json.loads((folder / "adapter.json").read_text())["method"] == "control")


def test_a_version_of_another_backbone_is_refused(server: Server, project: Project) -> None:
    version = project.client().get_model_version("pemt-cb", "2")
    project.client().set_model_version_tag("pemt-cb", "2", FINGERPRINT, "0123456789abcdef")
    try:
        answer = server.client.post("/targets/cb", json={"version": 2})
    finally:
        project.client().set_model_version_tag("pemt-cb", "2", FINGERPRINT, version.tags[FINGERPRINT])
    assert answer.status_code == 409
    found = version.tags[FINGERPRINT][:12]
    expected = f"it was trained on the backbone 0123456789ab, but this server has {found}; `pemt serve cb` serves it"
    assert expected in answer.json()["message"]
    assert server.client.post("/targets/cb", json={}).status_code == 200


# What else it tells


def test_probes_and_versions(server: Server) -> None:
    from mlflow.version import VERSION

    assert [server.client.get(path).status_code for path in ("/ping", "/health", "/ready", "/docs")] == [200] * 4
    assert server.client.get("/version").text == VERSION
    assert server.client.get("/ready").json() == {"ready": True, "message": "answers for boolq, cb, rte"}


def test_metrics_count_what_was_answered(server: Server) -> None:
    def counted() -> tuple[float, ...]:
        answered = server.metric("pemt_requests_total", path="/invocations", status="200")
        refused = server.metric("pemt_requests_total", path="/invocations", status="400")
        seconds = server.metric("pemt_request_seconds_count", path="/invocations")
        return answered, refused, server.metric("pemt_rows_total", target="rte"), seconds

    before = counted()
    row = {"task": "rte", **ROWS["rte"]}
    server.predictions(row, row, row)
    server.ask({"task": "rte"})
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [1, 1, 3, 2]
    assert server.metric("pemt_queue_rows") == 0
    assert server.metric("pemt_registry_reached") == 1


def test_openapi_describes_rows_and_answers(server: Server) -> None:
    described = server.client.get("/openapi.json").json()
    body = described["paths"]["/invocations"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = jsonschema.Draft202012Validator(body)
    rows = [{"task": target, **row} for target, row in ROWS.items()]
    split = {"columns": ["task", "source"], "data": [["cb", "text: red"]]}
    for good in ({"inputs": rows}, {"dataframe_records": rows}, {"instances": rows[0]}, {"dataframe_split": split}):
        validator.validate(good)
        assert server.client.post("/invocations", json=good).status_code == 200
    for bad in ({"inputs": [{"task": "cb", "premise": "A."}]}, {"inputs": [{"task": "cd", "source": "a"}]}, {}):
        assert not validator.is_valid(bad)
        assert server.client.post("/invocations", json=bad).status_code == 400
    schemas = described["components"]["schemas"]
    answers = {**schemas["Answers"], "components": {"schemas": schemas}}
    jsonschema.Draft202012Validator(answers).validate({"predictions": server.predictions(*rows)})


# Limits, and the end


def test_a_full_queue_and_a_signal(project: Project, known: dict[str, Any], tmp_path: Path) -> None:
    """Requests beyond the queue get 503; those that run when SIGTERM comes are answered."""
    words = ("cb", "--queue", "2", "--batch", "1", "--no-admin", "--poll", "0")
    with serving(project, tmp_path / "log", *words) as server:
        row = {"source": "text: red " + "stone " * 30}
        too_large = server.ask(row, row, row)
        assert too_large.status_code == 413
        assert too_large.json()["message"].startswith("the request has 3 rows, and the queue takes 2")
        assert server.client.delete("/targets/cb").status_code == 403
        assert is_same(server.predictions(ROWS["cb"])[0], known["cb"])
        with ThreadPoolExecutor(40) as threads:
            answers = list(threads.map(lambda _: server.ask(row), range(200)))
            full = [answer for answer in answers if answer.status_code == 503]
            assert {answer.status_code for answer in answers} == {200, 503}
            assert all(int(answer.headers["Retry-After"]) >= 1 for answer in full)
            assert re.match(
                r"\d rows are waiting, and the queue takes 2: try again in \d+ s", full[0].json()["message"]
            )
            running = [threads.submit(server.ask, row, row) for _ in range(3)]
            wait_for(lambda: server.metric("pemt_queue_rows") == 2 or any(each.done() for each in running))
            server.process.send_signal(signal.SIGTERM)
            done = [each.exception() or each.result().status_code for each in running]
        assert server.process.wait(15) == 143
        assert 200 in done
        assert {status for status in done if not isinstance(status, httpx2.TransportError)} <= {200, 503}
        assert "Traceback" not in server.log.read_text()


def test_targets_that_cannot_be_served_end_the_command(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = command(monkeypatch, project, "serve", "--alias", "best")
    assert message.endswith(
        "no model pemt-<target> has the alias 'best'; `dvc repro register` registers the trained targets"
    )
    assert command(monkeypatch, project, "serve", "--queue", "0") == "error: --queue is 0, expected 1 or more"
    empty = tmp_path / "empty"
    assert command(monkeypatch, project, "serve", "--backbone", str(empty)) == (
        f"error: --backbone is {empty}: no such folder"
    )
    port = str(free_port())
    done = subprocess.run(
        [sys.executable, "-m", "components.serve", "cb", "--backbone", str(tmp_path), "--port", port],
        cwd=REPOSITORY, env={**os.environ, "MLFLOW_TRACKING_URI": project.uri}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'backbone.json'}")
    assert "Traceback" not in done.stderr


# Its parts


def test_rows_that_were_read_are_answered_by_their_target(project: Project, known: dict[str, Any]) -> None:
    predictor, other = predictor_of(project, targets=["cb"]), predictor_of(project, CONTROL, ["cb"])
    read = predictor.read([ROWS["cb"]])
    predictor.add("cb", other.targets["cb"])
    assert is_same(predictor.answer(read)[0].record(), known["cb"])
    later = predictor.read([ROWS["cb"]])
    assert [each.target for each in later] == [other.targets["cb"]]
    predictor.remove("cb")
    assert is_same(predictor.answer(read)[0].record(), known["cb"])
    assert predictor.targets == {}
    with pytest.raises(KeyError):
        predictor.remove("cb")


def queue_of(answer: Callable[[Any], Any], *, wait: float = 0.0, most: int = 4, batch: int = 4) -> RowQueue:
    return RowQueue(answer, QueueLimits(wait, most, batch), lambda rows, seconds: None)


def test_the_queue_is_bounded_and_ends_empty() -> None:
    entered, released, batches = threading.Event(), threading.Event(), list[Any]()

    def answer(rows: Any) -> Any:
        batches.append(list(rows))
        entered.set()
        released.wait()
        return [row * 10 for row in rows]

    queue: Any = queue_of(answer)
    first = queue.submit([1])
    entered.wait()
    waiting: list[Future[Any]] = [queue.submit([2, 3]), queue.submit([4, 5])]
    with pytest.raises(BusyError, match="4 rows are waiting, and the queue takes 4: try again in 1 s"):
        queue.submit([6])
    with pytest.raises(TooLargeError, match="has 5 rows, and the queue takes 4"):
        queue.submit([1] * 5)
    assert waiting[0].cancel()  # its client is gone
    released.set()
    queue.close()
    assert (first.result(), waiting[1].result()) == ([10], [40, 50])
    assert batches == [[1], [4, 5]]
    assert not queue.is_alive
    with pytest.raises(BusyError, match="stopping"):
        queue.submit([7])


def test_a_request_that_fails_harms_no_other_in_its_batch() -> None:
    def answer(rows: Any) -> Any:
        return [60 // row for row in rows]

    queue: Any = queue_of(answer, wait=60)
    futures = [queue.submit(rows) for rows in ([1, 2], [0], [3])]  # the third completes a batch
    assert futures[0].result() == [60, 30]
    assert isinstance(futures[1].exception(), ZeroDivisionError)
    assert futures[2].result() == [20]
    queue.close()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ('{"dataframe_record": []}', "has no rows: .*did you mean 'dataframe_records'?"),
        ('{"dataframe_records": {"a": 1}}', r"dataframe_records is \{'a': 1\}, expected a list of rows"),
        ('{"inputs": [{"a": 1}, "b"]}', "inputs.1 is 'b', expected an object with the columns of a row"),
        ('{"dataframe_split": {"columns": ["a"]}}', "expected an object with columns and data"),
        ('{"dataframe_split": {"columns": ["a", "a"], "data": []}}', "dataframe_split.columns has 'a' twice"),
        ('{"dataframe_split": {"columns": [1], "data": []}}', r"columns is \[1\], expected a list of names"),
        (
            '{"dataframe_split": {"columns": ["a"], "data": [["b"], []]}}',
            r"data.1 is \[\], expected a list of 1 v",
        ),
        ('{"dataframe_split": {"columns": ["a"], "data": []}}', "the request has no rows, expected at least one"),
        ('{"inputs": []}', "the request has no rows, expected at least one"),
        ("[]", r"must be a JSON dictionary with exactly one of .*; it is \[\]"),
    ],
)
def test_an_unreadable_body_is_named(body: str, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        rows_of(body.encode(), "application/json", ())


def test_types_and_numbers_of_a_body() -> None:
    csv = b"task,span1_index,text\nwsc,3,7\nwsc,3.0,7.0\nwsc,x,007\n"
    assert rows_of(csv, "Text/CSV", {"span1_index"}) == [
        {"task": "wsc", "span1_index": 3, "text": "7"},
        {"task": "wsc", "span1_index": 3, "text": "7.0"},
        {"task": "wsc", "span1_index": "x", "text": "007"},
    ]
    with pytest.raises(RequestError, match="the request, line 2: 1 field, but line 1 names 2 columns"):
        rows_of(b"a,b\nc\n", "text/csv", ())
    with pytest.raises(MediaTypeError, match="the content type is 'text/plain', expected application/json or text/csv"):
        rows_of(b"", "text/plain", ())
    with pytest.raises(MediaTypeError, match="the charset is 'latin-1', expected utf-8"):
        rows_of(b"", "application/json; charset=latin-1", ())


# Kubernetes


def test_manifests_fit_the_schemas(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "k8s"
    words = ("serve", "cb", "rte", "--manifests", str(folder), "--image", "registry/pemt:1")
    assert command(monkeypatch, project, *words) == ""
    resources = {path.stem: YAML(typ="safe").load(path) for path in sorted(folder.iterdir())}
    deployment, inference, service = (resources[name] for name in ("deployment", "inferenceservice", "service"))
    for resource in (deployment, service):
        kubernetes_validate.validate(resource, "1.31", strict=True)
    pod = deployment["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    (container,) = pod["spec"]["containers"]
    assert container["command"] == ["python", "-m", "components.serve"]
    assert container["args"][:6] == ["cb", "rte", "--experiment", "pemt", "--alias", "champion"]
    assert {each["httpGet"]["path"] for each in (container["readinessProbe"], container["livenessProbe"])} == {
        "/ready",
        "/health",
    }
    assert (inference["apiVersion"], inference["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    predictor = dict(inference["spec"]["predictor"])
    assert (predictor.pop("minReplicas"), predictor.pop("maxReplicas")) == (1, 2)
    kubernetes_validate.validate(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "predictor"}, "spec": predictor}, "1.31", strict=True
    )
    (custom,) = predictor["containers"]
    assert custom["name"] == "kserve-container"  # by which KServe knows a custom predictor
    assert {**custom, "name": container["name"]} == {key: container[key] for key in custom}


def test_the_command_of_the_manifests_is_understood(project: Project, tmp_path: Path) -> None:
    """It needs no params.yaml, as in the image."""
    from components.serve import make_parser
    from pemt_core.serving.manifests import Place, write_manifests
    from pemt_core.serving.wanted import Wanted
    from pemt_core.settings import load_settings

    kubeflow = load_settings(REPOSITORY / "params.yaml").kubeflow
    place = Place(kubeflow, "pemt:1", "components.serve", kubeflow.resources["evaluate"])
    path, *_ = write_manifests(tmp_path / "k8s", Wanted("team", "best", (), Path("/pemt/backbone")), place)
    (container,) = YAML(typ="safe").load(path)["spec"]["template"]["spec"]["containers"]
    flags = make_parser().parse_args(container["args"])
    assert (flags.targets, flags.experiment, flags.alias, flags.host, flags.port) == (
        [],
        "team",
        "best",
        "0.0.0.0",
        8080,
    )
    done = subprocess.run(
        [*[sys.executable, "-m", "components.serve"], *container["args"][:4]],
        cwd=tmp_path, env={**os.environ, "MLFLOW_TRACKING_URI": project.uri, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1].endswith(f"no model team-<target> has the alias 'best'; {REMEDY}")
