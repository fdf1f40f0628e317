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

SHELLS = ("bash", "zsh", "tcsh")
TASK = "TASK"  # the metavar of what takes a task


def main(arguments: argparse.Namespace) -> None:
    import shtab

    from components.cli import COMMANDS, CommandError, make_parser

    loaded = []
    for name, command in COMMANDS.items():
        try:
            command.load()
        except CommandError:
            continue  # it has no flags to complete as long as it cannot run
        loaded.append(name)
    parser = make_parser(loaded)
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


if __name__ == "__main__":
    run(main, make_parser())
