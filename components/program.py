"""What every program does around its one call: settings, logging, errors as a line instead of a trace.

A program imports its step within `main`: --help and an error in the settings need not wait for torch.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable
from pathlib import Path

from pemt_core.errors import PemtError
from pemt_core.settings import Settings, load_settings
from pemt_core.tracking import Tracker, connect


def new_parser(module_doc: str | None, name: str) -> argparse.ArgumentParser:
    """A parser that explains the step by its module's docstring, with the flags that every step has."""
    parser = argparse.ArgumentParser(
        prog=f"python -m components.{name}",
        description=module_doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="settings (default: params.yaml)")
    parser.add_argument("--provenance", type=Path, required=True, help="file to write: commit, time, versions, cost")
    return parser


def run(main: Callable[[argparse.Namespace, Settings], None], parser: argparse.ArgumentParser) -> None:
    """Parse, load the settings, call `main`. Exit code 1 and one line where the user can mend what is wrong."""
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for chatty in ("httpx", "alembic", "mlflow"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        main(arguments, load_settings(arguments.params))
    except PemtError as error:
        sys.exit(f"error: {error}")


def open_tracker(settings: Settings, params: Path) -> Tracker:
    """The tracking server or file of the settings; a relative path counts from the folder of params.yaml.

    In `dvc exp run --temp` and `--queue` that folder is thrown away: DVC names the project's own in DVC_ROOT.
    """
    tracking = settings.tracking
    base_dir = Path(os.environ.get("DVC_ROOT") or params.resolve().parent)
    return connect(tracking.uri, tracking.experiment, base_dir, tracking.on_unreachable)
