"""Stages that are made once: a folder is kept while it is what the same settings, code and inputs would make."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pemt_core.artifacts.files import read_record, sha256_of_file, sha256_of_json, write_record
from pemt_core.artifacts.staging import recover
from pemt_core.errors import ArtifactError

CONTENT = "content"


@dataclass(frozen=True)
class Stage:
    """A folder, what it is made of, and the call that makes it."""

    folder: Path
    record: Path  # the file that says what the folder was made of
    made_of: Mapping[str, Any]
    build: Callable[[], object]

    def is_made(self) -> bool:
        """Whether the folder was made of these inputs, and is as it was then."""
        recover(self.folder.parent, self.folder.name)
        if not self.record.is_file() or not self.folder.is_dir():
            return False
        try:
            return read_record(self.record, "") == {**self.made_of, CONTENT: content_of(self.folder)}
        except (ArtifactError, OSError):
            return False

    def make(self) -> bool:
        """Build the folder unless it is made; return whether it was built.

        The record is written last: after an interruption in between, the folder is built again.
        """
        if self.is_made():
            return False
        self.record.unlink(missing_ok=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self.build()
        write_record(self.record, {**self.made_of, CONTENT: content_of(self.folder)})
        return True


def content_of(folder: Path) -> str:
    """A hash of the names and contents of all files below a folder, hidden ones excepted."""
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    shown = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    return sha256_of_json([[name.as_posix(), sha256_of_file(folder / name)] for name in shown])
