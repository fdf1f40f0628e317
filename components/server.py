"""Servers as processes that end with the command that runs them."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from components.parent import end_with_parent

ENDING_SECONDS = 5.0


def run_server(words: Sequence[str], variables: Mapping[str, str]) -> int:
    """Run `python -m` with these words and environment variables until it ends, and return its exit code.

    A signal ends the server first, then this process. Ctrl-C in a terminal does not reach the server, which would
    print a traceback.
    """
    server = subprocess.Popen(
        [sys.executable, "-m", *words],
        env={**os.environ, **variables},
        start_new_session=True,
        preexec_fn=end_with_parent,
    )
    try:
        return server.wait()
    finally:
        if server.poll() is None:
            _end(server)


def _end(server: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
