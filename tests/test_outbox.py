"""Live runs on a real MLflow server that is slow, loses its answers, or goes away and comes back during a training."""

import logging
import socket
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from test_tracking import closed_port, start_server, stop
from test_training import Line, Points, trainer

from pemt_core.tracking import TrackingError, connect, outbox
from pemt_core.tracking.store import METRICS_PER_BATCH

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("fresh_accelerator")]


@dataclass
class Server:
    """A server on one port and one database, which can be stopped and started again."""

    folder: Path
    port: int = field(default_factory=closed_port)
    process: Any = None

    def start(self) -> None:
        self.process = start_server(self.folder, self.port)
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
            except OSError:
                assert self.process.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.2)
            else:
                return

    def stop(self) -> None:
        stop(self.process)

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(f"http://127.0.0.1:{self.port}")

    def only_run(self, experiment: str) -> Any:
        client = self.client()
        (run,) = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
        return run

    def curves(self, run: Any) -> dict[str, list[tuple[int, float]]]:
        """Every point of each metric, as often as the server has it, in its order."""
        client = self.client()
        histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
        return {name: [(each.step, each.value) for each in points] for name, points in histories.items()}


class Proxy:
    """Passes connections on to a server while `opened` is set. It can lose what the server answers, and be away."""

    def __init__(self, port: int) -> None:
        self.server_port, self.opened, self.loses, self.is_away = port, threading.Event(), 0, False
        self.requests: Counter[str] = Counter()  # by the last word of their paths
        self.connections: list[socket.socket] = []
        self.opened.set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def go_away(self) -> None:
        """Break off all connections, and each that comes."""
        self.is_away = True
        for connection in self.connections:
            with suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.opened.set()
        self.go_away()
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # once it is closed
            while True:
                client, _ = self.listener.accept()
                if self.is_away:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self.server_port))
                self.connections += [client, server]
                threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answer, args=(server, client), daemon=True).start()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with server, suppress(OSError):
            while data := client.recv(65536):
                if data.startswith((b"GET ", b"POST ", b"PATCH ")):
                    self.requests[data.split(b" ", 2)[1].partition(b"?")[0].rpartition(b"/")[2].decode()] += 1
                self.opened.wait()
                server.sendall(data)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with client, suppress(OSError):
            while data := server.recv(65536):
                if self.loses:
                    self.loses -= 1
                    client.shutdown(socket.SHUT_RDWR)
                    break
                client.sendall(data)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    made.start()
    try:
        yield made
    finally:
        made.stop()


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    made = Proxy(server.port)
    try:
        yield made
    finally:
        made.close()


def test_logging_goes_on_while_the_server_is_blocked(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    """The loop ends while the server has answered nothing, and its points come in as few requests as their number."""
    expected = [(step, 1.0 / step) for step in range(1, 2 * METRICS_PER_BATCH)]
    with connect(proxy.uri, "blocked", tmp_path, "stop").run("cell", "blocked", {}, {}) as run:
        before = proxy.requests["log-batch"]
        proxy.opened.clear()
        for step, loss in expected:
            run.log(step, {"train/loss": loss})
        assert proxy.requests["log-batch"] - before <= 1
        proxy.opened.set()
        run.tag({"pemt.artifact": "hash"})
    stored = server.only_run("blocked")
    assert server.curves(stored) == {"train/loss": expected}
    assert (stored.info.status, stored.data.tags["pemt.artifact"]) == ("FINISHED", "hash")
    assert proxy.requests["log-batch"] - before <= 5  # of points, and one of tags


def test_a_point_whose_answer_was_lost_is_stored_once(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    with connect(proxy.uri, "lost", tmp_path, "continue").run("cell", "lost", {}, {}) as run:
        run.log(1, {"train/loss": 0.5, "train/sparsity_loss": float("nan")})
        proxy.loses = 2  # MLflow repeats a request once
        run.flush()
        run.log(2, {"train/loss": 0.25})
    assert proxy.loses == 0
    stored = server.only_run("lost")
    assert server.curves(stored)["train/loss"] == [(1, 0.5), (2, 0.25)]
    assert len(server.curves(stored)["train/sparsity_loss"]) == 1


def test_memory_for_points_is_bounded(
    server: Server, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox, "MOST_POINTS", 10)
    with connect(proxy.uri, "bounded", tmp_path, "stop").run("cell", "bounded", {}, {}) as run:
        proxy.opened.clear()
        for step in range(100):
            run.log(step, {"train/loss": 1.0})
        proxy.opened.set()
    assert server.curves(server.only_run("bounded")) == {"train/loss": [(step, 1.0) for step in range(10)]}
    assert caplog.text.count("behind by 10 points; `dvc repro -f -s record` adds those that follow") == 1


def test_with_stop_the_error_comes_after_the_next_checkpoint(
    server: Server, proxy: Proxy, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The server is unreachable from step 2 on, the checkpoint is that of step 6."""
    logged: list[int] = []
    tracker = connect(proxy.uri, "stopped", tmp_path, "stop")

    def train() -> None:
        with tracker.run("cell", "stopped", {}, {}) as run:

            def log(step: int, metrics: dict[str, float]) -> None:
                run.log(step, metrics)
                logged.append(step)
                if step == 2 and "train/loss" in metrics:
                    run.flush()
                    proxy.go_away()

            line = trainer(
                Line(), Points.make(32, 4), tmp_path, log=log, epochs=50, evaluate_every=1, checkpoint_every=6
            )
            line.course.flush = run.flush
            line.fit()

    with caplog.at_level(logging.WARNING), pytest.raises(TrackingError, match=rf"^{proxy.uri}: .*") as caught:
        train()
    assert "\n" not in str(caught.value)
    assert logged[-1] % 6 == 0
    assert len(list(tmp_path.glob("*/state.safetensors"))) == 1
    assert server.only_run("stopped").info.status == "RUNNING"  # nobody could say more


def test_a_server_that_comes_back_gets_what_it_missed(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is stopped in the middle of a training, and started again before its end."""
    uri = f"http://127.0.0.1:{server.port}"
    tracker, model = connect(uri, "back", tmp_path, "continue"), Line()

    with tracker.run("cell", "back", {"pemt.step": "x"}, {"seed": 1}) as run:

        def log(step: int, metrics: dict[str, float]) -> None:
            run.log(step, metrics)
            if step == 8 and "train/loss" in metrics:
                run.flush()
                server.stop()
            if step == 30 and "train/loss" in metrics:
                server.start()

        line = trainer(model, Points.make(32, 4), tmp_path, log=log, epochs=5, evaluate_every=2, checkpoint_every=6)
        line.flush = run.flush
        history = line.fit().history
        run.tag({"pemt.artifact": "hash"})
    stored = server.only_run("back")
    expected: dict[str, list[tuple[int, float]]] = {}
    for point in history:
        for name in point.keys() - {"step"}:
            expected.setdefault(name, []).append((int(point["step"]), point[name]))
    assert len(expected["train/loss"]) >= 20
    assert server.curves(stored) == expected
    assert (stored.info.status, stored.data.tags["pemt.artifact"]) == ("FINISHED", "hash")
    assert caplog.text.count("going on, and sending what the store misses when it answers again") == 1


def test_a_run_that_begins_while_the_server_is_away_is_made_later(server: Server, proxy: Proxy, tmp_path: Path) -> None:
    tracker = connect(proxy.uri, "later", tmp_path, "continue")
    proxy.go_away()
    with tracker.run("cell", "later", {"pemt.step": "x"}, {"seed": 1}) as run:
        run.log(1, {"train/loss": 1.0})
        run.flush()
        proxy.is_away = False
        run.log(2, {"train/loss": 0.5})
    stored = server.only_run("later")
    assert server.curves(stored) == {"train/loss": [(1, 1.0), (2, 0.5)]}
    assert (stored.info.status, stored.data.params, stored.data.tags["pemt.step"]) == ("FINISHED", {"seed": "1"}, "x")
