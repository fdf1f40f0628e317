"""What a server still answers at its end, with targets that need no trained model."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from test_serving import free_port
from test_serving_manifests import manifests

from pemt_core import interruption
from pemt_core.interruption import LAST_WORDS_SECONDS, stoppable
from pemt_core.prediction.trained import Prediction
from pemt_core.serving import server as server_module
from pemt_core.serving.batching import QueueLimits
from pemt_core.serving.ending import ANSWERING_SECONDS, ENDING_SECONDS
from pemt_core.serving.server import Options

ANSWER = Prediction("cb", "neutral", "score", 1.0, {"neutral": 1.0}, {}, False, {})


class Targets:
    """Stands for ServedTargets: one target, whose rows are answered by `answering`."""

    is_ready = True

    def __init__(self, answering: Callable[[], Any]) -> None:
        def answer(rows: Any) -> list[Prediction]:
            answering()
            return [ANSWER for _ in rows]

        self.predictor = SimpleNamespace(targets={"cb": None}, answer=answer)

    def load(self) -> None:
        """Nothing is to be loaded."""

    def read(self, body: bytes, content_type: str) -> list[Any]:
        return [body]


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
