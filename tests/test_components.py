"""Every program as a user meets it: its help, and how it ends on input that it cannot use."""

import json
import runpy
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from source_code import REPOSITORY
from tiny import World, source_settings, tiny_t5, transfer_settings
from workspace import write_params

from pemt_core.backbone.store import save_backbone
from pemt_core.backbone.tokenizer import load_tokenizer
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
        "settings": as_text(transfer_settings(**SHORT)),
        "tracking": tracking_in(tmp_path),
        "provenance": tmp_path / "provenance.json",
        "data": world.folder / "data" / World.TARGET,
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


def test_help_is_fast() -> None:
    begin = time.perf_counter()
    done = component("transfer", "--help")
    assert done.returncode == 0
    assert time.perf_counter() - begin < 2  # torch alone takes longer on a busy machine


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
    begin = time.perf_counter()
    done = component("plan", "--params", params, "--output", tmp_path / "plan", "--provenance", tmp_path / "p.json")
    assert expected in assert_one_line(done)
    assert time.perf_counter() - begin < 2
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

    text = as_text(transfer_settings(methods=["pemt", "without_alpha"], **SHORT))
    arguments = transfer_arguments(world, tmp_path, settings=text, workers=2)
    assert run_here(monkeypatch, "transfer", *arguments) == ""
    facts = json.loads((tmp_path / "provenance.json").read_text())
    assert facts["workers"] == 2
    assert facts["trained"] == ["pemt-kfull-seed4096", "without_alpha-kfull-seed4096"]
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
    for step, settings in (("train_source", source_text("alpha")), ("transfer", as_text(transfer_settings()))):
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
    assert (tmp_path / "adapters" / "pemt-kfull-seed4096" / "adapter.safetensors").is_file()
    assert json.loads((tmp_path / "provenance.json").read_text())["seconds"] > 0
    assert not list(tmp_path.glob("mlflow*"))
