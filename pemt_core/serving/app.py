"""The server's endpoints. MLflow's are /invocations, /ping, /health and /version."""

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException

from pemt_core import __version__
from pemt_core.errors import PemtError
from pemt_core.prediction.trained import Prediction
from pemt_core.serving.batching import RowQueue
from pemt_core.serving.bodies import MOST_TOGETHER, Bodies
from pemt_core.serving.errors import BusyError, ForbiddenError, RequestError
from pemt_core.serving.metrics import Metrics
from pemt_core.serving.requests import check_encoding
from pemt_core.serving.schemas import (
    Answers,
    Problem,
    Readiness,
    Target,
    Targets,
    WantedVersion,
    request_body,
)
from pemt_core.serving.targets import ServedTargets, TargetState

logger = logging.getLogger(__name__)

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body or a row is not what was expected"},
    413: {"model": Problem, "description": "The request is too large"},
    415: {"model": Problem, "description": "The body is neither JSON nor CSV"},
    503: {"model": Problem, "description": "The server is busy, or loads its targets: see Retry-After"},
}
_CHANGES: dict[int | str, dict[str, Any]] = {
    403: {"model": Problem, "description": "The server takes no calls that change it"},
    404: {"model": Problem, "description": "No such target or version"},
    409: {"model": Problem, "description": "The version cannot be served; the one before stays"},
    503: _PROBLEMS[503],
}


def make_app(targets: ServedTargets, queue: RowQueue, metrics: Metrics, *, changes_allowed: bool) -> FastAPI:
    """Return the app. Without `changes_allowed`, calls that change the targets are refused."""
    app = FastAPI(title="PEMT targets", version=__version__)
    _add_answers(app, targets, queue, metrics)
    _add_probes(app, targets, queue, metrics)
    _add_targets(app, targets, changes_allowed)
    _add_problems(app)
    _add_measurement(app, metrics)

    def openapi() -> dict[str, Any]:
        """Describe the targets of this moment."""
        described = get_openapi(title=app.title, version=app.version, routes=app.routes)
        served = targets.predictor.targets if targets.is_ready else {}
        described["paths"]["/invocations"]["post"]["requestBody"] = request_body(served)
        return described

    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _add_answers(app: FastAPI, targets: ServedTargets, queue: RowQueue, metrics: Metrics) -> None:
    bodies = Bodies(MOST_TOGETHER)

    async def queued(request: Request) -> "Future[list[Prediction]]":
        check_encoding(request.headers.get("content-encoding", ""))
        async with bodies.read(request) as body:
            rows = await asyncio.to_thread(targets.read, body, request.headers.get("content-type", ""))
            return queue.submit(rows)

    @app.post("/invocations", response_model=Answers, responses=_PROBLEMS, summary="Answer rows")
    async def invocations(request: Request) -> Response:
        """Rows in one of MLflow's forms. With several targets, each row's column "task" names its target."""
        predictions = await asyncio.wrap_future(await queued(request))
        for target, num_rows in Counter(each.task for each in predictions).items():
            metrics.rows.labels(target).inc(num_rows)
        content = json.dumps({"predictions": [each.record() for each in predictions]})
        return Response(content, media_type="application/json")


def _add_probes(app: FastAPI, targets: ServedTargets, queue: RowQueue, metrics: Metrics) -> None:
    @app.get("/health", summary="Whether the process lives")
    async def health() -> Response:
        if not queue.is_alive:
            raise BusyError("the thread that answers has ended", 1)
        return Response("\n", media_type="application/json")

    @app.get(
        "/ready", response_model=Readiness, responses={503: {"model": Readiness}}, summary="Whether rows are answered"
    )
    async def ready() -> Response:
        served = targets.predictor.targets if targets.is_ready else {}
        message = f"answers for {', '.join(sorted(served))}" if served else "the targets are being loaded"
        found = Readiness(ready=targets.is_ready, message=message)
        return JSONResponse(found.model_dump(), 200 if found.ready else 503)

    @app.get("/ping", responses={503: {"model": Problem}}, summary="MLflow's health: whether the targets are loaded")
    async def ping() -> Response:
        _ = targets.predictor
        return Response("\n", media_type="application/json")

    @app.get("/version", summary="The version of MLflow")
    async def mlflow_version() -> Response:
        return Response(version("mlflow"), media_type="application/json")

    @app.get("/metrics", summary="Metrics in Prometheus' text format")
    async def metrics_text() -> Response:
        return Response(metrics.text(), media_type=metrics.content_type)


def _add_targets(app: FastAPI, targets: ServedTargets, changes_allowed: bool) -> None:
    def check_allowed() -> None:
        if not changes_allowed:
            raise ForbiddenError(
                "this server takes no calls that change its targets; start it with --admin to allow them"
            )

    @app.get("/targets", response_model=Targets, summary="Targets and their versions")
    async def list_targets() -> Targets:
        return Targets(targets=[_shown(each) for each in targets.states])

    @app.post("/targets/{name}", response_model=Target, responses=_CHANGES, summary="Add or replace a target")
    def put_target(name: str, wanted: WantedVersion | None = None) -> Target:
        """Serve this version from now on; requests that run are answered by the one before."""
        check_allowed()
        return _shown(targets.put(name, wanted.version if wanted else None))

    @app.delete("/targets/{name}", response_model=Target, responses=_CHANGES, summary="Remove a target")
    def remove_target(name: str) -> Target:
        """Serve it no more; requests that run are answered."""
        check_allowed()
        return _shown(targets.remove(name))


def _shown(state: TargetState) -> Target:
    return Target(**{key: value for key, value in asdict(state).items() if key != "refused"})


def _add_problems(app: FastAPI) -> None:
    """Answer every error with MLflow's body, in one line and without a traceback."""

    @app.exception_handler(PemtError)
    async def of_request(request: Request, error: PemtError) -> Response:
        known = error if isinstance(error, RequestError) else RequestError(str(error))
        headers = {"Retry-After": str(known.seconds)} if isinstance(known, BusyError) else {}
        return _problem(known.status, known.code, str(error), headers)

    @app.exception_handler(HTTPException)
    async def of_path(request: Request, error: HTTPException) -> Response:
        paths = ", ".join(sorted(app.openapi()["paths"]))
        reason = f"{error.detail}: {request.method} {request.url.path}; there are {paths}"
        code = "ENDPOINT_NOT_FOUND" if error.status_code == 404 else "BAD_REQUEST"
        return _problem(error.status_code, code, reason, dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def of_body(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        return _problem(400, "BAD_REQUEST", f'{place}: {first["msg"]}; expected, for example, {{"version": 3}}', {})

    @app.exception_handler(Exception)
    async def of_server(request: Request, error: Exception) -> Response:
        message = f"the server failed: {type(error).__name__}; its log has the cause"
        return _problem(500, "INTERNAL_ERROR", message, {})


def _problem(status: int, code: str, message: str, headers: dict[str, str]) -> Response:
    return JSONResponse({"error_code": code, "message": message}, status, headers)


def _add_measurement(app: FastAPI, metrics: Metrics) -> None:
    @app.middleware("http")
    async def measured(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        begin, status = time.perf_counter(), 500
        try:
            response = await answer(request)
            status = response.status_code
            return response
        finally:
            route = request.scope.get("route")
            path = getattr(route, "path", "other")
            metrics.requests.labels(path, str(status)).inc()
            metrics.request_seconds.labels(path).observe(time.perf_counter() - begin)
