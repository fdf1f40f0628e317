"""Every program as a user meets it: its help, and how it ends on input that it cannot use."""

import errno
import json
import os
import re
import runpy
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from source_code import REPOSITORY
from tiny import World, source_settings, tiny_t5, transfer_text
from workspace import write_params

from pemt_core.backbone.store import save_backbone
from pemt_core.backbone.tokenizer import load_tokenizer
from pemt_core.errors import FileError, file_errors_named
from pemt_core.settings import load_settings
from pemt_core.settings.groups import STEPS
from pemt_core.settings.steps import TrainSource, as_text
from pemt_core.steps.plan import make_plan

HEAVY = {"torch", "transformers", "datasets", "accelerate", "mlflow", "pandas", "sklearn"}

# Runs --help of every program in one process; prints their output and the heavy libraries that were loaded
HELP = """
import contextlib, io, json, runpy, sys
pages = {}
for step in sys.argv[1:]:
    sys.argv = [step, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as page:
        try:
            runpy.run_module(f"components.{step}", run_name="__main__")
        except SystemExit as end:
            pages[step] = [end.code, page.getvalue()]
print(json.dumps([pages, sorted(set(sys.modules) & set(%r))]))
"""


SHORT = {"max_steps": 2, "validation_rows": 4}


def tracking_in(folder: Path, **changes: str) -> str:
    """The plan's tracking settings, with a store in `folder`."""
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    return json.dumps({"uri": uri, "experiment": "pemt", "on_unreachable": "stop", **changes})


def source_text(task: str) -> str:
    """The plan's settings for a source of the world."""
    settings = TrainSource(source=task, train_source=source_settings(**SHORT), answer="generate", code="")
    return as_text(settings)


def component(step: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the program of `step` in a separate process."""
    command = [sys.executable, "-m", f"components.{step}", *map(str, arguments)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)


def run_here(monkeypatch: pytest.MonkeyPatch, step: str, *arguments: object) -> str:
    """Run the program of `step` in this process, which has torch loaded; return its error, or "" if it succeeded."""
    monkeypatch.setattr(sys, "argv", [step, *map(str, arguments)])
    monkeypatch.delitem(sys.modules, f"components.{step}", raising=False)  # if another test has imported it
    try:
        runpy.run_module(f"components.{step}", run_name="__main__")
    except SystemExit as end:
        return str(end.code or "")  # the interpreter would print the text to stderr and exit with 1
    return ""


def transfer_arguments(world: World, tmp_path: Path, **changes: object) -> list[object]:
    """The flags of a short training of the world's target, with `changes`."""
    values: dict[str, object] = {
        "settings": transfer_text(**SHORT),
        "tracking": tracking_in(tmp_path),
        "provenance": tmp_path / "provenance.json",
        "data": world.folder / "data",
        "backbone": world.folder / "backbone",
        "experts": world.folder / "experts",
        "output": tmp_path / "adapters",
        "checkpoints": tmp_path / "checkpoints",
    }
    return [word for name, value in {**values, **changes}.items() for word in (f"--{name}", value)]


def assert_one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The error that a program ended with: exit code 1, one line, no traceback."""
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.strip().splitlines()
    assert "Traceback" not in done.stderr
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:]
    return lines[-1]


def free_port() -> int:
    """A port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --help


def test_every_program_explains_itself_without_loading_a_library() -> None:
    command = [sys.executable, "-c", HELP % HEAVY, *STEPS]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    pages, loaded = json.loads(done.stdout)
    assert loaded == []
    assert list(pages) == [*STEPS]
    for step, (code, page) in pages.items():
        assert code == 0
        assert page.startswith(f"usage: python -m components.{step}")
        explanation = page.split("options:")[0].split("\n\n", 1)[1]
        assert len(explanation.split()) > 15
        flags = page.split("options:")[1]
        assert all(line.split(None, 2)[2:] for line in flags.splitlines() if line.startswith("  --settings"))


def test_a_missing_flag_is_named() -> None:
    given = ["--settings", "{}", "--adapters", "a", "--backbone", "b", "--provenance", "c"]
    done = component("collect_experts", *given)
    assert done.returncode == 2
    assert done.stderr.endswith("error: the following arguments are required: --output\n")


def test_adapters_are_given_by_a_folder_or_by_kubeflow() -> None:
    settings = json.dumps({"sources": ["mnli"], "imported_sources": {}, "code": ""})
    given = ["--settings", settings, "--backbone", "b", "--output", "c", "--provenance", "d"]
    done = component("collect_experts", *given)
    assert assert_one_line(done).startswith("error: --adapters is missing")


# Settings


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ({"transfer": {"sparsity_coeficient": 0.1}}, "unknown key 'transfer.sparsity_coeficient'"),
        ({"evaluate": {"batch_size": "many"}}, "key 'evaluate.batch_size' is 'many'"),
        ({"recipe": "papper"}, "recipe 'papper': there is no recipes/papper.yaml; did you mean 'paper'?"),
        ({"tasks": {"targets": ["hotpottqa"]}}, "there is no task 'hotpottqa': did you mean 'hotpotqa'?"),
    ],
)
def test_bad_settings_end_in_one_line(tmp_path: Path, differences: dict[str, Any], expected: str) -> None:
    params = write_params(tmp_path / "params.yaml", differences)
    done = component("plan", "--params", params, "--output", tmp_path / "plan", "--provenance", tmp_path / "p.json")
    assert expected in assert_one_line(done)
    assert not (tmp_path / "plan").exists()


def test_missing_settings_are_named(tmp_path: Path) -> None:
    absent, unread = tmp_path / "absent", ("--adapters", "a", "--backbone", "b", "--output", "c", "--provenance", "d")
    done = component("plan", "--params", absent, "--provenance", "d")
    assert assert_one_line(done) == f"error: {absent}: no such file"
    done = component("collect_experts", "--settings", absent, *unread)
    assert assert_one_line(done) == f"error: {absent}: no such file; `dvc repro plan` writes it"


# Tasks and artifacts


@pytest.mark.parametrize("missing", ["data", "backbone", "experts"])
def test_an_input_folder_that_is_missing_is_named(
    missing: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = tmp_path / "absent"
    arguments = transfer_arguments(world, tmp_path, **{missing: absent})
    error = run_here(monkeypatch, "transfer", *arguments)
    assert error.startswith(f"error: {absent}")
    assert "no such file; the step that writes it has not run" in error
    assert not (tmp_path / "adapters").exists()
    assert not (tmp_path / "provenance.json").exists()


@pytest.mark.parametrize("step", ["train_source", "collect_experts", "evaluate", "record", "register", "report"])
def test_every_program_names_its_missing_input(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent, output = tmp_path / "absent", tmp_path / "output"
    models, tracked = ["--backbone", absent, "--experts", absent], ["--tracking", tracking_in(tmp_path)]
    flags = {
        "train_source": ["--data", absent, "--backbone", absent, *tracked, "--output", output],
        "collect_experts": ["--adapters", absent, "--backbone", absent, "--output", output],
        "evaluate": ["--adapters", absent, "--data", absent, *models, "--output", output],
        "record": ["--scores", absent, *tracked, "--output", output],
        "register": ["--adapters", absent, "--data", absent, *models, "--recorded", absent, *tracked],
        "report": ["--scores", absent, "--sources", absent, "--output", output],
    }
    steps = make_plan(load_settings(REPOSITORY / "params.yaml"), REPOSITORY).steps
    text = source_text("alpha") if step == "train_source" else as_text(steps[step])
    common = ["--settings", text, "--provenance", tmp_path / "provenance.json"]
    error = run_here(monkeypatch, step, *flags[step], *common)
    assert error.startswith(f"error: {absent}")
    assert not output.exists()


def test_another_backbone_is_an_error_that_names_both(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = load_tokenizer(str(world.folder / "tokenizer"))
    model = tiny_t5(vocab_size=len(tokenizer), d_model=32, seed=1)
    other = save_backbone(tmp_path / "other", model, tokenizer)
    right = json.loads((world.folder / "backbone" / "backbone.json").read_text())["fingerprint"]
    arguments = transfer_arguments(world, tmp_path, backbone=tmp_path / "other")
    error = run_here(monkeypatch, "transfer", *arguments)
    assert error.startswith(f"error: {world.folder / 'experts'}: trained on the backbone {right[:12]}")
    assert f"the current one is {other[:12]}" in error
    assert not (tmp_path / "adapters").exists()


# Workers


def test_a_transfer_in_two_workers_is_tracked_and_accounted_for(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the parent writes to the store, one finished run per cell; provenance includes the workers' memory."""
    from mlflow import MlflowClient

    text = transfer_text(methods=["pemt", "without_alpha"], **SHORT)
    arguments = transfer_arguments(world, tmp_path, settings=text, workers=2)
    assert run_here(monkeypatch, "transfer", *arguments) == ""
    facts = json.loads((tmp_path / "provenance.json").read_text())
    assert facts["workers"] == 2
    assert facts["trained"] == ["gamma/pemt-kfull-seed4096", "gamma/without_alpha-kfull-seed4096"]
    assert 0 < facts["workers_memory_mib"] < facts["peak_memory_mib"]
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert {run.data.tags["pemt.method"]: run.info.status for run in runs} == {
        "pemt": "FINISHED",
        "without_alpha": "FINISHED",
    }
    for run in runs:
        assert run.data.metrics["train/loss"] > 0
        assert run.data.tags["pemt.artifact"]


def test_zero_workers_is_an_error(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    error = run_here(monkeypatch, "transfer", *transfer_arguments(world, tmp_path, workers=0))
    assert error == "error: workers is 0: expected at least 1"


# Tracking


def test_an_unreachable_server_stops_before_anything_is_read(tmp_path: Path) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    for step, settings in (("train_source", source_text("alpha")), ("transfer", transfer_text())):
        flags = ["--settings", settings, "--tracking", tracking_in(tmp_path, uri=uri)]
        common = ["--data", "no", "--backbone", "no", "--output", tmp_path / "out", "--provenance", tmp_path / "p.json"]
        done = component(step, *flags, *common, *(["--experts", "no"] if step == "transfer" else []))
        assert assert_one_line(done).startswith(f"error: {uri}: no tracking server answers")
        assert "tracking.on_unreachable" in done.stderr
        assert not (tmp_path / "out").exists()


def test_training_continues_without_a_server_if_configured(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    tracking = tracking_in(tmp_path, uri=uri, on_unreachable="continue")
    assert run_here(monkeypatch, "transfer", *transfer_arguments(world, tmp_path, tracking=tracking)) == ""
    assert any("no tracking server answers" in message and "continuing" in message for message in caplog.messages)
    assert (tmp_path / "adapters" / "gamma" / "pemt-kfull-seed4096" / "adapter.safetensors").is_file()
    assert json.loads((tmp_path / "provenance.json").read_text())["seconds"] > 0
    assert not list(tmp_path.glob("mlflow*"))


# Files and folders


NOBODY = 65534


@contextmanager
def as_nobody() -> Iterator[None]:
    """Drop root's right to read and write everything; other users are subject to permissions anyway."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The plan's tracking settings, with a store that is made once."""
    return tracking_in(tmp_path_factory.mktemp("store"))


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder that every user can enter, unlike pytest's."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@cache
def settings_of(step: str) -> str:
    """The plan's settings for a step."""
    return as_text(make_plan(load_settings(REPOSITORY / "params.yaml"), REPOSITORY).steps[step])


def flags_of(program: str, world: World, folder: Path, store: str) -> dict[str, object]:
    """Valid flags of a program by name; an empty name is an argument without a flag."""
    step = {"provenance": folder / "provenance.json"}
    tracked, models = {**step, "tracking": store}, {"backbone": world.folder / "backbone"}
    params, output = REPOSITORY / "params.yaml", folder / "output"
    known: dict[str, dict[str, object]] = {
        "plan": {**step, "params": params, "output": output},
        "prepare": {**step, "settings": settings_of("prepare"), "output": output},
        "backbone": {
            **tracked, "settings": settings_of("backbone"), "tokenizer": world.folder / "tokenizer",
            "corpus": world.folder / "corpus.parquet", "checkpoints": folder / "checkpoints", "output": output,
        },
        "train_source": {
            **tracked, **models, "settings": source_text("alpha"), "data": world.folder / "data" / "alpha",
            "checkpoints": folder / "checkpoints", "output": output,
        },
        "collect_experts": {
            **step, **models, "settings": json.dumps({"sources": ["alpha"], "imported_sources": {}, "code": ""}),
            "adapters": world.folder / "adapters", "output": output,
        },
        "evaluate": {
            **step, **models, "settings": settings_of("evaluate"), "experts": world.folder / "experts",
            "data": world.folder / "data", "adapters": world.folder / "adapters", "output": output,
        },
        "record": {**tracked, "settings": settings_of("record"), "scores": folder, "output": output},
        "report": {**step, **models, "settings": settings_of("report"), "scores": folder, "output": output},
        "results": {"results": folder},
        "methods": {**models, "params": params},
        "tasks": {"params": params},
        "export_adapter": {**models, "": world.folder / "adapters" / "alpha", "output": output},
    }  # fmt: skip
    return known[program]


def bad_path(kind: str, folder: Path) -> Path:
    """Make something in an empty folder that cannot serve as `kind` says, and return its path."""
    folder.mkdir()
    folder.chmod(0o777)
    file, other = folder / "file", folder / "folder"
    file.write_text("[")
    other.mkdir()
    (folder / "link").symlink_to(folder / "nothing")
    (folder / "loop").symlink_to(folder / "loop")
    if kind == "locked":
        other.chmod(0)
    paths = {
        "missing": folder / "no" / "such",
        "a link to nothing": folder / "link",
        "a loop of links": folder / "loop",
        "below a file": file / "x",
        "a file": file,
        "a folder": other,
        "locked": other / "x",
        "too long": folder / ("n" * 300),
    }
    return paths[kind]


UNWRITABLE = ("below a file", "locked", "too long")
UNREADABLE = (*UNWRITABLE, "missing", "a link to nothing", "a loop of links", "a file", "a folder")
BAD_INPUTS = (
    ("plan", "params"), ("prepare", "settings"), ("backbone", "tokenizer"), ("train_source", "tracking"),
    ("train_source", "data"), ("train_source", "backbone"), ("collect_experts", "adapters"), ("evaluate", "settings"),
    ("evaluate", "backbone"), ("evaluate", "experts"), ("record", "scores"), ("report", "scores"),
    ("results", "results"), ("methods", "params"), ("methods", "backbone"), ("tasks", "params"), ("export_adapter", ""),
)  # fmt: skip
BAD_OUTPUTS = (
    ("plan", "output"), ("plan", "provenance"), ("prepare", "output"), ("backbone", "checkpoints"),
    ("train_source", "output"), ("collect_experts", "output"), ("evaluate", "provenance"), ("record", "output"),
    ("report", "output"), ("export_adapter", "output"),
)  # fmt: skip


@pytest.fixture
def ends_in_a_line(
    world: World, shared_folder: Path, store: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str, str], None]:
    """Run a program with a bad path for a flag, and check its error."""

    def check(program: str, flag: str, kind: str) -> None:
        path = bad_path(kind, shared_folder / kind.replace(" ", "_"))
        given = {**flags_of(program, world, shared_folder, store), flag: path}
        if kind == "locked":  # what pytest made is locked too
            given = {name: REPOSITORY if str(value).startswith(str(world.folder)) else value
                     for name, value in given.items()}  # fmt: skip
        words = [word for name, value in given.items() for word in ((f"--{name}", value) if name else (value,))]
        with as_nobody() if kind == "locked" else nullcontext():
            error = run_here(monkeypatch, program, *words)
        assert error.startswith("error: "), kind
        assert str(path)[:150] in error, kind
        assert "\n" not in error
        assert len(error) < 800

    return check


@pytest.mark.parametrize(("program", "flag"), BAD_INPUTS, ids=lambda word: word or "adapter")
def test_a_path_that_cannot_be_read_ends_in_one_line(
    program: str, flag: str, ends_in_a_line: Callable[[str, str, str], None]
) -> None:
    for kind in UNREADABLE:
        ends_in_a_line(program, flag, kind)


@pytest.mark.parametrize(("program", "flag"), BAD_OUTPUTS)
def test_a_path_that_cannot_be_written_ends_in_one_line_before_the_work(
    program: str, flag: str, ends_in_a_line: Callable[[str, str, str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    if program != "plan":  # which has no other work
        monkeypatch.setitem(sys.modules, f"pemt_core.steps.{program}", None)  # the work would end in an ImportError
    is_file = flag == "provenance" or program == "record"
    for kind in (*UNWRITABLE, "a folder" if is_file else "a file"):
        ends_in_a_line(program, flag, kind)


def test_what_cannot_be_printed_is_an_error() -> None:
    """/dev/full answers every write as a full disk does."""
    command = f"{sys.executable} -m components.tasks rte > /dev/full"
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    done = subprocess.run(["bash", "-c", command], cwd=REPOSITORY, env=buffered, capture_output=True, text=True)
    expected = "error: cannot write to the standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, expected)


def test_only_errors_about_files_lose_their_traceback() -> None:
    for error in (OSError("a library's own"), ConnectionRefusedError(111, "refused"), ValueError("a bug")):
        with pytest.raises(type(error)) as caught, file_errors_named():
            raise error
        assert caught.value is error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "the disk is full"),
        (OSError(errno.EROFS, "Read-only file system", "a/b"), "a/b: is on a file system that is read-only"),
        (FileNotFoundError("a/b"), "a/b: no such file or folder"),  # as pyarrow raises it
        (FileNotFoundError(errno.ENOENT, "Failed to open 'a/b'"), "Failed to open 'a/b': no such file or folder"),
        (OSError(errno.EXDEV, "Invalid cross-device link", "a", None, "b"), "a -> b: Invalid cross-device link"),
    ],
    ids=str,
)
def test_an_error_of_the_operating_system_names_the_path(error: OSError, expected: str) -> None:
    with pytest.raises(FileError, match=re.escape(expected)), file_errors_named():
        raise error
