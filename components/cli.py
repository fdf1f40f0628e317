"""The command line: `pemt COMMAND`. Each command is a separate program, loaded only when it is called.

Exit codes: 0 success, 1 a problem, explained in one line, 2 wrong usage, 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

import argparse
import os
import sys
from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from components.parser import Parser
from pemt_core import __version__
from pemt_core.errors import PemtError, nearest, refusal
from pemt_core.interruption import stoppable

READER_GONE = 141  # 128 plus the number of SIGPIPE, as in shells


class CommandError(PemtError):
    """A command needs packages that are not installed."""


@dataclass(frozen=True)
class Command:
    """A module with `make_parser`, `main` and the `run` that calls it, and its summary in one line."""

    module: str
    summary: str
    extra: str = ""  # the extra of pyproject.toml with the packages that only it needs

    def load(self) -> Any:
        """Import the module. CommandError if a package that it needs is missing."""
        try:
            return import_module(self.module)
        except ModuleNotFoundError as error:
            extra = f"[{self.extra}]" if self.extra else ""
            raise CommandError(
                f"{self.module} needs the package {error.name}, which is not installed: "
                f"pip install -e '.{extra}' -c constraints.txt"
            ) from error


COMMANDS = {
    "tasks": Command("components.tasks", "list the tasks, or show one"),
    "backbones": Command("components.backbones", "list the families of backbones"),
    "methods": Command("components.methods", "list the methods, and what each trains"),
    "add-task": Command("components.add_task", "make a task from a data file"),
    "doctor": Command("components.doctor", "check this machine and project, and say what to fix"),
    "compare": Command("components.compare", "run an experiment, which compares methods"),
    "report": Command("components.results", "show the results"),
    "predict": Command("components.predict", "predict the rows of a file"),
    "serve": Command("components.serve", "serve trained targets over HTTP"),
    "export": Command("components.export_adapter", "write an adapter for PEFT, or a target for transformers"),
    "ui": Command("components.ui", "show the runs in MLflow"),
    "image": Command("pipelines.image", "build the container image of all steps", "kubeflow"),
    "local": Command("pipelines.local", "run the pipeline in containers on this machine", "kubeflow"),
    "submit": Command("pipelines.submit", "start a run on a cluster", "kubeflow"),
    "compile": Command("pipelines.compile", "compile the pipeline to a file for Kubeflow", "kubeflow"),
    "completion": Command("components.completion", "print the script for completion in a shell"),
}


def make_parser(loaded: Collection[str]) -> argparse.ArgumentParser:
    """Return the parser of all commands, with the flags of those in `loaded`: loading a module takes time."""
    parser = Parser(prog="pemt", description=__doc__)
    parser.add_argument("--version", action="version", version=f"pemt {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        if name not in loaded:
            commands.add_parser(name, help=command.summary)
            continue
        program = command.load().make_parser()
        commands.add_parser(
            name,
            help=command.summary,
            description=program.description,
            parents=[program],
            add_help=False,  # the program's parser has it
        )
    return parser


def whole_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands, with the flags of those whose packages are installed."""
    loaded = []
    for name, command in COMMANDS.items():
        try:
            command.load()
        except CommandError:
            continue
        loaded.append(name)
    return make_parser(loaded)


def dispatch() -> None:
    """Run the command that the first argument names."""
    name = next(iter(sys.argv[1:]), "")
    try:
        parser = make_parser({name} & COMMANDS.keys())
    except CommandError as error:
        sys.exit(refusal(error))
    if name in COMMANDS:
        program = COMMANDS[name].load()
        parser.set_defaults(whole_parser=whole_parser)  # for `completion`, which cannot import it
        program.run(program.main, parser)
    elif not name:
        parser.print_help(sys.stderr)
        sys.exit(2)
    elif not name.startswith("-"):
        parser.error(f"there is no command '{name}': {nearest(name, COMMANDS)}")
    else:
        parser.parse_args()


def main() -> None:
    """Run `pemt`. Signals and a closed output pipe end it without a traceback."""
    with stoppable():
        try:
            try:
                dispatch()
            finally:
                if sys.stdout is not None:  # unless it is closed
                    sys.stdout.flush()
        except BrokenPipeError:  # as in `pemt tasks | head -1`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes again at exit
            sys.exit(READER_GONE)


if __name__ == "__main__":
    main()
