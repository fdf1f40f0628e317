"""Completion of `pemt` for a shell: commands, flags, files, and the names of tasks.

bash   pemt completion bash > ~/.local/share/bash-completion/completions/pemt
zsh    pemt completion zsh > FOLDER/_pemt, with FOLDER in fpath
tcsh   pemt completion tcsh > ~/.pemt.tcsh, and `source ~/.pemt.tcsh` in ~/.tcshrc
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from components.command import explained, run
from pemt_core.tasks import TASKS

__all__ = ["main", "make_parser", "run"]  # what pemt calls; alone, this program would have nothing to complete

SHELLS = ("bash", "zsh", "tcsh")
TASK = "TASK"  # the metavar of what takes a task


def main(arguments: argparse.Namespace) -> None:
    """Print the script for `arguments.whole_parser()`, the parser of `pemt` with all commands, which pemt sets."""
    import shtab

    parser = arguments.whole_parser()
    for action in actions(parser):
        if action.metavar == TASK:
            action.choices = tuple(TASKS)
        elif action.type is Path:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, arguments.shell))


def actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """All arguments of a parser and of its commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield from actions(command)
        else:
            yield action


def make_parser() -> argparse.ArgumentParser:
    parser = explained(__doc__, "completion")
    parser.add_argument("shell", choices=SHELLS, help="bash, zsh or tcsh")
    return parser
