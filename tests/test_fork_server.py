"""Programs that a fork server runs end, answer and stop as they do alone. All processes are real."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from source_code import REPOSITORY
from tiny import World

from components.fork_server import receive
from components.handover import ADDRESS, LENGTH

PROGRAM = """
import os, sys, time
from components.handover import hand_over

if __name__ == "__main__":
    hand_over("program")
    print("ran in", os.getppid(), os.getcwd(), os.environ["COLOUR"], sys.argv[1:], sys.stdin.read(), flush=True)
    if sys.argv[1] == "wait":
        from pemt_core.interruption import stoppable
        with stoppable():
            open("waits", "w").write(str(os.getpid()))
            time.sleep(60)
    if sys.argv[1] == "die":
        os.kill(os.getpid(), 9)
    sys.exit({"code": 7, "text": "error: no", "none": None}[sys.argv[1]])
"""
SERVER = """
import os, socket, sys
from components.fork_server import ForkServer
from components.handover import ADDRESS
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind("socket")
    listener.listen()
    code = ForkServer(listener).serve(sys.argv[1:], {**os.environ, ADDRESS: os.path.abspath("socket")})
sys.exit(code)
"""


def serve(folder: Path, *command: str) -> "subprocess.Popen[str]":
    """Start a server in `folder`, without imports, that runs `command`."""
    (folder / "program.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{folder}", "COLOUR": "red"}
    return subprocess.Popen(
        [sys.executable, "-c", SERVER, *command],
        cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def run_program(folder: Path, line: str) -> tuple[int, str, str, int]:
    """Run a line of shell below a server; returns its exit code, output and errors, and the server's process id."""
    with serve(folder, "sh", "-c", line.replace("PROGRAM", f"{sys.executable} -m program")) as server:
        output, errors = server.communicate(timeout=60)
        return server.returncode, output, errors, server.pid


@pytest.mark.parametrize(
    ("end", "code", "errors"), [("code", 7, ""), ("text", 1, "error: no\n"), ("none", 0, ""), ("die", 137, "")]
)
def test_a_program_ends_as_its_fork(tmp_path: Path, end: str, code: int, errors: str) -> None:
    """It has the arguments, folder, environment and open files of the program, and its parent is the server."""
    (tmp_path / "below").mkdir()
    line = f"cd below; echo heard | COLOUR=blue PROGRAM {end}"
    found = run_program(tmp_path, line)
    assert found[:3] == (code, f"ran in {found[3]} {tmp_path}/below blue ['{end}'] heard\n\n", errors)


def test_without_a_server_a_program_runs_itself(tmp_path: Path) -> None:
    """As after the end of the server whose address it has."""
    code, output, _, server = run_program(tmp_path, "export PEMT_FORK_SERVER=gone; echo | PROGRAM code")
    assert code == 7
    assert f"ran in {server} " not in output


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_signal_to_a_program_reaches_its_fork(tmp_path: Path, number: int, code: int) -> None:
    line = [sys.executable, "-c", f"""
import subprocess, sys, time, os
program = subprocess.Popen([sys.executable, "-m", "program", "wait"], stdin=subprocess.DEVNULL)
while not (os.path.exists("waits") and open("waits").read()):
    time.sleep(0.02)
program.send_signal({int(number)})
print("ended by", program.wait(), flush=True)
"""]  # fmt: skip
    with serve(tmp_path, *line) as server:
        output, _ = server.communicate(timeout=60)
    assert f"ended by {code}\n" in output
    assert_ends(waiting_fork(tmp_path))


def waiting_fork(folder: Path) -> int:
    """The process id of a fork of `PROGRAM wait`, once it waits."""
    for _ in range(1500):
        if (folder / "waits").exists() and (text := (folder / "waits").read_text()):
            return int(text)
        time.sleep(0.02)
    raise AssertionError("the program does not wait")


def assert_ends(fork: int) -> None:
    for _ in range(500):
        if not Path(f"/proc/{fork}").exists():
            return
        time.sleep(0.02)
    raise AssertionError(f"the fork {fork} still runs")


def test_the_backbones_classes_are_imported_once_it_is_there(world: World, tmp_path: Path) -> None:
    """Without a backbone, and with one that cannot be read, nothing happens: the program that needs it says so."""
    program = """
import sys
from pathlib import Path
from components.fork_server import Architecture
architecture = Architecture(Path(sys.argv[1]))
architecture()
print("transformers" in sys.modules)
if len(sys.argv) > 2:
    Path(sys.argv[1]).symlink_to(sys.argv[2])
    architecture()
    print("transformers.models.t5.modeling_t5" in sys.modules)
"""
    for name, made, printed in (
        ("absent", [], ["False"]),
        ("good", [world.folder / "backbone"], ["False", "True"]),
        ("no backbone", [world.folder / "data"], ["False", "False"]),
    ):
        words = [sys.executable, "-c", program, str(tmp_path / name), *map(str, made)]
        done = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY)
        assert (done.returncode, done.stdout.split()) == (0, printed), done.stderr


STEPS = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"]


def module_of(stage: dict[str, Any]) -> str:
    command = stage.get("do", stage)["cmd"]
    return str(command.split()[2])


@pytest.mark.parametrize("module", sorted({module_of(stage) for stage in STEPS.values()}))
def test_the_program_of_every_step_asks_the_server(tmp_path: Path, module: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        environment = {**os.environ, ADDRESS: str(tmp_path / "socket")}
        program = subprocess.Popen([sys.executable, "-m", module, "--one", "2"], cwd=REPOSITORY, env=environment)
        connection, _ = listener.accept()
        with connection:
            request, files = receive(connection)
            for file in files:
                os.close(file)
            assert (request["module"], request["arguments"][1:]) == (module, ["--one", "2"])
            assert (request["folder"], request["ignored"]) == (str(REPOSITORY), [])
            connection.sendall(LENGTH.pack(7))
            assert program.wait(30) == 7


def test_a_program_that_is_killed_while_it_asks_leaves_the_server_to_others(tmp_path: Path) -> None:
    broken = f"""
import os, socket, struct
for part in (b"", b"x", struct.pack("!I", 1000), struct.pack("!I", 3) + b"no "):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(os.environ["{ADDRESS}"])
        if part:
            socket.send_fds(connection, [part], [0, 1, 2])
"""
    code, output, _, server = run_program(tmp_path, f"{sys.executable} -c '{broken}'; echo | PROGRAM code")
    assert (code, output.startswith(f"ran in {server} ")) == (7, True)


def test_an_interrupted_program_leaves_the_server_to_others(tmp_path: Path) -> None:
    """It tidies up what it has made, and nothing of the server's."""
    line = """
PROGRAM wait < /dev/null & while ! test -s waits; do sleep 0.02; done
kill -TERM $!; wait $!; echo "ended by $?"; echo | PROGRAM code
"""
    code, output, _, server = run_program(tmp_path, line)
    assert code == 7
    assert "ended by 143\n" in output
    assert output.count(f"ran in {server} ") == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_a_stopped_command_takes_its_programs_with_it(tmp_path: Path, number: signal.Signals) -> None:
    """A terminal signals the server, the command and the programs at once; SIGTERM reaches the server alone."""
    line = f"{sys.executable} -m program wait < /dev/null; echo never"
    with serve(tmp_path, "sh", "-c", line) as server:
        fork = waiting_fork(tmp_path)
        if number == signal.SIGINT:
            os.killpg(server.pid, number)
        else:
            server.send_signal(number)
        output, errors = server.communicate(timeout=30)
    assert server.returncode == 128 + number
    assert "never" not in output
    assert "the fork server ended" not in errors
    assert not Path(f"/proc/{fork}").exists()


def test_a_killed_server_takes_its_programs_with_it(tmp_path: Path) -> None:
    with serve(tmp_path, sys.executable, "-m", "program", "wait") as server:
        fork = waiting_fork(tmp_path)
        server.kill()
        _, errors = server.communicate(timeout=30)
    assert errors == "error: program: the fork server ended\n"
    assert_ends(fork)


@pytest.mark.parametrize(
    ("words", "code", "error"), [([], 2, "error: a command is missing"), (["dcv"], 1, "error: dcv: no such program")]
)
def test_a_command_that_cannot_run_is_named(words: list[str], code: int, error: str) -> None:
    command = [sys.executable, "-m", "components.fork_server", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == code
    assert done.stderr.splitlines()[-1].endswith(error)
