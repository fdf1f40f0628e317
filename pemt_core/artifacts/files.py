"""Atomic writes and content hashes: a reader sees the old file or the new one, never half of either."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pemt_core.artifacts.staging import Stage, recover, staged
from pemt_core.errors import ArtifactError, PemtError, cut

DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
CHECKSUM = "checksum"  # of the other values of a record, its last key


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; on success it replaces the file `path`, on failure it is removed.

    A link is followed, so that its target is replaced, unless that is read-only: DVC's cache, which others share.
    """
    with _stage(Path(path), _place_of_file) as stage:
        yield stage.new
        stage.complete(stage.new)
        with _refusals_named(path):
            stage.replace_file()


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder; on success it replaces the folder `path`, on failure it is removed.

    A link is followed. An existing folder is renamed first and deleted last: if the writer is killed between the two
    renames, `recover`, every next writer and `read_json` move it back.
    """
    with _stage(Path(path), _place_of_folder) as stage:
        stage.new.mkdir()
        yield stage.new
        for written in (*stage.new.rglob("*"), stage.new):
            if not written.is_symlink():
                stage.complete(written)
        with _refusals_named(path):
            stage.replace_folder()


def check_replaceable(directory: Path, marker: str, names: Collection[str] | None = None) -> None:
    """Raise ArtifactError if a folder holds what the next content of `directory` must not remove.

    It may be new or empty, or hold the file `marker` beside nothing but `names` (None: anything).
    """
    found = {entry.name for entry in directory.iterdir()} if directory.is_dir() else set[str]()
    expected = "expected a new folder, an empty one, or an earlier export"
    if found and marker not in found:
        raise ArtifactError(f"{directory}: already exists and has no {marker}; {expected}")
    if others := sorted(found - {marker, *(found if names is None else names)}):
        raise ArtifactError(f"{directory}: has {cut(others[0])}, which an export would remove; {expected}")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as `json_bytes`, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """`value` as indented JSON in UTF-8; the same value always gives the same bytes."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises ArtifactError if it is missing, unreadable or truncated."""
    return _decoded(path, _content(Path(path)))


def write_record(path: Path, values: Mapping[str, Any]) -> None:
    """Write a JSON object with a checksum, for `read_record`."""
    write_json(path, {**values, CHECKSUM: sha256_of_json(values)})


def read_record(path: Path, remedy: str) -> dict[str, Any]:
    """Read what `write_record` wrote.

    Raises ArtifactError, which ends in `remedy`, if it is missing, from another version, or differs in a single byte.
    """
    content = _content(Path(path))
    values = _decoded(path, content, f"; {remedy}")
    if not isinstance(values, dict):
        raise ArtifactError(f"{path}: expected an object, found {type(values).__name__}; {remedy}")
    if CHECKSUM not in values:
        raise ArtifactError(f"{path}: key '{CHECKSUM}' is missing; another version wrote it, {remedy}")
    checksum = values.pop(CHECKSUM)
    try:
        whole = checksum == sha256_of_json(values) and content == json_bytes({**values, CHECKSUM: checksum})
    except (ValueError, RecursionError):  # not finite, or not Unicode
        whole = False
    if not whole:
        raise ArtifactError(f"{path}: altered: its content does not match its checksum; {remedy}")
    return values


def sha256_of_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_json(value: Any) -> str:
    """The SHA-256 of a JSON-like value, for any order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _decoded(path: Path, content: bytes, remedy: str = "") -> Any:
    try:
        return json.loads(content.decode())
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, a number too long, nested too deep
        raise ArtifactError(f"{path}: not readable as JSON ({error}); it is truncated or altered{remedy}") from error


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():
            folder = Path(os.path.realpath(path.parent))
            recover(folder.parent, folder.name)
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ArtifactError(f"{path}: no such file; the step that writes it has not run") from error
    except OSError as error:
        raise ArtifactError(
            f"{path}: not readable ({error.strerror}); expected a file that this user may read"
        ) from error


@contextmanager
def _stage(path: Path, place_of: Callable[[Path], Path]) -> Iterator[Stage]:
    """Places beside the one that `path` leads to. Errors of the system name `path`."""
    with _disk_errors_named(path), ExitStack() as held:
        with _refusals_named(path):
            place = place_of(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            stage = held.enter_context(staged(place))
        try:
            yield stage
        except PemtError as error:
            if str(stage.new) not in str(error):
                raise  # else it is about a file in the new folder, whose hidden name means nothing to a user
            raise type(error)(str(error).replace(str(stage.new), str(path))) from error


def _place_of_folder(path: Path) -> Path:
    place = _destination(path)
    if place.exists() and not place.is_dir():
        raise ArtifactError(f"{path}: is a file; expected a folder or nothing, as a folder is to be written there")
    return place


def _place_of_file(path: Path) -> Path:
    place = _destination(path)
    if path.is_symlink() and place.is_file() and not place.stat().st_mode & 0o222:
        return path
    if place.exists() and not place.is_file():
        kind = "a folder" if place.is_dir() else "not a regular file"
        raise ArtifactError(f"{path}: is {kind}; expected a file or nothing, as a file is to be written there")
    return place


def _destination(path: Path) -> Path:
    """The path itself, or what it links to. Raises ArtifactError if that is in a folder that does not exist."""
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if target.is_symlink() or not target.parent.is_dir():
        raise ArtifactError(
            f"{path}: a link to {os.readlink(path)}, but {target.parent} does not exist or links in a circle; "
            "create that folder, or remove the link"
        )
    return target


@contextmanager
def _disk_errors_named(path: Path) -> Iterator[None]:
    """Turn "no space left" into an error that names the path and the free space."""
    try:
        yield
    except Exception as error:  # safetensors and tokenizers raise other types, with the number in the text
        by_text = any(f"(os error {number})" in str(error) for number in DISK_FULL)
        if not by_text and getattr(error, "errno", None) not in DISK_FULL:
            raise
        folder = _existing_folder(path)
        raise ArtifactError(
            f"{path}: the disk is full ({shutil.disk_usage(folder).free / 1e6:.1f} MB free in {folder}); "
            "nothing was written, and any earlier content is unchanged"
        ) from error


@contextmanager
def _refusals_named(path: Path) -> Iterator[None]:
    """Turn the system's refusal to create or rename entries into an error that says what is needed."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        folder = _existing_folder(Path(error.filename or path))
        needed = {
            errno.EBUSY: "it is a mount point; mount the folder above it, or write to a folder in it",
            errno.EXDEV: "it is part of a container's image; write to a volume",
            errno.EROFS: "write to another file system",
            **dict.fromkeys((errno.ENOTDIR, errno.EEXIST), "a part of its path is a file, expected a folder"),
        }.get(error.errno or 0, f"this user must be able to create and rename entries in {folder}")
        raise ArtifactError(f"{path}: cannot be written ({error.strerror}); {needed}") from error


def _existing_folder(path: Path) -> Path:
    """The nearest folder above `path` that exists."""
    return next(folder for folder in path.parents if folder.is_dir())
