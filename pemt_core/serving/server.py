"""The server as a process: the port opens at once, the targets are loaded behind it, and a signal ends it tidily."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvicorn
from fastapi import FastAPI

from pemt_core.errors import PemtError
from pemt_core.interruption import ending_within
from pemt_core.serving.app import make_app
from pemt_core.serving.batching import QueueLimits, RowQueue
from pemt_core.serving.ending import ANSWERING_SECONDS, ENDING_SECONDS
from pemt_core.serving.metrics import Metrics
from pemt_core.serving.targets import ServedTargets
from pemt_core.serving.wanted import Wanted
from pemt_core.tracking.store import Store

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How a server listens, batches and follows the registry."""

    host: str
    port: int
    limits: QueueLimits
    poll_seconds: float  # between looks at the registry; 0: never
    changes_allowed: bool


def serve(store: Store, wanted: Wanted, options: Options, announce: Callable[[str], None]) -> None:
    """Answer requests until a signal ends the process; `announce` is told the targets once they are loaded.

    Raises PemtError if the targets cannot be loaded.
    """
    metrics = Metrics()
    targets = ServedTargets(store, wanted, metrics)
    queue = RowQueue(lambda rows: targets.predictor.answer(rows), options.limits, metrics.batch_answered)
    metrics.follow_queue(lambda: queue.num_rows)
    app = make_app(targets, queue, metrics, changes_allowed=options.changes_allowed)
    failed, stopped = list[Exception](), threading.Event()

    def load_and_follow() -> None:
        try:
            targets.load()
        except Exception as error:
            failed.append(error)
            server.should_exit = True
            return
        announce(", ".join(targets.predictor.targets))
        while options.poll_seconds and not stopped.wait(options.poll_seconds):
            try:
                targets.follow()
            except Exception:  # the server goes on with what it has
                logger.exception("serve: following the registry failed")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=load_and_follow, name="targets", daemon=True).start()
        yield
        stopped.set()
        await asyncio.to_thread(queue.close)

    app.router.lifespan_context = lifespan
    server = uvicorn.Server(_config(app, options))
    with ending_within(ENDING_SECONDS):
        server.run()
    for error in failed:
        raise error if isinstance(error, PemtError) else RuntimeError("the targets cannot be loaded") from error


def _config(app: Any, options: Options) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        host=options.host,
        port=options.port,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=ANSWERING_SECONDS,
    )
