"""Atomic writes and content hashes: a reader sees the old file or the new one, never half of either."""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pemt_core.errors import ArtifactError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def _disk_errors_named(path: Path) -> Iterator[None]:
    """Turn "no space left" into an error that names the path and the free space."""
    try:
        yield
    except Exception as error:  # safetensors and tokenizers raise other types, with the number in the text
        by_text = any(f"(os error {number})" in str(error) for number in DISK_FULL)
        if not by_text and getattr(error, "errno", None) not in DISK_FULL:
            raise
        free = shutil.disk_usage(path.parent).free
        raise ArtifactError(
            f"{path}: the disk is full ({free / 1e6:.1f} MB free in {path.parent}); "
            "nothing was written, and any earlier content is unchanged"
        ) from error


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is renamed to `path`, on failure it is removed."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_beside(path)
    try:
        with _disk_errors_named(path):
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; on success it replaces the folder `path`.

    An existing folder is renamed first and deleted last, so that a crash leaves one of the two whole.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary_beside(path)
    temporary.mkdir()
    retired = temporary.with_suffix(".old")
    try:
        with _disk_errors_named(path):
            yield temporary
            for file in temporary.rglob("*"):
                if file.is_file():
                    _sync(file)
            if path.exists():
                os.replace(path, retired)
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(retired, ignore_errors=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically; the same value always gives the same bytes."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises ArtifactError if it is missing or truncated."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such file; the step that writes it has not run") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{path}: not readable as JSON ({error}); it is truncated or altered") from error


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """The SHA-256 of a JSON-like value, for any order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _temporary_beside(path: Path) -> Path:
    """A hidden name beside `path` with this process's id; what killed processes left is removed."""
    name = re.compile(rf"\.{re.escape(path.name)}\.(\d+)\.(tmp|old)")
    for entry in path.parent.iterdir():
        match = name.fullmatch(entry.name)
        if match and not _is_running(int(match[1])):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # the process belongs to another user
        return True
    return True


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
