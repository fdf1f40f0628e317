"""What every program does around its one call: settings, logging, errors as a line instead of a trace.

A program imports its step within `main`: --help and an error in the settings need not wait for torch.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from components.command import add_params, explained
from components.executor import Executor, Outcome
from pemt_core.errors import PemtError
from pemt_core.schema.validation import parse_object
from pemt_core.settings import GROUPS_OF_STEP, Choices, Settings, parse_settings, parse_step_settings, read_params
from pemt_core.tracking import Tracker, connect
from pemt_core.tracking.address import holds_password
from pemt_core.tracking.store import tracking_dir, tracking_uri

logger = logging.getLogger(__name__)

Main = Callable[[argparse.Namespace, Settings], Outcome | None]


def new_parser(module_doc: str | None, step: str) -> argparse.ArgumentParser:
    """A parser that explains the step by its module's docstring, with the flags that every step has."""
    parser = explained(module_doc, step)
    parser.set_defaults(step=step)
    add_params(parser)
    parser.add_argument("--settings", metavar="JSON", help="the groups of it that the step reads, instead of the file")
    parser.add_argument(
        "--executor-input", metavar="JSON", help="what Kubeflow tells a container, and where it answers"
    )
    parser.add_argument("--provenance", type=Path, required=True, help="file to write: commit, time, versions, cost")
    return parser


def add_training_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of steps that train."""
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="training states to resume from")
    parser.add_argument(
        "--processes", type=int, default=1, help="share every batch among so many processes, one per GPU (default: 1)"
    )


def add_plan_flag(parser: argparse.ArgumentParser) -> None:
    """The flag of steps whose tracking runs a cluster's report looks for."""
    parser.add_argument("--plan", metavar="KEY", help="record results at once, found again by this key of a run's plan")


def add_choices(parser: argparse.ArgumentParser) -> None:
    """The flag by which a run on a cluster chooses what it does."""
    help_text = "recipe, sources, targets, k and seeds in place of what the settings say; all of them optional"
    parser.add_argument("--choices", metavar="JSON", help=help_text)


def run(main: Main, parser: argparse.ArgumentParser) -> None:
    """Parse, load the settings, call `main`. Exit code 1 and one line where the user can mend what is wrong."""
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for chatty in ("httpx", "alembic", "mlflow"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    executor = None
    try:
        arguments.executor = executor = Executor(arguments.executor_input) if arguments.executor_input else None
        settings = _settings(arguments)
        _share_among_processes(arguments)
        answers = os.environ.get("RANK", "0") == "0"  # the first process, for all that share a training
        if not answers:
            arguments.provenance = None
        outcome = main(arguments, settings) or Outcome()
        if executor and answers:
            executor.finish(outcome)
    except PemtError as error:
        if executor:
            executor.fail(str(error))
        sys.exit(f"error: {error}")


def open_tracker(settings: Settings, arguments: argparse.Namespace) -> Tracker:
    """The tracking server or file of the settings, or of MLFLOW_TRACKING_URI.

    Results of a run on a cluster travel through it: with --plan, whose key its runs get as a tag, and with --gather a
    store that is lost stops the step, whatever the settings say.
    """
    tracking, plan = settings.tracking, getattr(arguments, "plan", None)
    uri = tracking_uri(tracking.uri)
    if uri == tracking.uri and holds_password(tracking.uri):
        logger.warning(
            "tracking.uri holds a password, which git and dvc.lock would keep: set MLFLOW_TRACKING_URI to it instead"
        )
    tracker = connect(
        uri,
        tracking.experiment,
        tracking_dir(arguments.params),
        "stop" if plan or getattr(arguments, "gather", False) else tracking.on_unreachable,
    )
    return tracker.of_plan(plan) if plan else tracker


def _settings(arguments: argparse.Namespace) -> Settings:
    """All settings, or those of one step where a JSON text has them; with the choices of a program that has any."""
    text, choices = arguments.settings, getattr(arguments, "choices", None)
    if text is not None and arguments.step in GROUPS_OF_STEP:
        return parse_step_settings(arguments.step, text)
    values = read_params(arguments.params) if text is None else parse_object(text, "--settings")
    origin = str(arguments.params) if text is None else "--settings"
    return parse_settings(values if choices is None else Choices.parse(choices).laid_over(values), origin)


def _share_among_processes(arguments: argparse.Namespace) -> None:
    """Become several processes that train together, by `accelerate launch`, where more than one is asked for."""
    processes = getattr(arguments, "processes", 1)
    if processes != 1:
        from pemt_core.training.accelerator import launch_command

        words, variables = launch_command(processes)
        alone = ["--processes", "1"]  # the last of a flag counts: else each of them would do the same
        command = [*words, f"components.{arguments.step}", *sys.argv[1:], *alone]
        os.execve(sys.executable, command, {**os.environ, **variables})
