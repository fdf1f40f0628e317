"""The parser of all commands: an unknown flag gets the nearest one."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from pemt_core.errors import nearest


class Parser(argparse.ArgumentParser):
    """A parser that shows the description as it is written; those of its commands are of this class too."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"formatter_class": argparse.RawDescriptionHelpFormatter, **kwargs})
        self._words: Sequence[str] = ()

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse the arguments. Arguments that are left over end the program with exit code 2."""
        self._words = sys.argv[1:] if args is None else list(args)
        parsed, left = super().parse_known_args(self._words, namespace)
        if left:
            self.error(f"unrecognized arguments: {' '.join(left)}")
        return parsed, left

    def error(self, message: str) -> NoReturn:
        """End the program with the message, and with the flag nearest to an unknown one."""
        super().error(f"{message}{self._hint()}")

    def _hint(self) -> str:
        known = [flag for action in self._actions for flag in action.option_strings]
        flags = [word.partition("=")[0] for word in self._words if word.startswith("--") and word != "--"]
        unknown = [flag for flag in flags if not any(each.startswith(flag) for each in known)]
        hints = [hint for flag in unknown if (hint := nearest(flag, known)).startswith("did you mean")]
        return f"; {hints[0]}" if hints else ""
