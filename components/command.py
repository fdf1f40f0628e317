"""What the commands for people share: their parser, and errors as a line instead of a trace."""

import argparse
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from pemt_core.errors import PemtError

Main = Callable[[argparse.Namespace], int | None]

HOST = "127.0.0.1"  # servers that a command starts are for this machine alone


class PortError(PemtError):
    """A server cannot listen there."""


def explained(module_doc: str | None, program: str) -> argparse.ArgumentParser:
    """The parser of `components.<program>`, which its module's docstring explains."""
    return argparse.ArgumentParser(
        prog=f"python -m components.{program}",
        description=module_doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_params(parser: argparse.ArgumentParser) -> None:
    """The flag for the settings."""
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="settings (default: params.yaml)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """The flag for scripts that read the output."""
    parser.add_argument("--json", action="store_true", help="print one JSON document, and nothing else")


def run(main: Main, parser: argparse.ArgumentParser) -> None:
    """Parse and call `main`, which may return an exit code. Exit code 1 and one line where the user can mend it."""
    try:
        sys.exit(main(parser.parse_args()))
    except PemtError as error:
        sys.exit(f"error: {error}")


def check_port(port: int) -> None:
    """PortError, which names a free port, where something listens at this one."""
    with socket.socket() as wanted, socket.socket() as other:
        wanted.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a server that has just ended is no obstacle
        try:
            wanted.bind((HOST, port))
        except (OSError, OverflowError) as error:
            other.bind((HOST, 0))
            reason = error.strerror if isinstance(error, OSError) else error
            raise PortError(f"--port is {port}: {reason}; {other.getsockname()[1]} is free") from error
