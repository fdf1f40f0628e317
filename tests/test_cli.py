"""The command line as people and scripts use it: in separate processes and in a shell."""

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from source_code import REPOSITORY
from test_components import HEAVY, assert_one_line, free_port

from components.cli import COMMANDS, make_parser
from pemt_core import __version__
from pemt_core.doctor import Surroundings
from pemt_core.doctor.services import tracking
from pemt_core.errors import FileError
from pemt_core.paths import OutputFile, check_paths
from pemt_core.tasks import TASKS

PEMT = (sys.executable, "-m", "components.cli")
DOCUMENT = (REPOSITORY / "docs" / "command_line.md").read_text(encoding="utf-8")


def pemt(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [*PEMT, *map(str, words)]
    inherited = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    given = {**inherited, **environment}
    return subprocess.run(command, cwd=REPOSITORY, env=given, capture_output=True, text=True, timeout=120)


def document_of(*words: object) -> Any:
    """The document that a command prints with --json; the command must print nothing else."""
    done = pemt(*words, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


# Usage


def test_help_lists_every_command() -> None:
    done = pemt("--help")
    assert done.returncode == 0
    for name, command in COMMANDS.items():
        assert re.search(rf"^    {name}\s+{re.escape(command.summary)}$", done.stdout, flags=re.MULTILINE), name


def test_help_loads_no_command() -> None:
    program = (
        "import sys, components.cli; sys.argv = ['pemt', '--help']\n"
        "try: components.cli.main()\n"
        f"except SystemExit: print([n for n in sys.modules if n.startswith(('components.', 'pipelines', 'pydantic')) "
        f"or n in {HEAVY | {'kfp', 'shtab'}}])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['components.parser', 'components.cli']"


def test_every_command_explains_itself() -> None:
    """All in one process, because loading some of them takes a second."""
    program = (
        "import contextlib, io, json, sys, components.cli\n"
        "pages = {}\n"
        "for name in components.cli.COMMANDS:\n"
        "    sys.argv = ['pemt', name, '--help']\n"
        "    with contextlib.redirect_stdout(io.StringIO()) as page, contextlib.suppress(SystemExit):\n"
        "        components.cli.main()\n"
        "    pages[name] = page.getvalue()\n"
        "print(json.dumps(pages))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    pages = json.loads(done.stdout)
    assert list(pages) == list(COMMANDS)
    for name, page in pages.items():
        assert page.startswith(f"usage: pemt {name} ")
        assert len(page.split("options:")[0].split("\n\n", 1)[1].split()) > 10


def test_a_command_has_the_flags_of_its_program() -> None:
    alone = subprocess.run(
        [sys.executable, "-m", "components.doctor", "--help"], cwd=REPOSITORY, capture_output=True, text=True
    )
    explanations = [page.split("\n\n", 1)[1] for page in (pemt("doctor", "--help").stdout, alone.stdout)]
    assert explanations[0] == explanations[1]


def test_the_version() -> None:
    done = pemt("--version")
    assert (done.returncode, done.stdout) == (0, f"pemt {__version__}\n")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["docter"], "pemt: error: there is no command 'docter': did you mean 'doctor'?"),
        (["--jsn"], "pemt: error: the following arguments are required: COMMAND"),
        (["tasks", "--jsn"], "pemt tasks: error: unrecognized arguments: --jsn; did you mean '--json'?"),
        (
            ["compare", "table1", "--sedes=1", "extra"],
            "pemt compare: error: unrecognized arguments: --sedes=1 extra; did you mean '--seeds'?",
        ),
        (
            ["predict", "rows.csv", "--traget", "cb"],
            "pemt predict: error: the following arguments are required: --output; did you mean '--target'?",
        ),
        (["tasks", "--wholly-other"], "pemt tasks: error: unrecognized arguments: --wholly-other"),
        (["--verson", "tasks"], "pemt: error: unrecognized arguments: --verson; did you mean '--version'?"),
        (["submit"], "pemt submit: error: the following arguments are required: --host"),
        (["completion", "fsh"], "pemt completion: error: argument shell: invalid choice: 'fsh'"),
    ],
)
def test_wrong_usage_exits_with_2(words: list[str], expected: str) -> None:
    done = pemt(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert expected in done.stderr.splitlines()[-1]


def test_an_argument_that_is_not_utf_8_is_refused_in_a_line() -> None:
    done = pemt("tasks", "caf\udce9")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"error: the argument 'caf.udce9' is not UTF-8 text .*\n", done.stderr)


def test_without_a_command_all_are_listed() -> None:
    done = pemt()
    assert (done.returncode, done.stdout) == (2, "")
    assert "check this machine" in done.stderr


def test_a_package_that_is_missing_is_named(tmp_path: Path) -> None:
    """Hide kfp behind a module of the same name that fails to import, as if it were not installed."""
    (tmp_path / "kfp.py").write_text("raise ModuleNotFoundError(\"No module named 'kfp'\", name='kfp')")
    hidden = f"{tmp_path}{os.pathsep}{REPOSITORY}"
    error = assert_one_line(pemt("submit", "--host", "http://localhost", PYTHONPATH=hidden))
    assert error.startswith(
        "error: pipelines.submit needs the package kfp, which is not installed: pip install -e '.[kubeflow]'"
    )
    assert pemt("completion", "bash", PYTHONPATH=hidden).returncode == 0


def test_ctrl_c_prints_no_traceback(tmp_path: Path) -> None:
    """Interrupt doctor while it waits for a server that accepts connections and never answers."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        host = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = subprocess.Popen(
            [*PEMT, "doctor", "--host", host],
            cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
        )  # fmt: skip
        assert process.stdout
        assert process.stdout.readline().startswith("ok       Python")
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert errors == ""


def test_a_closed_pipe_is_no_error() -> None:
    command = " ".join([*PEMT, "tasks", "|", "head", "-1"])
    done = subprocess.run(["bash", "-c", command], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.startswith("name ")


# Tasks


def test_tasks_lists_the_registry() -> None:
    records = document_of("tasks")
    assert [record["name"] for record in records] == list(TASKS)
    lists = YAML(typ="safe").load(REPOSITORY / "params.yaml")["tasks"]
    for role in ("source", "target"):
        assert sorted(r["name"] for r in records if role in r["listed"]) == sorted(lists[f"{role}s"])
    for record in records:
        task = TASKS[record["name"]]
        assert record["labels"] == (list(task.labels) if task.labels else None)
        assert record["metrics"] == list(task.metrics)
        assert record["dataset"].startswith(task.dataset.repo)


def test_one_task_is_shown_in_full() -> None:
    record = document_of("tasks", "cb")
    assert record["labels"] == ["entailment", "contradiction", "neutral"]
    assert record["splits"] == {
        "rule": "small",
        "train": "train (all)",
        "validation": "validation (first half)",
        "test": "validation (second half)",
    }
    page = pemt("tasks", "cb").stdout
    assert page.startswith("cb\n")
    assert record["description"] in page


def test_the_table_has_a_row_for_each_task() -> None:
    head, *rows = pemt("tasks").stdout.splitlines()
    assert head.split() == ["name", "suite", "listed", "metric", "labels", "splits", "dataset"]
    assert [row.split()[0] for row in rows] == list(TASKS)
    assert {row.index("accuracy") for row in rows if " accuracy " in row} == {head.index("metric")}


def test_an_unknown_task_names_the_nearest() -> None:
    assert assert_one_line(pemt("tasks", "mprc")) == "error: there is no task 'mprc': did you mean 'mrpc'?"


# Results


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "table.md").write_text("# Results\n")
    (tmp_path / "summary.json").write_text('{"pemt-k32": {"all": 66.4}}')
    return tmp_path


def test_results_as_table_and_as_json(results: Path) -> None:
    (results / "report.html").write_text("<html></html>")
    done = pemt("report", "--results", results)
    assert done.stdout == f"# Results\n\nFull report: {results / 'report.html'}\n"
    assert document_of("report", "--results", results) == {"pemt-k32": {"all": 66.4}}


def test_a_locale_without_unicode_shows_escapes(results: Path) -> None:
    (results / "table.md").write_text("71.2 ± 0.8\n", encoding="utf-8")
    words = [sys.executable, "-m", "components.results", "--results", str(results)]
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run(words, cwd=REPOSITORY, env=ascii_only, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("71.2 \\xb1 0.8\n")


def test_the_report_opens_in_the_browser(results: Path) -> None:
    """BROWSER names the program that Python's standard library starts."""
    (results / "report.html").write_text("<html></html>")
    opened = results / "opened"
    browser = results / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    assert pemt("report", "--results", results, "--open", BROWSER=f"{browser} %s").returncode == 0
    assert opened.read_text() == f"{(results / 'report.html').as_uri()}\n"


def test_no_results_yet(tmp_path: Path) -> None:
    error = assert_one_line(pemt("report", "--results", tmp_path))
    assert error == f"error: {tmp_path / 'table.md'}: no results yet; run `make demo` or `dvc repro`"


# The pages of MLflow


@contextmanager
def pages(*words: object) -> Iterator[subprocess.Popen[str]]:
    """Run `pemt ui` in a new session; Ctrl-C stops it and all its processes."""
    process = subprocess.Popen(
        [*PEMT, "ui", *map(str, words)],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=30)


def test_ui_creates_a_missing_store(tmp_path: Path) -> None:
    port = free_port()
    with pages("--store", tmp_path, "--port", port) as process:
        assert process.stdout
        announced = process.stdout.readline()
        assert announced.startswith(
            f"Methods side by side, from {tmp_path / 'mlflow.db'}: http://127.0.0.1:{port}/#/experiments/1/"
        )
        body = json.dumps({"max_results": 5}).encode()
        url = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        deadline = time.monotonic() + 60
        while True:
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    names = [experiment["name"] for experiment in json.load(answer)["experiments"]]
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.3)
        assert "pemt" in names
        file, server = (
            tracking(Surroundings.of(REPOSITORY / "params.yaml", {"MLFLOW_TRACKING_URI": uri}, None))
            for uri in (f"sqlite:///{tmp_path}/mlflow.db", f"http://127.0.0.1:{port}")
        )
        assert [one.found for one in file] == [f"{tmp_path / 'mlflow.db'}, runs: 0"]
        assert [(one.name, one.status) for one in server] == [("tracking", "ok"), ("artifacts", "ok")]
        error = assert_one_line(pemt("ui", "--store", tmp_path, "--port", port))
    match = re.fullmatch(rf"error: --port is {port}: Address already in use; (\d+) is free", error)
    assert match
    with socket.socket() as free:
        free.bind(("127.0.0.1", int(match[1])))


def test_a_missing_store_is_an_error(tmp_path: Path) -> None:
    error = assert_one_line(pemt("ui", "--store", tmp_path / "absent"))
    assert error == f"error: --store is {tmp_path / 'absent'}: no such folder; expected the one that holds mlflow.db"


def test_ui_refers_runs_on_a_server_to_that_server() -> None:
    error = assert_one_line(pemt("ui", MLFLOW_TRACKING_URI="https://user:secret@mlflow.example"))
    assert error.endswith("the runs are in https://mlflow.example, not in a file: open that server in a browser")


# Completion

ASK = """
source {script}
COMP_WORDS=({words})
COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
COMP_LINE="${{COMP_WORDS[*]}}"
COMP_POINT=${{#COMP_LINE}}
function=$(complete -p pemt | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
$function pemt "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "pemt.bash"
    done = pemt("completion", "bash")
    assert (done.returncode, done.stderr) == (0, "")
    path.write_text(done.stdout)
    return path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("pemt do", ["doctor"]),
        ("pemt tasks --j", ["--json"]),
        ("pemt tasks hot", ["hotpotqa"]),
        ("pemt submit --targets cb w", ["wic", "wsc", "winogrande"]),
        ("pemt submit --tok", ["--token-file"]),
        ("pemt tasks --params params.y", ["params.yaml"]),
        ("pemt completion z", ["zsh"]),
    ],
)
def test_bash_completes(bash_script: Path, words: str, expected: list[str]) -> None:
    """Calls the script as bash does when Tab is pressed."""
    program = ASK.format(script=bash_script, words=words)
    done = subprocess.run(["bash", "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.split() == expected


@pytest.mark.parametrize(("shell", "head"), [("zsh", "#compdef pemt"), ("tcsh", "complete pemt")])
def test_other_shells_have_completion_scripts(shell: str, head: str) -> None:
    done = pemt("completion", shell)
    assert done.returncode == 0
    assert head in done.stdout
    for word in ("hotpotqa", "doctor", "token-file"):
        assert word in done.stdout


# The document


def test_the_document_lists_the_commands() -> None:
    rows = re.findall(r"^\| `pemt (\w[\w-]*)` \| (.+) \|$", DOCUMENT, flags=re.MULTILINE)
    assert dict(rows) == {name: command.summary for name, command in COMMANDS.items()}


def test_the_examples_of_the_document_parse() -> None:
    blocks = re.findall(r"```console\n(.*?)```", DOCUMENT, flags=re.DOTALL)
    lines = [re.split(r"[#>]", line)[0].split() for block in blocks for line in block.splitlines()]
    assert {words[1] for words in lines} >= {"tasks", "doctor", "report", "ui", "submit", "completion"}
    parser = make_parser(COMMANDS)
    for program, *words in lines:
        assert program == "pemt"
        parser.parse_args(words)


def test_the_document_names_every_key_of_the_json() -> None:
    for key in (*document_of("tasks", "cb"), "ok", "checks", "found", "fix", "status"):
        assert f"`{key}`" in DOCUMENT, key


# On a terminal


def test_only_terminals_get_colours() -> None:
    """The same line on a terminal, on a terminal with NO_COLOR, and in a pipe."""
    program = (
        "from components.doctor import print_finding; from pemt_core.doctor import Finding, Status; "
        "print_finding(Finding('disk', Status.FAILURE, 'it is full', 'make room'))"
    )
    command = [sys.executable, "-c", program]
    lines = ["failure  disk          it is full", "                       -> make room"]
    marked = lines[0].replace("failure  ", "\x1b[31mfailure  \x1b[0m")
    assert on_a_terminal(command) == [f"{marked}\x1b[K", lines[1]]
    assert on_a_terminal(command, NO_COLOR="1") == [f"{lines[0]}\x1b[K", lines[1]]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == lines


def on_a_terminal(command: list[str], **environment: str) -> list[str]:
    """The lines that a program prints on a terminal."""
    leader, follower = pty.openpty()
    given = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | environment
    process = subprocess.Popen(command, cwd=REPOSITORY, env=given, stdout=follower, stderr=follower)
    os.close(follower)
    shown = b""
    with suppress(OSError):  # Linux reports the closed end this way
        while part := os.read(leader, 4096):
            shown += part
    os.close(leader)
    assert process.wait(timeout=60) == 0
    return shown.decode().splitlines()


@pytest.mark.parametrize("kind", [Path, OutputFile])
def test_a_tilde_that_no_shell_has_replaced_makes_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Path]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError, match=r"^~/x\.csv: there is no folder ~ here; write out what ~ stands for$"):
        check_paths([kind("~/x.csv")])
    (tmp_path / "~").mkdir()
    check_paths([kind("~/x.csv")])
