"""Measure the server of all targets against MLflow's scoring server of one, as ratios of one run.

    python benchmarks/serving.py [--targets 17] [--seconds 10] [--clients 8] [--seed 1]

It makes a project in a temporary folder (the backbone of the repository, random source adapters, untrained targets of
the embedded datasets, all registered), starts real servers on it and prints Markdown. Servers that are compared take
turns, so that other load on the machine affects them alike.
"""

import argparse
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import numpy as np
import psutil
from serving_project import REPOSITORY, REQUEST_ROWS, Project, Row, make_project

from pemt_core.settings import load_settings

ROUNDS = 3  # in which servers take turns


# Servers


@dataclass(frozen=True)
class Server:
    process: psutil.Process
    url: str
    seconds: float  # from its start until it answers
    cpu_seconds: float  # of it and its children until then

    @property
    def mebibytes(self) -> float:
        return sum(each.memory_info().rss for each in (self.process, *self.process.children(recursive=True))) / 2**20


@contextmanager
def serving(project: Project, *words: str, ready: str = "/ready") -> Iterator[Server]:
    """Start `python -m WORDS`, and yield it once it answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    begin, variables = time.perf_counter(), {"MLFLOW_TRACKING_URI": project.uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    program = subprocess.Popen(
        [sys.executable, "-m", *words, "--port", str(port)],
        cwd=REPOSITORY, env={**os.environ, **variables, "PATH": path}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    process, url = psutil.Process(program.pid), f"http://127.0.0.1:{port}"
    try:
        while not is_ready(url + ready):
            assert program.poll() is None, f"{' '.join(words)} ended"
            time.sleep(0.1)
        seconds = time.perf_counter() - begin
        yield Server(process, url, seconds, cpu_of(process))
    finally:
        for each in (*process.children(recursive=True), process):
            each.terminate()
        program.wait()


def is_ready(url: str) -> bool:
    try:
        return httpx2.get(url, timeout=5).status_code == 200
    except httpx2.TransportError:
        return False


def cpu_of(process: psutil.Process) -> float:
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system + each.children_user + each.children_system for each in times)


def load(server: Server, rows: Callable[[int], list[Row]], seconds: float, clients: int) -> tuple[list[float], int]:
    """Let clients ask one request after another.

    Returns the seconds of each request that was answered, and the number of the others.
    """
    deadline, taken, lost = time.perf_counter() + seconds, list[float](), list[int]()

    def ask(client_number: int) -> None:
        with httpx2.Client(base_url=server.url, timeout=60) as client:
            for number in itertools.count(client_number, clients):
                begin = time.perf_counter()
                if begin > deadline:
                    return
                answer = client.post("/invocations", json={"dataframe_records": rows(number)})
                if answer.status_code == 200:
                    taken.append(time.perf_counter() - begin)
                else:
                    lost.append(number)

    with ThreadPoolExecutor(clients) as threads:
        list(threads.map(ask, range(clients)))
    return taken, len(lost)


# Measurements


@dataclass
class Loaded:
    """What a server did under load."""

    request_seconds: list[float]
    seconds: float = 0.0
    cpu_seconds: float = 0.0


def show(what: str, new: float, old: float, digits: int = 1) -> None:
    print(f"| {what} | {new:.{digits}f} | {old:.{digits}f} | {new / old:.2f} |", flush=True)


def compare(loads: Sequence[tuple[Server, Callable[[int], list[Row]]]], seconds: float, clients: int) -> list[Loaded]:
    """Load servers in turn."""
    found = [Loaded([]) for _ in loads]
    for _, (loaded, (server, rows)) in itertools.product(range(ROUNDS), list(zip(found, loads, strict=True))):
        begin, before = time.perf_counter(), cpu_of(server.process)
        loaded.request_seconds += load(server, rows, seconds / ROUNDS, clients)[0]
        loaded.seconds += time.perf_counter() - begin
        loaded.cpu_seconds += cpu_of(server.process) - before
    return found


def compare_rates(project: Project, server: Server, targets: Sequence[str], seconds: float) -> None:
    """Rows per second of requests that mix all targets, and of requests for one target each, all in turn."""
    mixed, single = project.rows(targets), [project.rows([target]) for target in targets]
    found = compare([(server, lambda _: mixed), (server, lambda number: single[number % len(single)])], seconds, 1)
    counts = [REQUEST_ROWS * len(each.request_seconds) for each in found]
    show(
        f"rows/s, {len(targets)} targets mixed; one after the other",
        *(n / e.seconds for n, e in zip(counts, found, strict=True)),
    )
    show("rows per CPU second", *(n / e.cpu_seconds for n, e in zip(counts, found, strict=True)))


def compare_clients(project: Project, new: Server, old: Server, target: str, seconds: float, clients: int) -> None:
    """Requests of one row each, by several clients at a time."""
    texts = project.texts[target]

    def rows(number: int) -> list[Row]:
        return [{"source": texts[number % len(texts)]}]

    found = compare([(new, rows), (old, rows)], seconds, clients)
    show(f"requests/s, {clients} clients; MLflow's server", *(len(e.request_seconds) / e.seconds for e in found))
    show("requests per CPU second", *(len(e.request_seconds) / e.cpu_seconds for e in found))
    for share in (50, 95):
        show(f"p{share} in ms", *(1000 * float(np.percentile(e.request_seconds, share)) for e in found))


def replace_under_load(project: Project, server: Server, target: str, seconds: float, clients: int) -> None:
    """Move a target between two versions all the time, while clients ask for it."""
    done, times = threading.Event(), list[float]()

    def replace() -> None:
        for number in itertools.cycle((1, 2)):
            if done.is_set():
                return
            begin = time.perf_counter()
            answer = httpx2.post(f"{server.url}/targets/{target}", json={"version": number}, timeout=60)
            assert answer.status_code == 200, answer.text
            times.append(time.perf_counter() - begin)

    texts, changing = project.texts[target], threading.Thread(target=replace)
    changing.start()
    try:
        taken, lost = load(server, lambda n: [{"task": target, "source": texts[n % len(texts)]}], seconds, clients)
    finally:
        done.set()
        changing.join()
    median = 1000 * float(np.median(times))
    print(f"\n{len(times)} replacements, {median:.0f} ms at the median: {len(taken):,} requests answered, {lost} lost.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, default=17)
    parser.add_argument("--seconds", type=float, default=10, help="of load for each server")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        targets = load_settings(REPOSITORY / "params.yaml").tasks.targets[: given.targets]
        project, one = make_project(Path(temporary), targets, given.seed), targets[0]
        program = ("mlflow", "models", "serve", "--env-manager", "local", "--model-uri", f"models:/pemt-{one}@champion")
        with (
            serving(project, "components.serve") as whole,
            serving(project, "components.serve", one) as single,
            serving(project, *program, ready="/ping") as old,
        ):
            measure(project, (whole, single, old), targets, given)


def measure(project: Project, servers: Sequence[Server], targets: Sequence[str], given: argparse.Namespace) -> None:
    """Print the table: all targets, one, and MLflow's server of one."""
    (whole, single, old), count = servers, len(targets)
    print("\n| | | compared with | ratio |\n| --- | ---: | ---: | ---: |")
    show(f"start in s, {count} targets; MLflow's server of one", whole.seconds, old.seconds)
    show(f"start in CPU seconds, {count} targets; MLflow's server of one", whole.cpu_seconds, old.cpu_seconds)
    show("start in CPU seconds, one target; MLflow's server of one", single.cpu_seconds, old.cpu_seconds)
    for server in servers:
        rows = project.rows(targets if server is whole else targets[:1])
        load(server, lambda _, rows=rows: rows, 1, 1)  # type: ignore[misc]
    show(f"memory in MiB, {count} targets; one", whole.mebibytes, single.mebibytes, 0)
    show(f"memory in MiB, {count} targets; MLflow's server of one", whole.mebibytes, old.mebibytes, 0)
    compare_rates(project, whole, targets, given.seconds)
    compare_clients(project, single, old, targets[0], given.seconds, given.clients)
    replace_under_load(project, whole, targets[0], given.seconds, given.clients)


if __name__ == "__main__":
    main()
