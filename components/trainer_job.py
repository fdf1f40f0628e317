"""Run a step on several nodes: start its program as a job of Kubeflow Trainer (2.1 or newer), and wait for it.

It shares a volume with the job's pods, copies the step's inputs there and its outputs back. The job's name is a hash
of all arguments, so a retry finds the job that an earlier attempt started. The flags of the step's program follow --.
"""

import argparse
import json
import logging
import sys
import time
from collections import Counter
from pathlib import Path
from shutil import copyfile, rmtree
from typing import Any

from components.executor import ERROR, Executor, Outcome, local_path
from components.trainer_api import Jobs, TrainerJobError, phase
from components.trainer_manifest import manifests
from pemt_core.artifacts.files import atomic_directory, atomic_file, read_json, sha256_of_json
from pemt_core.errors import ArtifactError, PemtError, SettingsError, file_errors_named, refusal
from pemt_core.interruption import stoppable
from pemt_core.schema.json_values import parse_object

log = logging.getLogger("trainer_job")


class Exchange:
    """The step's artifacts on the shared volume, each at its local path below `folder`, and the program's answer."""

    def __init__(self, folder: Path, executor_input: dict[str, Any]) -> None:
        self.folder, self.answer = folder, folder / "answer.json"
        self.inputs, self.outputs = (_artifact_names(executor_input, kind) for kind in ("inputs", "outputs"))

    def on_volume(self, argument: str) -> str:
        """The path on the volume of a path in an artifact; any other argument as it is."""
        is_artifact = any(Path(argument).is_relative_to(path) for path in (*self.inputs, *self.outputs))
        return str(self.folder / Path(argument).relative_to("/")) if is_artifact else argument

    def flags(self, flags: list[str]) -> list[str]:
        """The flags for the job's pods: paths on the volume, one process, and where to write the answer."""
        uris = {name: self.on_volume(str(path)) for path, name in self.outputs.items()}
        artifacts = {name: {"artifacts": [{"name": name, "uri": uri}]} for name, uri in uris.items()}
        executor_input = {"outputs": {"outputFile": str(self.answer), "artifacts": artifacts}}
        one_process = ["--processes", "1"]  # overrides an earlier one: torchrun starts the processes
        return [*map(self.on_volume, flags), *one_process, "--executor-input", json.dumps(executor_input)]

    def send(self, flags: list[str]) -> None:
        """Replace the folder on the volume by copies of the inputs that the flags name."""
        with atomic_directory(self.folder) as folder:
            for path in map(Path, flags):
                if any(path.is_relative_to(root) for root in self.inputs):
                    copy(path, folder / path.relative_to("/"))

    def fetch(self) -> Outcome:
        """Copy the outputs to where Kubeflow expects them, and return what the program answered."""
        for path in self.outputs:
            written = Path(self.on_volume(str(path)))
            if not written.exists():
                raise ArtifactError(f"{written}: the job completed without writing it")
            with (atomic_directory if written.is_dir() else atomic_file)(path) as temporary:
                copy(written, temporary)
        return Outcome(parameters=read_json(self.answer)["parameterValues"])  # steps that train report no metrics


def _artifact_names(executor_input: dict[str, Any], kind: str) -> dict[Path, str]:
    """The names of the input or output artifacts by their local paths."""
    listed = executor_input.get(kind, {}).get("artifacts", {})
    return {local_path(one["uri"]): name for name, several in listed.items() for one in several["artifacts"]}


def copy(source: Path, destination: Path) -> None:
    """Copy a file, or a folder with its content, without permissions and times, which not every volume keeps."""
    (destination if source.is_dir() else destination.parent).mkdir(parents=True, exist_ok=True)
    for entry in source.iterdir() if source.is_dir() else ():
        copy(entry, destination / entry.name)
    if source.is_file():
        copyfile(source, destination)


def start(jobs: Jobs, name: str, arguments: argparse.Namespace, exchange: Exchange) -> None:
    """Create the job, unless an earlier attempt started it and it has not failed."""
    conditions = jobs.conditions(name)
    if conditions is not None and not conditions.keys() & {"Failed", "Deleted"}:
        log.info("%s: an earlier attempt started it", name)
        return
    jobs.delete(name)
    while jobs.conditions(name) is not None:
        time.sleep(arguments.poll_seconds)
    exchange.send(arguments.flags)
    jobs.create(manifests(name, arguments, exchange.flags(arguments.flags)), arguments.claim)


def wait(jobs: Jobs, name: str, exchange: Exchange, poll_seconds: float) -> str:
    """Wait until the job ends. Returns why it failed, as the step's program put it if it did; "" on success."""
    begin, shown, error_file = time.monotonic(), "", exchange.answer.with_name(ERROR)
    while shown != "Complete":
        conditions = jobs.conditions(name)
        if conditions is None:
            raise TrainerJobError(f"{name}: somebody deleted the job")
        if error_file.is_file() and (message := error_file.read_text(encoding="utf-8").strip()):
            jobs.delete(name)  # restarted pods would end the same way
            return message
        if "Failed" in conditions:  # the job is kept for inspection; the next attempt replaces it
            return f"{name}: {conditions['Failed']}; {jobs.first_failure(name)}"
        phases = Counter(phase(pod) for pod in jobs.pods(name))
        pods = ", ".join(f"{count} {what}" for what, count in sorted(phases.items())) or "no pods yet"
        state = next((condition for condition in ("Complete", "Suspended") if condition in conditions), pods)
        if state != shown:
            log.info("%s: %s after %.0f s", name, state, time.monotonic() - begin)
        shown = state
        time.sleep(0 if state == "Complete" else poll_seconds)
    return ""


def main(arguments: argparse.Namespace, executor: Executor) -> None:
    jobs, identity = Jobs(), {key: str(value) for key, value in vars(arguments).items() if key != "poll_seconds"}
    name = f"pemt-{arguments.step.replace('_', '-')}-{sha256_of_json(identity)[:10]}"
    exchange = Exchange(arguments.volume / "jobs" / name, json.loads(arguments.executor_input))
    try:
        start(jobs, name, arguments, exchange)
        failure = wait(jobs, name, exchange, arguments.poll_seconds)
    except KeyboardInterrupt:
        jobs.delete(name)
        rmtree(exchange.folder, ignore_errors=True)
        raise
    if failure:
        rmtree(exchange.folder, ignore_errors=True)
        raise TrainerJobError(failure)
    executor.finish(exchange.fetch())
    jobs.delete(name)
    rmtree(exchange.folder, ignore_errors=True)


def pod_fields(text: str) -> dict[str, Any]:
    """Parse --pod."""
    try:
        return parse_object(text, "it")
    except SettingsError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m components.trainer_job", description=__doc__)
    parser.add_argument("--step", required=True, help="step to run; its program is components.STEP")
    parser.add_argument("--nodes", type=int, required=True, help="number of pods")
    parser.add_argument("--processes-per-node", type=int, required=True, help="processes in each pod, one per GPU")
    parser.add_argument("--image", required=True, help="image of the pods")
    parser.add_argument("--cpu", required=True, help="CPUs of each pod, as a Kubernetes quantity")
    parser.add_argument("--memory", required=True, help="memory of each pod, as a Kubernetes quantity")
    parser.add_argument("--claim", required=True, help="PersistentVolumeClaim of the volume, ReadWriteMany")
    parser.add_argument("--volume", type=Path, required=True, help="mount path of the volume, here and in the pods")
    parser.add_argument("--executor-input", required=True, help="Kubeflow's description of inputs and outputs, JSON")
    parser.add_argument("--gpu-resource", default="", help="GPU resource, nvidia.com/gpu for one (default: CPU only)")
    parser.add_argument("--runtime", default="torch-distributed", help="ClusterTrainingRuntime (default: %(default)s)")
    parser.add_argument("--secret", default="", help="Secret whose keys become environment variables of the pods")
    parser.add_argument(
        "--secret-keys", nargs="*", default=[], metavar="KEY", help="keys to pass; missing ones are skipped"
    )
    parser.add_argument("--pod", type=pod_fields, default={}, help="nodeSelector, tolerations and the like, JSON")
    parser.add_argument(
        "--poll-seconds", type=float, default=5.0, help="seconds between checks of the job (default: 5)"
    )
    parser.add_argument("flags", nargs="*", help="flags of the step's program, as the pipeline gives them")
    return parser


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parsed, kubeflow = make_parser().parse_args(), None
    with stoppable(lambda stopped: print(stopped, file=sys.stderr)):
        try:
            with file_errors_named():
                kubeflow = Executor(parsed.executor_input)
                main(parsed, kubeflow)
        except PemtError as error:
            if kubeflow:
                kubeflow.fail(str(error))
            sys.exit(refusal(error))
