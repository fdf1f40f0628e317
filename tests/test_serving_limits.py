"""What a server reads at a time, and what it still answers at its end, with targets that need no trained model."""

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from starlette.requests import Request
from test_serving import free_port
from test_serving_manifests import manifests

from pemt_core import interruption
from pemt_core.interruption import LAST_WORDS_SECONDS, stoppable
from pemt_core.prediction.trained import Prediction
from pemt_core.serving import app as app_module, server as server_module
from pemt_core.serving.app import make_app
from pemt_core.serving.batching import QueueLimits, RowQueue
from pemt_core.serving.bodies import LEAST_BYTES, MOST_BYTES, Bodies
from pemt_core.serving.ending import ANSWERING_SECONDS, ENDING_SECONDS
from pemt_core.serving.errors import BusyError, TooLargeError
from pemt_core.serving.metrics import Metrics
from pemt_core.serving.server import Options

ANSWER = Prediction("cb", "neutral", "score", 1.0, {"neutral": 1.0}, {}, False, {})


# What is read at a time


def request(*parts: bytes, declared: int | None = None, received: list[bytes] | None = None) -> Request:
    """A request with a body in parts; what the server takes of it is added to `received`."""
    left, taken = list(parts), [] if received is None else received

    async def receive() -> dict[str, Any]:
        taken.append(left.pop(0))
        return {"type": "http.request", "body": taken[-1], "more_body": bool(left)}

    headers = [] if declared is None else [(b"content-length", str(declared).encode())]
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers}, receive)


def test_bodies_are_bounded_together() -> None:
    received = list[bytes]()
    message = "131,072 bytes of requests are being read, and the server reads 131,072 at a time: try again in 1 s"

    async def read() -> None:
        bodies = Bodies(2 * LEAST_BYTES)
        async with bodies.read(request(b"a", b"b", declared=2)) as first, bodies.read(request(b"c")) as second:
            assert (first, second) == (b"ab", b"c")
            with pytest.raises(BusyError, match=message) as refused:
                await length(bodies, request(b"d", declared=1, received=received))
            assert refused.value.seconds == 1
        assert received == []
        with pytest.raises(BusyError, match="reads 131,072 at a time"):  # no length is declared
            await length(bodies, request(*[b"x" * LEAST_BYTES] * 4, received=received))
        assert len(received) == 3
        with pytest.raises(TooLargeError, match="longer than 67,108,864 bytes"):
            await length(bodies, request(b"y", declared=MOST_BYTES + 1, received=received))
        assert len(received) == 3
        whole = 2 * LEAST_BYTES
        assert await length(bodies, request(b"z" * whole, declared=whole)) == whole  # all is free again

    asyncio.run(read())


async def length(bodies: Bodies, of: Request) -> int:
    async with bodies.read(of) as body:
        return len(body)


class Targets:
    """Stands for ServedTargets: one target, whose rows are read by `reading` and answered by `answering`."""

    is_ready = True

    def __init__(self, answering: Callable[[], Any], reading: Callable[[], Any] = lambda: None) -> None:
        def answer(rows: Any) -> list[Prediction]:
            answering()
            return [ANSWER for _ in rows]

        self.predictor = SimpleNamespace(targets={"cb": None}, answer=answer)
        self._reading = reading

    def load(self) -> None:
        """Nothing is to be loaded."""

    def read(self, body: bytes, content_type: str) -> list[Any]:
        self._reading()
        return [body]


def test_a_request_is_refused_while_too_much_is_being_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "MOST_TOGETHER", LEAST_BYTES)
    entered, released = threading.Event(), threading.Event()

    def reading() -> None:
        entered.set()
        assert released.wait(30)

    targets: Any = Targets(lambda: None, reading)
    queue = RowQueue(targets.predictor.answer, QueueLimits(0, 4, 4), lambda rows, seconds: None)
    app = make_app(targets, queue, Metrics(), changes_allowed=False)

    async def ask() -> tuple[httpx2.Response, ...]:
        transport = httpx2.ASGITransport(app=app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://server") as client:
            first = asyncio.create_task(client.post("/invocations", content=b"{}"))
            await asyncio.to_thread(entered.wait, 30)
            second = await client.post("/invocations", content=b"{}")
            released.set()
            return await first, second, await client.post("/invocations", content=b"{}")

    first, refused, later = asyncio.run(ask())
    queue.close()
    assert (first.status_code, refused.status_code, later.status_code) == (200, 503, 200)
    assert refused.headers["Retry-After"] == "1"
    assert refused.json()["message"].startswith("65,536 bytes of requests are being read, and the server reads 65,536")
    assert first.json()["predictions"] == [ANSWER.record()]


@pytest.mark.parametrize(("encoding", "status"), [("gzip", 415), ("zstd", 415), ("identity", 200)])
def test_a_compressed_body_is_refused(encoding: str, status: int) -> None:
    targets: Any = Targets(lambda: None)
    queue = RowQueue(targets.predictor.answer, QueueLimits(0, 4, 4), lambda rows, seconds: None)
    app = make_app(targets, queue, Metrics(), changes_allowed=False)

    async def ask() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://server") as client:
            return await client.post("/invocations", content=b"{}", headers={"Content-Encoding": encoding})

    answer = asyncio.run(ask())
    queue.close()
    assert answer.status_code == status
    if status == 415:
        expected = f"the content encoding is '{encoding}', expected a body without compression"
        assert answer.json() == {"error_code": "UNSUPPORTED_MEDIA_TYPE", "message": expected}


# The end


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_slow_request_is_answered_after_a_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer takes longer than other programs have to end."""
    monkeypatch.setattr(interruption, "TIDY_SECONDS", 0.2)
    answering, port = tmp_path / "answering", free_port()

    def slow() -> None:
        answering.touch()
        time.sleep(2)

    monkeypatch.setattr(server_module, "ServedTargets", lambda *_: Targets(slow))
    options = Options("127.0.0.1", port, QueueLimits(0, 4, 4), 0, False)
    url = f"http://127.0.0.1:{port}"
    nothing: Any = None

    def program() -> None:
        with stoppable():
            server_module.serve(nothing, nothing, options, lambda names: None)

    process = multiprocessing.get_context("fork").Process(target=program)
    process.start()
    try:
        wait_for(lambda: is_open(url))
        with ThreadPoolExecutor(1) as threads:
            asked = threads.submit(httpx2.post, f"{url}/invocations", content=b"{}", timeout=60)
            wait_for(answering.exists)
            os.kill(process.pid or 0, signal.SIGTERM)
            assert asked.result().status_code == 200
        process.join(30)
        assert process.exitcode == 143
    finally:
        process.kill()
        process.join()


def is_open(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/ready").status_code == 200
    except httpx2.TransportError:
        return False


def test_a_pod_ends_after_its_server(tmp_path: Path) -> None:
    pod = manifests(tmp_path)["deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    name, leaving = container["lifecycle"]["preStop"]["exec"]["command"]
    assert name == "sleep"
    left = pod["terminationGracePeriodSeconds"] - float(leaving)
    options = Options("127.0.0.1", 0, QueueLimits(0, 4, 4), 0, False)
    assert server_module._config(None, options).timeout_graceful_shutdown == ANSWERING_SECONDS
    assert 15 < ANSWERING_SECONDS < ENDING_SECONDS < ENDING_SECONDS + LAST_WORDS_SECONDS < left
