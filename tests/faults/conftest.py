"""A project with a trained target, and the commands of `pemt` in this process."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from tiny import World, write_task
from workspace import REPOSITORY, write_params

TARGET = "emo"
ENTRY = {
    "files": {"train": "emo.csv"},
    "text": {"text": "text"},
    "target": "label",
    "labels": ["red", "blue"],
    "description": "Decide which colour the text names.",
    "metrics": ["accuracy"],
}
SETTINGS = {"tasks": {"sources": ["mnli", "sst2"], "targets": [TARGET]}, "own_tasks": {TARGET: ENTRY}}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    output: str  # of both streams, and of the log

    @property
    def errors(self) -> list[str]:
        return [line for line in self.output.splitlines() if line.startswith("error: ")]


Pemt = Callable[..., Ended]


@pytest.fixture(scope="session")
def project(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a target that was trained for a few steps. Tests must not change it."""
    folder = tmp_path_factory.mktemp("faults") / "project"
    shutil.copytree(world.folder, folder)
    write_task(folder / "data", TARGET)
    World(folder).transfer(
        folder / "adapters/targets" / TARGET, task=TARGET, checkpoints=folder / "checkpoints", max_steps=2
    )
    write_settings(folder)
    return folder


def write_settings(folder: Path) -> None:
    """Write params.yaml with one recipe, and a link to the code, in which the settings name the backbone."""
    write_params(folder / "params.yaml", SETTINGS)
    for recipe in (folder / "recipes").glob("*.yaml"):
        if recipe.stem != "demo":
            recipe.unlink()
    (folder / "pemt_core").symlink_to(REPOSITORY / "pemt_core")


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """A folder with settings that a test may change."""
    folder = tmp_path / "settings"
    folder.mkdir()
    write_settings(folder)
    return folder


@pytest.fixture
def pemt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Pemt:
    """Run a command of `pemt` in a folder, as its program does."""
    from components.cli import main

    def run(folder: Path, *words: object) -> Ended:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["pemt", *map(str, words)])
        capsys.readouterr()
        caplog.clear()
        code: object = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        said = capsys.readouterr()
        text = "\n".join([said.out, said.err, caplog.text, code if isinstance(code, str) else ""])
        return Ended(1 if isinstance(code, str) else int(str(code or 0)), text)

    return run
