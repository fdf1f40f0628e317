"""What the commands share: params.yaml, the run's choices, errors as a line."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pemt_core.errors import PemtError
from pemt_core.settings import Settings, parse_settings, read_params


def add_params(parser: argparse.ArgumentParser) -> None:
    """The flag for the settings."""
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="settings (default: params.yaml)")


def add_choices(parser: argparse.ArgumentParser) -> None:
    """The pipeline's parameters as flags."""
    parser.add_argument("--recipe", help="recipe of params.yaml (default: the one it names)")
    parser.add_argument("--sources", nargs="+", metavar="TASK", help="source tasks (default: as params.yaml lists)")
    parser.add_argument("--targets", nargs="+", metavar="TASK", help="target tasks (default: as params.yaml lists)")
    parser.add_argument("--k", nargs="+", type=_k, help="few-shot rows per class, or full (default: of the recipe)")
    parser.add_argument("--seeds", nargs="+", type=int, help="seeds (default: of the recipe)")


def chosen(arguments: argparse.Namespace) -> dict[str, Any]:
    """The pipeline's arguments that the flags of `add_choices` gave."""
    names = ("recipe", "sources", "targets", "k", "seeds")
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def load(params: Path) -> tuple[Settings, str]:
    """The checked settings, and the file's content as JSON."""
    values = read_params(params)
    return parse_settings(values, str(params)), json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def run(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse and call `main`. Exit code 1 and one line where the user can mend what is wrong."""
    try:
        main(parser.parse_args())
    except PemtError as error:
        sys.exit(f"error: {error}")


def _k(text: str) -> str | int:
    return text if text == "full" else int(text)
