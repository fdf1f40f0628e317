"""A step that trains on several nodes: its program as a job of Kubeflow Trainer (2.1 or newer), in the step's place.

This program and the job's pods share a volume: the step's inputs are copied there, its outputs back. A step that is
tried again finds its job by a name made from all that it was given. After -- the flags of its program follow.
"""

import argparse
import json
import logging
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from shutil import copyfile, rmtree
from typing import Any

from components.executor import ERROR, Executor, Outcome, local_path
from components.trainer_api import Jobs, TrainerJobError, manifests, phase
from pemt_core.artifacts.files import atomic_directory, atomic_file, read_json, sha256_of_json
from pemt_core.errors import ArtifactError, PemtError

log = logging.getLogger("trainer_job")


class Exchange:
    """The step's artifacts on the volume, below the paths that they have here, and its program's answer."""

    def __init__(self, folder: Path, given: dict[str, Any]) -> None:
        self.folder, self.answer = folder, folder / "answer.json"
        self.inputs, self.outputs = (
            {local_path(one["uri"]): name for name, several in listed.items() for one in several["artifacts"]}
            for listed in (given.get(kind, {}).get("artifacts", {}) for kind in ("inputs", "outputs"))
        )

    def place(self, word: str) -> str:
        """A path at or below an artifact as it is on the volume; any other text as it is."""
        known = any(Path(word).is_relative_to(path) for path in (*self.inputs, *self.outputs))
        return str(self.folder / Path(word).relative_to("/")) if known else word

    def words(self, flags: list[str]) -> list[str]:
        """The flags of the step's program, and the contract by which it answers on the volume."""
        uris = {name: self.place(str(path)) for path, name in self.outputs.items()}
        artifacts = {name: {"artifacts": [{"name": name, "uri": uri}]} for name, uri in uris.items()}
        contract = {"outputs": {"outputFile": str(self.answer), "artifacts": artifacts}}
        alone = ["--processes", "1"]  # the last counts: torchrun starts them all, none starts more
        return [*map(self.place, flags), *alone, "--executor-input", json.dumps(contract)]

    def send(self, flags: list[str]) -> None:
        """Copy what the flags name of the inputs to the volume, in place of all that was there."""
        with atomic_directory(self.folder) as folder:
            for path in map(Path, flags):
                if any(path.is_relative_to(root) for root in self.inputs):
                    copy(path, folder / path.relative_to("/"))

    def fetch(self) -> Outcome:
        """Bring the outputs where Kubeflow looks for them; returns what the program answered."""
        for path in self.outputs:
            place = Path(self.place(str(path)))
            if not place.exists():
                raise ArtifactError(f"{place}: the job ended well and did not write it")
            with (atomic_directory if place.is_dir() else atomic_file)(path) as temporary:
                copy(place, temporary)
        return Outcome(parameters=read_json(self.answer)["parameterValues"])  # a step that trains gives no metrics


def copy(source: Path, place: Path) -> None:
    """A file, or a folder with all that is in it."""
    (place if source.is_dir() else place.parent).mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir() if source.is_dir() else ():
        copy(entry, place / entry.name)
    if source.is_file():
        copyfile(source, place)


def start(jobs: Jobs, name: str, arguments: argparse.Namespace, exchange: Exchange) -> None:
    """Create the job, unless it is there and has not failed."""
    conditions = jobs.conditions(name)
    if conditions is not None and not conditions.keys() & {"Failed", "Deleted"}:
        log.info("%s: found, started by a try before this one", name)
        return
    jobs.delete(name)
    while jobs.conditions(name) is not None:
        time.sleep(arguments.poll_seconds)
    exchange.send(arguments.flags)
    jobs.create(manifests(name, arguments, exchange.words(arguments.flags)), arguments.claim)


def wait(jobs: Jobs, name: str, exchange: Exchange, poll_seconds: float) -> str:
    """Until the job ends. Returns why it failed, in the step's own words if it left any; empty where it did not."""
    begin, shown, error = time.monotonic(), "", exchange.answer.with_name(ERROR)
    while shown != "Complete":
        conditions = jobs.conditions(name)
        if conditions is None:
            raise TrainerJobError(f"{name}: somebody deleted the job")
        if error.is_file() and (said := error.read_text(encoding="utf-8").strip()):
            jobs.delete(name)  # restarts of its pods would end the same way
            return said
        if "Failed" in conditions:  # it stays to be looked at; a new try replaces it
            return f"{name}: {conditions['Failed']}; {jobs.last_words(name)}"
        pods = Counter(phase(pod) for pod in jobs.pods(name))
        doing = ", ".join(f"{count} {what}" for what, count in sorted(pods.items())) or "no pods yet"
        state = next((one for one in ("Complete", "Suspended") if one in conditions), doing)
        if state != shown:
            log.info("%s: %s after %.0f s", name, state, time.monotonic() - begin)
        shown = state
        time.sleep(0 if state == "Complete" else poll_seconds)
    return ""


def main(arguments: argparse.Namespace, executor: Executor) -> None:
    jobs, identity = Jobs(), {key: str(value) for key, value in vars(arguments).items() if key != "poll_seconds"}
    name = f"pemt-{arguments.step.replace('_', '-')}-{sha256_of_json(identity)[:10]}"
    exchange = Exchange(arguments.volume / "jobs" / name, json.loads(arguments.executor_input))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        start(jobs, name, arguments, exchange)
        failure = wait(jobs, name, exchange, arguments.poll_seconds)
    except (SystemExit, KeyboardInterrupt):
        jobs.delete(name)
        rmtree(exchange.folder, ignore_errors=True)
        raise
    if failure:
        rmtree(exchange.folder, ignore_errors=True)
        raise TrainerJobError(failure)
    executor.finish(exchange.fetch())
    jobs.delete(name)
    rmtree(exchange.folder, ignore_errors=True)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m components.trainer_job", description=__doc__)
    parser.add_argument("--step", required=True, help="the step's name: its program is components.STEP")
    parser.add_argument("--nodes", type=int, required=True, help="pods of the job")
    parser.add_argument("--processes-per-node", type=int, required=True, help="of a pod, one per GPU")
    parser.add_argument("--image", required=True, help="of the pods")
    parser.add_argument("--cpu", required=True, help="of a pod, as Kubernetes writes it")
    parser.add_argument("--memory", required=True, help="of a pod, as Kubernetes writes it")
    parser.add_argument("--claim", required=True, help="the volume's PersistentVolumeClaim, ReadWriteMany")
    parser.add_argument("--volume", type=Path, required=True, help="where the volume is, here and in the pods")
    parser.add_argument("--executor-input", required=True, help="what Kubeflow gives, and where it wants the answer")
    parser.add_argument("--gpu-resource", default="", help="such as nvidia.com/gpu (default: train on the CPU)")
    parser.add_argument("--runtime", default="torch-distributed", help="ClusterTrainingRuntime (default: %(default)s)")
    parser.add_argument("--secret", default="", help="Secret of which the pods get keys as variables")
    parser.add_argument("--secret-keys", nargs="*", default=[], metavar="KEY", help="the keys, each optional")
    parser.add_argument("--pod", type=json.loads, default={}, help="JSON: nodeSelector, tolerations and so on of pods")
    parser.add_argument("--poll-seconds", type=float, default=5.0, help="between looks at the job (default: 5)")
    parser.add_argument("flags", nargs="*", help="of the step's program, as the pipeline gives them")
    return parser


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    given, answering = make_parser().parse_args(), None
    try:
        answering = Executor(given.executor_input)
        main(given, answering)
    except PemtError as error:
        if answering:
            answering.fail(str(error))
        sys.exit(f"error: {error}")
