"""Shared by the programs of all steps: settings, logging, tracking, and errors in one line instead of a traceback.

Programs import their step within `main`, so that --help and errors in the settings do not wait for torch.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from components.command import collect_rarely, explained, flush_output
from components.executor import Executor, Outcome
from components.handover import hand_over
from pemt_core.errors import PemtError, file_errors_named, refusal
from pemt_core.interruption import Interrupted, stoppable
from pemt_core.paths import OutputFile, OutputFolder, check_paths
from pemt_core.schema.values import check_words
from pemt_core.settings.groups import TrackingSettings
from pemt_core.settings.steps import StepType, read_step
from pemt_core.tracking import Tracker, connect
from pemt_core.tracking.address import holds_password
from pemt_core.tracking.store import tracking_dir, tracking_uri

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job(Generic[StepType]):
    """What one process of a step gets besides its flags."""

    settings: StepType
    provenance: Path | None  # file to write; None if another process writes the results
    executor: Executor | None  # set if Kubeflow started the program


Main = Callable[[argparse.Namespace, Job[StepType]], Outcome | None]


def new_parser(module_doc: str | None, step: str) -> argparse.ArgumentParser:
    """Return a parser described by the step's module docstring, with the flags that every step has."""
    parser = explained(module_doc, step)
    parser.add_argument("--executor-input", metavar="JSON", help="Kubeflow's request to a container")
    help_text = "file to write: commit, time, versions, cost"
    parser.add_argument("--provenance", type=OutputFile, required=True, help=help_text)
    return parser


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the flag for the settings of a step."""
    parser.add_argument("--settings", metavar="FILE|JSON", required=True, help="settings that plan wrote for this step")


def add_rerun(parser: argparse.ArgumentParser) -> None:
    """Add the flag of the steps that know the keys of a cluster run's branches."""
    help_text = "identifies a cluster run that does every step again, and whose report has its results alone"
    parser.add_argument("--rerun", metavar="ID", default="", help=help_text)


def add_targets(parser: argparse.ArgumentParser) -> None:
    """Add the flag for a part of the targets, as words or, from Kubeflow, as a JSON list in one word."""
    parser.add_argument(
        "--targets", nargs="+", action=_Names, metavar="TASK", help="target tasks (default: all in the settings)"
    )


class _Names(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: object) -> None:
        """Store the names. A list that is not one of texts is taken for a name, and unknown as such."""
        with suppress(ValueError):
            listed = json.loads(values[0]) if len(values) == 1 else None
            values = listed if isinstance(listed, list) and all(isinstance(name, str) for name in listed) else values
        setattr(namespace, self.dest, values)


def add_tracking(parser: argparse.ArgumentParser) -> None:
    """Add the flags of steps that write runs."""
    parser.add_argument(
        "--tracking", metavar="FILE|JSON", required=True, help="tracking.json of plan: where runs are stored"
    )
    parser.add_argument("--plan", metavar="KEY", help="key of a cluster run's branch, by which its report finds runs")


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add the flags of steps that train."""
    add_tracking(parser)
    help_text = "folder of states to resume from"
    parser.add_argument("--checkpoints", type=OutputFolder, default=OutputFolder("checkpoints"), help=help_text)
    parser.add_argument(
        "--processes", type=int, default=1, help="split every batch among this many processes, one per GPU (default: 1)"
    )


def run(main: Main[StepType], parser: argparse.ArgumentParser, kind: type[StepType]) -> None:
    """Parse the flags, read the step's settings and call `main`."""

    step = parser.prog.rpartition(".")[2]

    def read(arguments: argparse.Namespace, executor: Executor | None) -> Outcome | None:
        settings = read_step(kind, arguments.settings, step)
        share_among_processes(step, getattr(arguments, "processes", 1))
        return main(arguments, Job(settings, arguments.provenance if answers() else None, executor))

    run_program(read, parser)


def run_program(
    main: Callable[[argparse.Namespace, Executor | None], Outcome | None], parser: argparse.ArgumentParser
) -> None:
    """Parse the flags, call `main` and answer Kubeflow; below a fork server, have a fork do so.

    A PemtError, and a file that cannot be read or written, become one line and exit code 1, SIGINT and SIGTERM one line
    and exit codes 130 and 143.
    """
    hand_over(parser.prog.rpartition(" ")[2])
    arguments = parser.parse_args()
    collect_rarely()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for chatty in ("httpx", "alembic", "mlflow"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    executor = None

    def report(stopped: Interrupted) -> None:
        if executor and answers():
            executor.fail(str(stopped))
        if answers():
            sys.stderr.write(f"{stopped}\n")

    with stoppable(report):
        try:
            with file_errors_named():
                executor = Executor(arguments.executor_input) if arguments.executor_input else None
                check_words(sys.argv[1:])
                check_paths(vars(arguments).values())
                outcome = main(arguments, executor) or Outcome()
                if executor and answers():
                    executor.finish(outcome)
                flush_output()
        except PemtError as error:
            if executor:
                executor.fail(str(error))
            sys.exit(refusal(error))


def answers() -> bool:
    """Whether this is the first of the processes that share a training, which writes for all."""
    return os.environ.get("RANK", "0") == "0"


def tracker_of(arguments: argparse.Namespace) -> Tracker:
    """Connect to the store that --tracking or MLFLOW_TRACKING_URI names.

    With --plan, runs are tagged with its key, and an unreachable store stops the step regardless of the settings:
    cluster runs pass their results through the store.
    """
    tracking = read_step(TrackingSettings, arguments.tracking, "tracking")
    return open_tracker(tracking, arguments.plan)


def open_tracker(tracking: TrackingSettings, plan: str | None, *, must_answer: bool = False) -> Tracker:
    """Connect to the store of these settings. With `plan` or `must_answer`, an unreachable store stops the step."""
    uri = tracking_uri(tracking.uri)
    if uri == tracking.uri and holds_password(uri):
        logger.warning(
            "tracking.uri contains a password, which git and dvc.lock would store: set MLFLOW_TRACKING_URI instead"
        )
    on_unreachable = "stop" if plan or must_answer else tracking.on_unreachable
    tracker = connect(uri, tracking.experiment, tracking_dir(Path("params.yaml")), on_unreachable)
    return tracker.of_plan(plan) if plan else tracker


def share_among_processes(step: str, processes: int) -> None:
    """Run the program in several processes by `accelerate launch` and exit as they do, if more than one is to train."""
    if processes != 1:
        from pemt_core.training.accelerator import launch, launch_options

        options, variables = launch_options(processes)
        os.environ.update(variables)
        alone = ["--processes", "1"]  # overrides the user's flag, so that they do not launch others
        sys.exit(launch([*options, f"components.{step}", *sys.argv[1:], *alone]))
