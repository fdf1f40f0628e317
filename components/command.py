"""Shared by the user's commands: the parser, common flags, and errors in one line instead of a traceback."""

import argparse
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from pemt_core.errors import PemtError
from pemt_core.interruption import stoppable

Main = Callable[[argparse.Namespace], int | None]

HOST = "127.0.0.1"  # only this machine can reach the servers that a command starts


class PortError(PemtError):
    """A server cannot listen on this port."""


def explained(module_doc: str | None, program: str) -> argparse.ArgumentParser:
    """Return a parser for `components.<program>` with its module's docstring as the description."""
    return argparse.ArgumentParser(
        prog=f"python -m components.{program}",
        description=module_doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_params(parser: argparse.ArgumentParser) -> None:
    """Add the flag for the settings."""
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="settings (default: params.yaml)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the flag for machine-readable output."""
    parser.add_argument("--json", action="store_true", help="print a single JSON document")


def run(main: Main, parser: argparse.ArgumentParser) -> None:
    """Parse the flags and call `main`, which may return an exit code. A PemtError becomes one line and exit code 1."""
    with stoppable():
        try:
            sys.exit(main(parser.parse_args()))
        except PemtError as error:
            sys.exit(f"error: {error}")


def check_port(port: int) -> None:
    """Raise PortError, which names a free port, if a server could not listen on this one."""
    with socket.socket() as probe, socket.socket() as other:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the port of a server that just ended is free
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            other.bind((HOST, 0))
            reason = error.strerror if isinstance(error, OSError) else error
            raise PortError(f"--port is {port}: {reason}; {other.getsockname()[1]} is free") from error
