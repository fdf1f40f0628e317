"""Run a command whose programs of steps start quickly, as forks of a process that has imported most of what they need.

    python -m components.fork_server dvc repro

Importing torch, transformers and MLflow takes longer than some trainings of the demo. A program of a step that the
command starts sends its arguments, its environment and its open files here. The fork runs the program in its place, and
the program ends as the fork does. Only variables that libraries read as they are imported, such as OMP_NUM_THREADS and
HF_HOME, are those of this process.
"""

import argparse
import atexit
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NoReturn

from components.command import explained
from components.handover import ADDRESS, LENGTH
from components.parent import end_with_parent
from pemt_core.errors import PemtError


class ForkServer:
    """Forks a process for each request, while a command runs. `before_fork` may load more for the next fork."""

    def __init__(self, listener: socket.socket, before_fork: Callable[[], None] = lambda: None) -> None:
        self.listener, self.before_fork = listener, before_fork
        self.selector = selectors.DefaultSelector()
        self.forks: dict[socket.socket, int] = {}  # process id by connection
        self.signalled: set[socket.socket] = set()

    def serve(self, command: Sequence[str], environment: dict[str, str]) -> int:
        """Answer the programs that `command` starts until it and they have ended; returns its exit code."""
        with subprocess.Popen(command, env=environment) as process:
            signal.signal(signal.SIGINT, lambda *_: None)  # a terminal sends it to the command too
            signal.signal(signal.SIGTERM, lambda *_: process.terminate())
            self.selector.register(os.pidfd_open(process.pid), selectors.EVENT_READ, lambda fd: self._stop(fd, process))
            self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
            while process.returncode is None or self.forks:
                for key, _ in self.selector.select():
                    key.data(key.fileobj)
        return exit_code(process.returncode)

    def _stop(self, ended: int, process: "subprocess.Popen[bytes]") -> None:
        """The command has ended: nothing waits for programs that still run, and later ones run themselves."""
        process.wait()
        self.selector.unregister(ended)
        self.selector.unregister(self.listener)
        os.close(ended)
        self.listener.close()
        for connection, process_id in self.forks.items():
            if connection not in self.signalled:  # a second signal would not let it end in order
                os.kill(process_id, signal.SIGTERM)

    def _accept(self, _: Any) -> None:
        connection, _address = self.listener.accept()
        try:
            request, files = receive(connection)
        except (OSError, ValueError):  # the program was killed while it asked
            connection.close()
            return
        self.before_fork()
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            process = fork()
        except OSError as error:
            os.write(files[2], f"error: {request['module']}: no process can be started: {error}\n".encode())
            _close(files)
            _answer(connection, 1)
            return
        if not process:
            self.selector.close()
            for each in (self.listener, connection, *self.forks):
                each.close()
            run_here(request, files)
        _close(files)
        self.forks[connection] = process
        self.selector.register(connection, selectors.EVENT_READ, self._pass_on)
        self.selector.register(os.pidfd_open(process), selectors.EVENT_READ, lambda fd: self._end(fd, connection))

    def _pass_on(self, connection: socket.socket) -> None:
        """Send the program's signals to its fork; a program that was killed takes its fork with it."""
        if connection not in self.forks:  # it ended at the same time
            return
        received = b""
        with suppress(OSError):
            received = connection.recv(64)
        for number in received or [signal.SIGKILL]:
            os.kill(self.forks[connection], number)
        self.signalled.add(connection)
        if not received:
            self.selector.unregister(connection)

    def _end(self, ended: int, connection: socket.socket) -> None:
        _, status = os.waitpid(self.forks.pop(connection), 0)
        self.signalled.discard(connection)
        self.selector.unregister(ended)
        os.close(ended)
        with suppress(KeyError):  # its program was killed
            self.selector.unregister(connection)
        _answer(connection, exit_code(os.waitstatus_to_exitcode(status)))


def _answer(connection: socket.socket, code: int) -> None:
    with suppress(OSError):  # the program was killed
        connection.sendall(LENGTH.pack(code))
    connection.close()


def exit_code(code: int) -> int:
    """128 plus the number of the signal that killed a process, as in shells."""
    return code if code >= 0 else 128 - code


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """A program's request and its three open files. Raises OSError or ValueError if not all of it arrives."""
    header, files, _, _ = socket.recv_fds(connection, LENGTH.size, 3)
    try:
        if len(header) < LENGTH.size or len(files) < 3:
            raise ConnectionError("the request ends early")
        return json.loads(connection.recv(LENGTH.unpack(header)[0], socket.MSG_WAITALL)), files
    except (OSError, ValueError):
        _close(files)
        raise


def _close(files: Sequence[int]) -> None:
    for file in files:
        os.close(file)


def fork() -> int:
    """`os.fork`, without Python's warning of threads: those of the libraries wait, and no fork needs them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def run_here(request: dict[str, Any], files: Sequence[int]) -> NoReturn:
    """Run the program of a request in this fork, with its files, and end the process."""
    code: object = 1
    try:
        end_with_parent()
        atexit._clear()  # what the server has to tidy up
        for number, file in enumerate(files):
            os.dup2(file, number)
            os.close(file)
        for name, handler in (("SIGINT", signal.default_int_handler), ("SIGTERM", signal.SIG_DFL)):
            signal.signal(signal.Signals[name], signal.SIG_IGN if name in request["ignored"] else handler)
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
        with suppress(BaseException):  # whatever happens, this process never returns to the server's loop
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


def preload() -> None:
    """Import what most programs need, without starting a thread of Python."""
    import pemt_core.steps.train_source
    import pemt_core.steps.transfer  # noqa: F401
    from pemt_core.tracking.store import import_mlflow

    import_mlflow()


class Architecture:
    """Imports the classes of the project's backbone, as soon as a step has made it."""

    def __init__(self, backbone: Path) -> None:
        self.backbone = backbone
        self.imported = ""  # model type

    def __call__(self) -> None:
        from pemt_core.backbone.architecture import read_config
        from pemt_core.backbone.families import architecture_class
        from pemt_core.backbone.tokenizer import load_tokenizer

        if not self.backbone.is_dir():
            return
        with suppress(PemtError):  # a program that needs the backbone names the error
            model_type = read_config(str(self.backbone), local_files_only=True).model_type
            if model_type != self.imported:
                architecture_class(model_type, str(self.backbone))
                load_tokenizer(str(self.backbone))
                self.imported = model_type


def make_parser() -> argparse.ArgumentParser:
    parser = explained(__doc__, "fork_server")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND ...", help="what to run, with its flags")
    return parser


def main() -> None:
    parser = make_parser()
    command = parser.parse_args().command
    if not command:
        parser.error("a command is missing")
    if not shutil.which(command[0]):
        sys.exit(f"error: {command[0]}: no such program")
    environment = dict(os.environ)  # before libraries add to it
    folder = mkdtemp()
    try:
        preload()
        with socket.socket(socket.AF_UNIX) as listener:
            address = str(Path(folder) / "socket")
            listener.bind(address)
            listener.listen()
            server = ForkServer(listener, Architecture(Path("backbone")))
            code = server.serve(command, {**environment, ADDRESS: address})
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
