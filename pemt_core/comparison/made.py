"""Make a folder unless it holds, whole and unaltered, what would be made from the same settings, code and inputs."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pemt_core.artifacts.files import read_record, sha256_of_file, sha256_of_json, write_record
from pemt_core.artifacts.staging import recover
from pemt_core.errors import ArtifactError

CONTENT = "content"


def is_made(folder: Path, record: Path, made_of: Mapping[str, Any]) -> bool:
    """Whether the file `record` says that `folder` was made of these inputs, and the folder is as it was then."""
    recover(folder.parent, folder.name)
    if not record.is_file() or not folder.is_dir():
        return False
    try:
        return read_record(record, "") == {**made_of, CONTENT: content_of(folder)}
    except (ArtifactError, OSError):
        return False


def make(folder: Path, record: Path, made_of: Mapping[str, Any], build: Callable[[], object]) -> bool:
    """Call `build`, which writes `folder`, unless that is made; return whether it was called.

    `record` is written last: after an interruption in between, the folder is made again.
    """
    if is_made(folder, record, made_of):
        return False
    record.unlink(missing_ok=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    build()
    write_record(record, {**made_of, CONTENT: content_of(folder)})
    return True


def content_of(folder: Path) -> str:
    """A hash of the names and contents of all files below a folder, hidden ones excepted."""
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    shown = [name for name in names if not any(part.startswith(".") for part in name.parts)]
    return sha256_of_json([[name.as_posix(), sha256_of_file(folder / name)] for name in shown])
