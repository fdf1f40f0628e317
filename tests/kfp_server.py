"""A small server that implements the v2beta1 API of Kubeflow Pipelines as far as submitting uses it, and executes runs.

    with KfpServer(executor) as kfp:
        ...  # python -m pipelines.submit --host {kfp.url}

The executor receives the uploaded file of the run's version and the run's parameters. The executor of
kfp_containers.py runs it on the Docker engine.
Statuses and error messages follow the API server of kubeflow/pipelines (backend/src/apiserver/server).
"""

import json
import re
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import uuid4

import yaml

Executor = Callable[[Path, dict[str, Any]], None]
Record = dict[str, Any]

API = "/apis/v2beta1"
CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 500: 13, 503: 14}  # gRPC codes: the API server answers through gRPC
FILES = ("upload_pipeline_version",)  # answered outside gRPC, in another form
ROUTES = {
    "get_healthz": rf"GET {API}/healthz",
    "list_experiments": rf"GET {API}/experiments",
    "create_experiment": rf"POST {API}/experiments",
    "get_experiment": rf"GET {API}/experiments/(?P<id>[^/]+)",
    "list_pipelines": rf"GET {API}/pipelines",
    "create_pipeline": rf"POST {API}/pipelines",
    "get_pipeline": rf"GET {API}/pipelines/(?P<id>[^/]+)",
    "list_versions": rf"GET {API}/pipelines/(?P<id>[^/]+)/versions",
    "upload_pipeline_version": rf"POST {API}/pipelines/upload_version",
    "create_run": rf"POST {API}/runs",
    "get_run": rf"GET {API}/runs/(?P<id>[^/]+)",
}


class StepsFailedError(Exception):
    """Raised by an executor: name and message of each failed step, in order; "" for a step without a message."""

    def __init__(self, *steps: tuple[str, str], state: str = "FAILED") -> None:
        super().__init__("the run did not end well")
        self.steps, self.state = steps, state


class RefusalError(Exception):
    """Answered with a status and a message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Request:
    """What a handler needs of an HTTP request."""

    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Record:
        return dict(json.loads(self.body))

    @property
    def file(self) -> bytes:
        """The file uploaded with a form."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        for part in message_from_bytes(head + self.body).walk():
            if part.get_param("name", header="content-disposition") == "uploadfile":
                return bytes(part.get_payload(decode=True))
        raise RefusalError(400, "Failed to read pipeline from file")


@dataclass
class KfpServer:
    """The server, on a free local port, and its records as the API shows them."""

    executor: Executor
    token: str = ""  # required unless empty
    cookie: str = ""
    namespaces: Collection[str] = ()  # if not empty, users are separated by these namespaces
    refusals: Mapping[str, tuple[int, str]] = field(default_factory=dict)  # the fixed answers of routes
    experiments: list[Record] = field(default_factory=list)
    pipelines: list[Record] = field(default_factory=list)
    versions: list[Record] = field(default_factory=list)
    runs: list[Record] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)  # routes, in order

    def __post_init__(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._threads = [threading.Thread(target=self._server.serve_forever, daemon=True)]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "KfpServer":
        self._folder = TemporaryDirectory()
        self._threads[0].start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        for thread in self._threads:
            thread.join()
        self._folder.cleanup()

    def uploaded(self, version: Record) -> Path:
        """The file of a version as it was uploaded."""
        return Path(self._folder.name) / f"{version['pipeline_version_id']}.yaml"

    def answer(self, route: str, identity: str, request: Request) -> Record:
        """The JSON answer to a request."""
        self.requests.append(route)
        token, cookie = request.headers.get("authorization", ""), request.headers.get("cookie", "")
        if (self.token and token != f"Bearer {self.token}") or (self.cookie and cookie != self.cookie):
            raise RefusalError(401, "Request header error: there is no user identity header")
        if route in self.refusals:
            raise RefusalError(*self.refusals[route])
        return dict(getattr(self, f"_{route}")(identity, request))

    def _get_healthz(self, identity: str, request: Request) -> Record:
        return {"multi_user": True} if self.namespaces else {}  # protobuf's JSON omits false values

    def _list_experiments(self, identity: str, request: Request) -> Record:
        namespace = request.query.get("namespace", "")
        self._authorize(namespace, "An experiment")
        return _listed("experiments", [e for e in self.experiments if e.get("namespace", "") == namespace], request)

    def _create_experiment(self, identity: str, request: Request) -> Record:
        posted = request.json
        self._authorize(posted.get("namespace", ""), "An experiment")
        return _added(self.experiments, "experiment_id", posted)

    def _get_experiment(self, identity: str, request: Request) -> Record:
        return _found(self.experiments, "experiment_id", identity)

    def _list_pipelines(self, identity: str, request: Request) -> Record:
        namespace = request.query.get("namespace", "")
        if namespace:
            self._authorize(namespace, "A pipeline")
        return _listed("pipelines", [p for p in self.pipelines if p.get("namespace", "") == namespace], request)

    def _create_pipeline(self, identity: str, request: Request) -> Record:
        posted = request.json
        if posted.get("namespace"):  # without a namespace, the pipeline is shared
            self._authorize(posted["namespace"], "A pipeline")
        return _added(self.pipelines, "pipeline_id", posted)

    def _get_pipeline(self, identity: str, request: Request) -> Record:
        return _found(self.pipelines, "pipeline_id", identity)

    def _list_versions(self, identity: str, request: Request) -> Record:
        _found(self.pipelines, "pipeline_id", identity)
        return _listed("pipeline_versions", [v for v in self.versions if v["pipeline_id"] == identity], request)

    def _upload_pipeline_version(self, identity: str, request: Request) -> Record:
        pipeline, name = _found(self.pipelines, "pipeline_id", request.query["pipelineid"]), request.query["name"]
        if any((v["pipeline_id"], v["display_name"]) == (pipeline["pipeline_id"], name) for v in self.versions):
            raise RefusalError(409, "Failed to create a pipeline version")
        content = request.file
        spec = _specification(content)
        posted = {"pipeline_id": pipeline["pipeline_id"], "display_name": name, "pipeline_spec": spec}
        version = _added(self.versions, "pipeline_version_id", posted)
        self.uploaded(version).write_bytes(content)
        return version

    def _create_run(self, identity: str, request: Request) -> Record:
        posted = request.json
        _found(self.experiments, "experiment_id", posted["experiment_id"])
        reference = posted["pipeline_version_reference"]
        version = _found(self.versions, "pipeline_version_id", reference["pipeline_version_id"])
        known = version["pipeline_spec"]["root"]["inputDefinitions"]["parameters"]
        for name in posted["runtime_config"].get("parameters", {}):
            if name not in known:
                raise RefusalError(400, f"Invalid input error: parameter {name} is not an input of the pipeline")
        run = _added(self.runs, "run_id", {**posted, "state": "PENDING"})
        self._threads.append(threading.Thread(target=self._execute, args=(run, version)))
        self._threads[-1].start()
        return run

    def _get_run(self, identity: str, request: Request) -> Record:
        return _found(self.runs, "run_id", identity)

    def _authorize(self, namespace: str, what: str) -> None:
        if self.namespaces and not namespace:
            raise RefusalError(400, f"Invalid input error: {what} cannot have an empty namespace in multi-user mode")
        if self.namespaces and namespace not in self.namespaces:
            request = f"&ResourceAttributes{{Namespace:{namespace},Verb:list,Group:pipelines.kubeflow.org}}"
            raise RefusalError(403, f"User 'user@example.com' is not authorized with reason:  (request: {request})")

    def _execute(self, run: Record, version: Record) -> None:
        run["state"] = "RUNNING"
        try:
            self.executor(self.uploaded(version), run["runtime_config"].get("parameters", {}))
            run["state"] = "SUCCEEDED"
        except StepsFailedError as error:
            details = [_failed_task(run, *step, second) for second, step in enumerate(error.steps)]
            group = _failed_task(run, "root", "", len(details))  # the enclosing group fails with its steps
            group["child_tasks"] = [{"pod_name": task["pod_name"]} for task in details]
            run.update(run_details={"task_details": [group, *details] if details else []})
            run.update(error={"code": 13, "message": str(error)}, state=error.state)


def _handler_for(kfp: KfpServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = urlsplit(self.path)
            asked = f"{self.command} {parts.path}"
            matches = {route: match for route, pattern in ROUTES.items() if (match := re.fullmatch(pattern, asked))}
            if not matches:
                self._send(404, {"code": 5, "message": "Not Found"})
                return
            ((route, match),) = matches.items()
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                self._send(200, kfp.answer(route, match.groupdict().get("id", ""), Request(query, headers, body)))
            except RefusalError as error:
                facts = {"error": str(error), "code": CODES[error.status], "message": str(error), "details": []}
                if route in FILES:
                    facts = {"error_message": str(error), "error_details": str(error)}
                self._send(error.status, facts)

        def _send(self, status: int, value: Record) -> None:
            content = json.dumps(value).encode()
            self.send_response(HTTPStatus(status))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    return Handler


def _listed(name: str, records: list[Record], request: Request) -> Record:
    """The records that pass the request's filter on names. An empty list is omitted, as in protobuf's JSON."""
    for predicate in json.loads(request.query.get("filter") or "{}").get("predicates", []):
        assert (predicate["operation"], predicate["key"]) in (("EQUALS", "display_name"), (1, "display_name"))
        records = [record for record in records if record["display_name"] == predicate["stringValue"]]
    return {name: records, "total_size": len(records)} if records else {}


def _added(records: list[Record], key: str, posted: Record) -> Record:
    records.append({**posted, key: str(uuid4()), "created_at": "2026-01-01T00:00:00Z"})
    return records[-1]


def _found(records: list[Record], key: str, identity: str) -> Record:
    for record in records:
        if record[key] == identity:
            return record
    raise RefusalError(404, f"Resource not found: {key} {identity}")


def _specification(content: bytes) -> Record:
    """The first document of a compiled pipeline; the second one is Kubernetes configuration."""
    specification = next(iter(yaml.safe_load_all(content)), None)
    if not isinstance(specification, dict) or not {"pipelineInfo", "root"} <= set(specification):
        raise RefusalError(400, "Failed to create a pipeline version: Invalid input error: unknown template format")
    return specification


def _failed_task(run: Record, name: str, message: str, second: int) -> Record:
    names = {"run_id": run["run_id"], "task_id": str(uuid4()), "pod_name": f"{run['run_id']}-{uuid4()}"}
    task = {**names, "display_name": name, "state": "FAILED", "end_time": f"2026-01-01T00:00:{second:02}Z"}
    return {**task, "error": {"code": 13, "message": message}} if message else task
