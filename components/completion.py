"""Print the script with which a shell completes the commands, flags, files and task names of `pemt`.

bash   pemt completion bash > ~/.local/share/bash-completion/completions/pemt
zsh    pemt completion zsh > FOLDER/_pemt, with FOLDER in fpath
tcsh   pemt completion tcsh > ~/.pemt.tcsh, and `source ~/.pemt.tcsh` in ~/.tcshrc
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

from components.command import explained, run
from pemt_core.comparison.experiments import FOLDER, SHARED
from pemt_core.settings.load import settings_files
from pemt_core.tasks import TASKS

__all__ = ["main", "make_parser", "run"]  # pemt calls these; there is nothing to complete without it

SHELLS = ("bash", "zsh", "tcsh")
TASK, EXPERIMENT = "TASK", "EXPERIMENT"  # the metavars of arguments that take a task, or an experiment of this folder


def main(arguments: argparse.Namespace) -> None:
    """Print the script for `arguments.whole_parser()`, which pemt sets to the parser of all its commands."""
    import shtab

    parser = arguments.whole_parser()
    for action in actions(parser):
        if action.metavar == TASK:
            action.choices = tuple(TASKS)
        elif action.metavar == EXPERIMENT:
            action.choices = tuple(path.stem for path in settings_files(Path(FOLDER)) if path.stem != SHARED)
        elif isinstance(action.type, type) and issubclass(action.type, Path):
            action.complete = shtab.FILE  # type: ignore[attr-defined]
    print(shtab.complete(parser, arguments.shell))


def actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield all arguments of a parser and of its commands."""
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
