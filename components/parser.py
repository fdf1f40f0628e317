"""The parser of all commands: an unknown flag gets the nearest one."""

import argparse
from collections.abc import Sequence
from typing import Any

from pemt_core.errors import nearest


class Parser(argparse.ArgumentParser):
    """A parser that shows the description as it is written; those of its commands are of this class too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"formatter_class": argparse.RawDescriptionHelpFormatter, **kwargs})

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse the arguments. Arguments that are left over end the program with exit code 2."""
        parsed, left = super().parse_known_args(args, namespace)
        if left:
            self.error(f"unrecognized arguments: {' '.join(left)}{self._hint(left)}")
        return parsed, left

    def _hint(self, words: Sequence[str]) -> str:
        flags = [word.partition("=")[0] for word in words if word.startswith("--")]
        known = [flag for action in self._actions for flag in action.option_strings]
        hints = [hint for flag in flags if (hint := nearest(flag, known)).startswith("did you mean")]
        return f"; {hints[0]}" if hints else ""
