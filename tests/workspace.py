"""A throw-away project for tests: a copy of the checkout under git and DVC, with settings that take seconds.

Uncommitted files are copied too, so that tests see the current code.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

REPOSITORY = Path(__file__).parent.parent
NOT_COPIED = ("tests", "docs", "benchmarks")
NOT_INHERITED = ("PYTHONPATH", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
FORK_SERVER = ("python", "-m", "components.fork_server")
SOURCES, TARGETS = ["mnli", "squad"], ["cb", "rte", "nq"]

_SHORT = {
    "max_steps": 3,
    "warmup_steps": 1,
    "batch_size": 4,
    "validation_rows": 4,
    "checkpoint_every": 1,
    "evaluate_every": "epoch",
}
TINY: Mapping[str, Any] = {
    "tasks": {"sources": SOURCES, "targets": TARGETS},
    "prepare": {
        "source": "hub",
        "max_rows": {"train": 64, "validation": 8, "test": 12},
        "corpus_rows_per_task": 40,
    },
    "backbone": {"kind": "scratch", "size": "tiny", "vocab_size": 600, "length": 64, "training": _SHORT},
    "train_source": {"rank": 4, "alpha": 4, "source_length": 48, "training": _SHORT},
    "transfer": {
        "methods": ["pemt"],
        "seeds": [4096],
        "k": ["full"],
        "source_length": 48,
        "learning_rates": [1.0e-2],
        "training": _SHORT,
    },
    "per_target": {"nq": {"training": {"max_steps": 2, "validation_rows": 2}}},
    "evaluate": {"batch_size": 16, "max_rows": 10},
}


@dataclass(frozen=True)
class Repro:
    """The outcome of one `dvc repro`."""

    executed: list[str]  # stages, in order
    output: str


@dataclass(frozen=True)
class Workspace:
    """A project in `folder`, and the environment in which its programs run."""

    folder: Path
    environment: Mapping[str, str]

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program of the virtual environment in the folder; its exit code must be 0 unless `check` is false."""
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=1500
        )
        assert done.returncode == 0 or not check, f"{command}\n{done.stdout}\n{done.stderr}"
        return done

    def repro(self, *arguments: str, forks: bool = False) -> Repro:
        """Run `dvc repro` with `arguments`; with `forks` as `make demo` does, which is faster for many stages."""
        done = self.run(*(FORK_SERVER if forks else []), "dvc", "repro", *arguments)
        return Repro(executed_stages(done.stdout), done.stdout + done.stderr)

    def change_settings(self, differences: Mapping[str, Any]) -> None:
        """Merge `differences` into params.yaml."""
        yaml, path = YAML(), self.folder / "params.yaml"
        values = yaml.load(path)
        lay_over(values, differences)
        yaml.dump(values, path)

    def replace(self, file: str, old: str, new: str) -> None:
        """Replace a text that occurs exactly once in a file."""
        path = self.folder / file
        assert path.read_text().count(old) == 1
        path.write_text(path.read_text().replace(old, new))

    def commit(self, message: str) -> None:
        """Commit everything that git does not ignore."""
        self.run("git", "add", "--all")
        self.run("git", "commit", "--quiet", "--message", message)

    def copy(self, folder: Path) -> "Workspace":
        """Copy the project to another folder, including outputs and DVC's cache."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Workspace(folder, self.environment)

    def clone(self, folder: Path) -> "Workspace":
        """Clone the project to another folder: only what git holds."""
        self.run("git", "clone", "--quiet", str(self.folder), str(folder))
        return Workspace(folder, self.environment)


def new_workspace(folder: Path, caches: Path, settings: Sequence[Mapping[str, Any]]) -> Workspace:
    """Commit the checkout's tracked and new files in `folder`, with each of `settings` merged into params.yaml."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=REPOSITORY, capture_output=True, text=True, check=True,
    ).stdout.split("\0")  # fmt: skip
    for name in filter(None, listed):
        if Path(name).parts[0] not in NOT_COPIED and (REPOSITORY / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(REPOSITORY / name, folder / name)
    workspace = Workspace(folder, environment(caches))
    for differences in settings:
        workspace.change_settings(differences)
    workspace.run("git", "init", "--quiet")
    workspace.commit("a project")
    return workspace


def write_params(path: Path, *differences: Mapping[str, Any]) -> Path:
    """Write the repository's params.yaml with each of `differences` merged in, and its recipes beside it."""
    values = YAML(typ="safe").load(REPOSITORY / "params.yaml")
    for each in differences:
        lay_over(values, each)
    with path.open("w") as file:
        YAML().dump(values, file)
    shutil.copytree(REPOSITORY / "recipes", path.parent / "recipes", dirs_exist_ok=True)
    return path


def environment(caches: Path) -> dict[str, str]:
    """This process's environment with its virtual environment first on PATH, a git identity, and caches in `caches`."""
    identity = {
        f"GIT_{role}_{part}": "test@localhost" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")
    }
    dvc = {f"DVC_{name}": str(caches / "dvc") for name in ("SITE_CACHE_DIR", "GLOBAL_CONFIG_DIR", "SYSTEM_CONFIG_DIR")}
    return {
        **{name: value for name, value in os.environ.items() if name not in NOT_INHERITED},
        **identity,
        **dvc,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
        "HF_HOME": str(caches / "hf"),
        "HF_DATASETS_CACHE": str(caches / "datasets"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1",
        "OMP_NUM_THREADS": "1",  # faster for models this small, and the arithmetic does not depend on other load
    }


def executed_stages(output: str) -> list[str]:
    """The stages that the output of `dvc repro` or `dvc exp run` reports as executed."""
    return re.findall(r"Running stage '([^']+)'", output)


def lay_over(values: Any, differences: Mapping[str, Any]) -> None:
    """Merge `differences` into nested `values`."""
    for key, value in differences.items():
        if isinstance(value, Mapping) and key in values:
            lay_over(values[key], value)
        else:
            values[key] = value
