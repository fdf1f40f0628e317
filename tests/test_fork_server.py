"""Programs that a fork server runs end, answer and stop as they do alone. All processes are real."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from source_code import REPOSITORY
from tiny import World

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
        cwd=folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
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
    fork = int((tmp_path / "waits").read_text())
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


def test_a_missing_command_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "components.fork_server"], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert done.returncode == 2
    assert done.stderr.endswith("error: a command is missing\n")
