"""Run a command whose programs of steps start quickly, as forks of a process that has loaded what they import.

    python -m components.fork_server dvc repro

Importing torch, transformers and MLflow takes longer than some trainings of the demo. A program of a step that the
command starts sends its arguments, its environment and its open files here. The fork runs the program in its place, and
the program ends as the fork does.
"""

import argparse
import json
import os
import runpy
import selectors
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn

from components.command import explained
from components.handover import ADDRESS, LENGTH
from pemt_core.errors import PemtError


class ForkServer:
    """Forks a process for each request, while a command runs. `before_fork` may load more for the next fork."""

    def __init__(self, listener: socket.socket, before_fork: Callable[[], None] = lambda: None) -> None:
        self.listener, self.before_fork = listener, before_fork
        self.selector = selectors.DefaultSelector()
        self.forks: dict[socket.socket, int] = {}  # process id by connection

    def serve(self, command: Sequence[str], environment: dict[str, str]) -> int:
        """Answer the programs that `command` starts until it ends; returns its exit code."""
        with subprocess.Popen(command, env=environment) as process:
            signal.signal(signal.SIGINT, lambda *_: None)  # a terminal sends it to the command too
            signal.signal(signal.SIGTERM, lambda *_: process.terminate())
            ended = os.pidfd_open(process.pid)
            self.selector.register(ended, selectors.EVENT_READ, None)
            self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
            while process.returncode is None:
                for key, _ in self.selector.select():
                    if key.data is None:
                        process.wait()
                    else:
                        key.data(key.fileobj)
        return exit_code(process.returncode)

    def _accept(self, _: Any) -> None:
        connection, _address = self.listener.accept()
        header, files, _, _ = socket.recv_fds(connection, LENGTH.size, 3)
        content = connection.recv(LENGTH.unpack(header)[0], socket.MSG_WAITALL)
        self.before_fork()
        sys.stdout.flush()
        sys.stderr.flush()
        process = os.fork()
        if not process:
            self.listener.close()
            connection.close()
            run_here(json.loads(content), files)
        for file in files:
            os.close(file)
        self.forks[connection] = process
        self.selector.register(connection, selectors.EVENT_READ, self._pass_on)
        self.selector.register(os.pidfd_open(process), selectors.EVENT_READ, lambda fd: self._end(fd, connection))

    def _pass_on(self, connection: socket.socket) -> None:
        """Send the program's signals to its fork; a program that was killed takes its fork with it."""
        received = connection.recv(64)
        for number in received or [signal.SIGKILL]:
            os.kill(self.forks[connection], number)
        if not received:
            self.selector.unregister(connection)

    def _end(self, ended: int, connection: socket.socket) -> None:
        _, status = os.waitpid(self.forks[connection], 0)
        self.selector.unregister(ended)
        os.close(ended)
        if connection in {key.fileobj for key in self.selector.get_map().values()}:
            self.selector.unregister(connection)
            connection.sendall(LENGTH.pack(exit_code(os.waitstatus_to_exitcode(status))))
        del self.forks[connection]
        connection.close()


def exit_code(code: int) -> int:
    """128 plus the number of the signal that killed a process, as in shells."""
    return code if code >= 0 else 128 - code


def run_here(request: dict[str, Any], files: Sequence[int]) -> NoReturn:
    """Run the program of a request in this fork, with its files, and end the process."""
    code: object = 1
    try:
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.chdir(request["folder"])
        os.environ.clear()
        os.environ.update({name: value for name, value in request["environment"].items() if name != ADDRESS})
        sys.argv = request["arguments"]
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
        if not isinstance(code, int):
            sys.stderr.write(f"{code}\n")
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def preload() -> None:
    """Import what most programs need, without starting a thread."""
    import pemt_core.steps.train_source
    import pemt_core.steps.transfer  # noqa: F401
    from pemt_core.tracking.store import import_mlflow

    import_mlflow()


class Architecture:
    """Imports the classes of the project's backbone, as soon as a step has made it."""

    def __init__(self, backbone: Path) -> None:
        self.backbone, self.imported = backbone, False

    def __call__(self) -> None:
        from pemt_core.backbone.store import load_backbone

        if not self.imported and self.backbone.is_dir():
            with suppress(PemtError):  # a program that needs the backbone names the error
                load_backbone(self.backbone)
            self.imported = True


def make_parser() -> argparse.ArgumentParser:
    parser = explained(__doc__, "fork_server")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND ...", help="what to run, with its flags")
    return parser


def main() -> None:
    parser = make_parser()
    command = parser.parse_args().command
    if not command:
        parser.error("a command is missing")
    preload()
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        address = str(Path(folder) / "socket")
        listener.bind(address)
        listener.listen()
        code = ForkServer(listener, Architecture(Path("backbone"))).serve(command, {**os.environ, ADDRESS: address})
    sys.exit(code)


if __name__ == "__main__":
    main()
