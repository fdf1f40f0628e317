"""What every step's program does around its one call: settings, logging, errors as a line instead of a trace.

A program imports its step within `main`: --help and an error in the settings need not wait for torch.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from components.command import explained
from components.executor import Executor, Outcome
from pemt_core.errors import PemtError
from pemt_core.settings.groups import TrackingSettings
from pemt_core.settings.steps import StepType, read_step
from pemt_core.tracking import Tracker, connect
from pemt_core.tracking.address import holds_password
from pemt_core.tracking.store import tracking_dir, tracking_uri

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job(Generic[StepType]):
    """What one process of a step is given beside its flags."""

    settings: StepType
    provenance: Path | None  # the file to write; None in processes whose results another one writes
    executor: Executor | None  # Kubeflow, where it started the program


Main = Callable[[argparse.Namespace, Job[StepType]], Outcome | None]


def new_parser(module_doc: str | None, step: str) -> argparse.ArgumentParser:
    """A parser that explains the step by its module's docstring, with the flags that every step has."""
    parser = explained(module_doc, step)
    parser.add_argument("--executor-input", metavar="JSON", help="Kubeflow's request to a container")
    parser.add_argument("--provenance", type=Path, required=True, help="file to write: commit, time, versions, cost")
    return parser


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The flag for the settings of a step."""
    parser.add_argument("--settings", metavar="FILE|JSON", required=True, help="what plan wrote for this step")


def add_tracking(parser: argparse.ArgumentParser) -> None:
    """The flags of steps that write runs."""
    parser.add_argument(
        "--tracking", metavar="FILE|JSON", required=True, help="plan's tracking.json: where runs are kept"
    )
    parser.add_argument("--plan", metavar="KEY", help="of a branch of a cluster's run, whose report looks for its runs")


def add_training(parser: argparse.ArgumentParser) -> None:
    """The flags of steps that train."""
    add_tracking(parser)
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="training states to resume from")
    parser.add_argument(
        "--processes", type=int, default=1, help="share every batch among this many processes, one per GPU (default: 1)"
    )


def run(main: Main[StepType], parser: argparse.ArgumentParser, kind: type[StepType]) -> None:
    """Parse, read the step's settings, call `main`."""

    step = parser.prog.rpartition(".")[2]

    def read(arguments: argparse.Namespace, executor: Executor | None) -> Outcome | None:
        settings = read_step(kind, arguments.settings, step)
        share_among_processes(step, getattr(arguments, "processes", 1))
        return main(arguments, Job(settings, arguments.provenance if answers() else None, executor))

    run_program(read, parser)


def run_program(
    main: Callable[[argparse.Namespace, Executor | None], Outcome | None], parser: argparse.ArgumentParser
) -> None:
    """Parse and call `main`, then answer Kubeflow. Exit code 1 and one line where the user can fix what is wrong."""
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for chatty in ("httpx", "alembic", "mlflow"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    executor = None
    try:
        executor = Executor(arguments.executor_input) if arguments.executor_input else None
        outcome = main(arguments, executor) or Outcome()
        if executor and answers():
            executor.finish(outcome)
    except PemtError as error:
        if executor:
            executor.fail(str(error))
        sys.exit(f"error: {error}")


def answers() -> bool:
    """Whether this is the first of the processes that share a training: the one that writes for all."""
    return os.environ.get("RANK", "0") == "0"


def tracker_of(arguments: argparse.Namespace) -> Tracker:
    """The store that --tracking or MLFLOW_TRACKING_URI names.

    Results of a run on a cluster travel through it: with --plan, whose key its runs get as a tag, a store that is lost
    stops the step, whatever the settings say.
    """
    tracking = read_step(TrackingSettings, arguments.tracking, "tracking")
    return open_tracker(tracking, arguments.plan)


def open_tracker(tracking: TrackingSettings, plan: str | None, *, must_answer: bool = False) -> Tracker:
    """The store of these settings; with `plan`, or where it `must_answer`, one that is lost stops the step."""
    uri = tracking_uri(tracking.uri)
    if uri == tracking.uri and holds_password(uri):
        logger.warning(
            "tracking.uri holds a password, which git and dvc.lock would keep: set MLFLOW_TRACKING_URI to it instead"
        )
    on_unreachable = "stop" if plan or must_answer else tracking.on_unreachable
    tracker = connect(uri, tracking.experiment, tracking_dir(Path("params.yaml")), on_unreachable)
    return tracker.of_plan(plan) if plan else tracker


def share_among_processes(step: str, processes: int) -> None:
    """Become several processes that train together, by `accelerate launch`, where more than one is asked for."""
    if processes != 1:
        from pemt_core.training.accelerator import launch_command

        words, variables = launch_command(processes)
        alone = ["--processes", "1"]  # the last of a flag counts: else each of them would do the same
        command = [*words, f"components.{step}", *sys.argv[1:], *alone]
        os.execve(sys.executable, command, {**os.environ, **variables})
