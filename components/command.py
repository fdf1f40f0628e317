"""Shared by the user's commands: the parser, common flags, and errors in one line instead of a traceback."""

import argparse
import atexit
import gc
import io
import os
import socket
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from components.parser import Parser
from pemt_core.errors import FileError, PemtError, file_errors_named, refusal
from pemt_core.interruption import stoppable
from pemt_core.paths import check_paths
from pemt_core.schema.values import check_words

Main = Callable[[argparse.Namespace], int | None]

YOUNG_OBJECTS = 5000  # new objects after which the collector runs; Python's default is 700
HOST = "127.0.0.1"  # only this machine can reach the servers that a command starts


class PortError(PemtError):
    """A server cannot listen on this port."""


def explained(module_doc: str | None, program: str) -> argparse.ArgumentParser:
    """Return a parser for `components.<program>` with its module's docstring as the description."""
    return Parser(prog=f"python -m components.{program}", description=module_doc)


def add_params(parser: argparse.ArgumentParser) -> None:
    """Add the flag for the settings."""
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="settings (default: params.yaml)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the flag for machine-readable output."""
    parser.add_argument("--json", action="store_true", help="print a single JSON document")


def changed_flags(arguments: argparse.Namespace, parser: argparse.ArgumentParser, names: Iterable[str]) -> str:
    """The flags among the arguments `names` whose value is not the parser's default, joined by "and"."""
    changed = [name for name in names if getattr(arguments, name) != parser.get_default(name)]
    return " and ".join(f"--{name.replace('_', '-')}" for name in changed)


def worker_count(text: str) -> int:
    """Parse --workers, before anything is done."""
    if text.isdecimal() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{text}': expected at least 1")


def collect_rarely() -> None:
    """Run the garbage collector less often, and not at the end.

    Importing torch and transformers makes hundreds of thousands of objects and hardly any garbage: searching them takes
    a third of a start, and as long again when the interpreter ends.
    """
    gc.set_threshold(YOUNG_OBJECTS)
    atexit.register(gc.freeze)


def show_any_character() -> None:
    """Print what the standard output's encoding lacks as an escape, such as ± in a locale without UTF-8."""
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def run(main: Main, parser: argparse.ArgumentParser) -> None:
    """Parse the flags and call `main`, which may return an exit code.

    A PemtError, and a file that cannot be read or written, become one line and exit code 1.
    """
    collect_rarely()
    show_any_character()
    with stoppable():
        arguments = parser.parse_args()
        try:
            with file_errors_named():
                check_words(sys.argv[1:])
                check_paths(vars(arguments).values())
                code = main(arguments)
                flush_output()
            sys.exit(code)
        except PemtError as error:
            sys.exit(refusal(error))


def flush_output() -> None:
    """Write what was printed. Raises FileError if that is impossible, as on a full disk."""
    if sys.stdout is None:  # closed by whoever started this process
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes again at exit
        raise FileError(f"cannot write to the standard output: {error.strerror}") from error


def check_port(port: int, host: str = HOST) -> None:
    """Raise PortError, which names a free port, if a server could not listen on this one."""
    with socket.socket() as probe, socket.socket() as other:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the port of a server that just ended is free
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            other.bind((HOST, 0))
            reason = error.strerror if isinstance(error, OSError) else error
            place = f"--port is {port}" if host == HOST else f"--host is {host}, --port is {port}"
            raise PortError(f"{place}: {reason}; {other.getsockname()[1]} is free") from error
