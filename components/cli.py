"""The command line: `pemt COMMAND`. Each command is a program of its own, loaded when it is called.

Exit codes: 0 it went well, 1 a problem, said in one line, 2 wrong usage, 130 stopped by Ctrl-C.
"""

import argparse
import os
import sys
from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from pemt_core import __version__
from pemt_core.errors import PemtError, nearest

STOPPED, READER_GONE = 130, 141  # 128 and the number of SIGINT, of SIGPIPE: as shells count


class CommandError(PemtError):
    """A command needs packages that are not installed."""


@dataclass(frozen=True)
class Command:
    """A program with `make_parser`, `main`, and the `run` that calls it; its explanation in a line."""

    module: str
    summary: str
    extra: str = ""  # of pyproject.toml: the packages that it needs beside those of all

    def load(self) -> Any:
        """The program's module. CommandError where a package is missing that it needs."""
        try:
            return import_module(self.module)
        except ModuleNotFoundError as error:
            extra = f"[{self.extra}]" if self.extra else ""
            raise CommandError(
                f"the package {error.name} is not installed, which {self.module} needs: "
                f"pip install -e '.{extra}' -c constraints.txt"
            ) from error


COMMANDS = {
    "tasks": Command("components.tasks", "list the tasks, or show one"),
    "methods": Command("components.methods", "list the methods, and what each trains"),
    "add-task": Command("components.add_task", "make a task from a file of yours"),
    "doctor": Command("components.doctor", "check this machine and project, and say what to mend"),
    "report": Command("components.results", "show the results"),
    "predict": Command("components.predict", "predict for the rows of a file"),
    "serve": Command("components.serve", "answer for a trained target over HTTP"),
    "export": Command("components.export_adapter", "write a source adapter in PEFT's layout"),
    "ui": Command("components.ui", "show the runs in MLflow's pages"),
    "image": Command("pipelines.image", "build the image that containers run in", "kubeflow"),
    "local": Command("pipelines.local", "run the pipeline in containers on this machine", "kubeflow"),
    "submit": Command("pipelines.submit", "start a run on a cluster", "kubeflow"),
    "compile": Command("pipelines.compile", "write the pipeline as a file for Kubeflow", "kubeflow"),
    "completion": Command("components.completion", "print what completes all this in a shell"),
}


def make_parser(loaded: Collection[str]) -> argparse.ArgumentParser:
    """The whole command line, with the flags of the commands in `loaded`: a module takes time to load."""
    parser = argparse.ArgumentParser(
        prog="pemt", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
            formatter_class=program.formatter_class,
            parents=[program],
            add_help=False,  # the program has it
        )
    return parser


def whole_parser() -> argparse.ArgumentParser:
    """The whole command line, with the flags of every command that can run here."""
    loaded = []
    for name, command in COMMANDS.items():
        try:
            command.load()
        except CommandError:
            continue
        loaded.append(name)
    return make_parser(loaded)


def dispatch() -> None:
    """Run the command that the first word names."""
    name = next(iter(sys.argv[1:]), "")
    try:
        parser = make_parser({name} & COMMANDS.keys())
    except CommandError as error:
        sys.exit(f"error: {error}")
    if name in COMMANDS:
        program = COMMANDS[name].load()
        parser.set_defaults(whole_parser=whole_parser)  # completion, which is one of the commands, cannot import it
        program.run(program.main, parser)
    elif not name:
        parser.print_help(sys.stderr)
        sys.exit(2)
    elif not name.startswith("-"):
        parser.error(f"there is no command '{name}': {nearest(name, COMMANDS)}")
    else:
        parser.parse_args()


def main() -> None:
    """The program `pemt`: without a trace where it is stopped, or nobody reads what it prints."""
    try:
        try:
            dispatch()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        os._exit(STOPPED)  # at once: a thread that waits for a server would hold the interpreter up
    except BrokenPipeError:  # as of `pemt tasks | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        sys.exit(READER_GONE)


if __name__ == "__main__":
    main()
