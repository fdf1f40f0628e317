"""A tiny project, run to its end once: every step's command, what it read, and what it wrote."""

import os
import runpy
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from workspace import REPOSITORY, environment, write_params

from pemt_core.artifacts.files import read_json, write_json

SOURCE, TARGET = "mnli", "cb"
SHORT = {"batch_size": 8, "max_steps": 24, "warmup_steps": 2, "evaluate_every": 8, "checkpoint_every": 3,
         "validation_rows": 8}  # fmt: skip
SETTINGS: Mapping[str, Any] = {
    "tasks": {"sources": [SOURCE, "sst2"], "targets": [TARGET, "rte"]},
    "prepare": {"max_rows": {"train": 200, "validation": 16, "test": 16}, "corpus_rows_per_task": 50},
    "train_source": {"rank": 4, "alpha": 4, "source_length": 48, "training": SHORT},
    "transfer": {"k": [8], "rare_class": "all", "source_length": 48, "learning_rates": [1.0e-2, 3.0e-2],
                 "training": SHORT},
    "evaluate": {"batch_size": 16, "max_rows": 10},
}  # fmt: skip
SCRATCH = {"backbone": {"kind": "scratch", "vocab_size": 600, "length": 48, "training": SHORT}}
STEPS = ("plan", "prepare", "backbone", f"train_source@{SOURCE}", "train_source@sst2", "collect_experts",
         f"transfer@{TARGET}", "transfer@rte", "evaluate", "record", "register", "report")  # fmt: skip
BEFORE = "before"  # the folder of the tracking stores that each step found
SECONDS = "seconds.json"
NOT_COMPARED = ("provenance", "mlflow.db", "mlartifacts", "mlruns", "checkpoints", BEFORE, SECONDS, "log.txt")


@dataclass(frozen=True)
class Step:
    """A stage of dvc.yaml for one of its items."""

    name: str
    command: list[str]
    outputs: list[str]

    @classmethod
    def of(cls, name: str) -> "Step":
        """Read `stage` or `stage@item` from dvc.yaml."""
        stage_name, _, item = name.partition("@")
        stage = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"][stage_name]

        def filled(text: str) -> str:
            return text.replace("${item.source}", item).replace("${item.target}", item)

        listed = [
            out if isinstance(out, str) else next(iter(out)) for out in [*stage["outs"], *stage.get("metrics", [])]
        ]
        return cls(name, filled(stage["cmd"]).split()[1:], [filled(path) for path in listed])


@dataclass(frozen=True)
class Reference:
    """The project's folder after an uninterrupted run, and the seconds that each step took in it."""

    folder: Path
    seconds: Mapping[str, float]

    @classmethod
    def make(cls, folder: Path) -> "Reference":
        """Run every step once, in a single process that loads the libraries once."""
        folder.mkdir(parents=True)
        write_params(folder / "params.yaml", SETTINGS)
        (folder / "scratch").mkdir()
        write_params(folder / "scratch/params.yaml", SETTINGS, SCRATCH)
        (folder / "own_tasks").mkdir()
        embedded = folder / "pemt_core/embedded"
        embedded.mkdir(parents=True)
        shutil.copytree(REPOSITORY / "pemt_core/embedded/backbone", embedded / "backbone")
        with (folder / "log.txt").open("w") as log:  # a new process, because libraries read the environment once
            command = [sys.executable, "-m", "soak.pipeline", str(folder)]
            here = {**step_environment(folder), "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'tests'}"}
            subprocess.run(command, cwd=folder, env=here, stdout=log, stderr=log, check=True)
        return cls(folder, read_json(folder / SECONDS))

    def project_before(self, step: Step, folder: Path) -> Path:
        """Copy the project as it was when the step began, for a run in `folder`."""
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns(BEFORE, "log.txt"))
        for path in step.outputs:
            target = folder / path
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        (folder / "mlflow.db").unlink()
        for found in (self.folder / BEFORE / step.name).glob("mlflow.db"):
            shutil.copyfile(found, folder / found.name)
        return folder

    def differences(self, folder: Path) -> list[str]:
        """The files whose bytes differ from the uninterrupted run, or that one of the two lacks."""
        mine, other = contents(self.folder), contents(folder)
        return sorted(path for path in mine.keys() | other.keys() if mine.get(path) != other.get(path))


def _run_all(folder: Path) -> None:
    """Run every step, then the pretraining of a backbone with settings of its own."""
    seconds = {}
    for name in STEPS:
        _keep_store(folder, name)
        begin = time.monotonic()
        _run_program(Step.of(name).command)
        seconds[name] = time.monotonic() - begin
    plan = "--params scratch/params.yaml --output scratch/plan --provenance provenance/scratch_plan.json"
    _run_program(["-m", "components.plan", *plan.split()])
    step = scratch_step()
    _keep_store(folder, step.name)
    begin = time.monotonic()
    _run_program(step.command)
    seconds[step.name] = time.monotonic() - begin
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    write_json(folder / SECONDS, seconds)


def _keep_store(folder: Path, name: str) -> None:
    """Keep the tracking store that a step finds."""
    before = folder / BEFORE / name
    before.mkdir(parents=True)
    if (folder / "mlflow.db").exists():
        shutil.copyfile(folder / "mlflow.db", before / "mlflow.db")


def _run_program(command: list[str]) -> None:
    """Run `-m module arguments` here."""
    sys.argv = command[1:]
    sys.modules.pop(command[1], None)
    try:
        runpy.run_module(command[1], run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise


def scratch_step() -> Step:
    """The backbone step with a pretraining."""
    step = Step.of("backbone")
    places = {
        "plan/backbone.json": "scratch/plan/backbone.json",
        "backbone": "scratch/backbone",
        "provenance/backbone.json": "provenance/scratch_backbone.json",
    }
    return Step("backbone (scratch)", [places.get(word, word) for word in step.command], ["scratch/backbone"])


def step_environment(folder: Path) -> dict[str, str]:
    """The environment of a step's program in a project's folder."""
    return {
        **environment(folder / ".caches"),
        "PYTHONPATH": str(REPOSITORY),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def contents(folder: Path) -> dict[str, bytes]:
    """The bytes of every file that must not depend on interruptions."""
    found = {}
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in parts)
        if path.is_file() and parts[0] not in NOT_COMPARED and not hidden:
            found["/".join(parts)] = path.read_bytes()
    return found


def runs_of(folder: Path) -> Counter[tuple[str, str]]:
    """The runs that a project's store shows, by cell and status, and its model versions."""
    if not (folder / "mlflow.db").exists():
        return Counter()
    with sqlite3.connect(folder / "mlflow.db") as store:
        rows = store.execute(
            "select coalesce(t.value, ''), r.status from runs r left join tags t on t.run_uuid = r.run_uuid "
            "and t.key = 'pemt.cell' where r.lifecycle_stage = 'active'"
        ).fetchall()
        versions = store.execute("select name, version || current_stage from model_versions").fetchall()
    store.close()
    return Counter([*rows, *versions])


if __name__ == "__main__":
    _run_all(Path(sys.argv[1]))
