"""Paths that flags name, checked before the work that reads or writes them."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path, PosixPath

from pemt_core.errors import FileError, cut


class OutputFile(PosixPath):
    """The type of a flag that names a file to write."""


class OutputFolder(PosixPath):
    """The type of a flag that names a folder to write."""


def check_paths(values: Iterable[object]) -> None:
    """Raise FileError if one of the flags' values names what cannot be read, or written when the work is done.

    A program itself explains an input that is missing: it knows what makes it.
    """
    for path in values:
        if isinstance(path, Path):
            _check_home(path)
        if isinstance(path, OutputFile | OutputFolder):
            check_output(path)
        elif isinstance(path, Path):
            _check_input(path)


def _check_home(path: Path) -> None:
    """Raise FileError if a path begins with ~, which a shell leaves in --flag=~/file, and there is no such folder."""
    first = Path(*path.parts[:1])
    if str(first).startswith("~") and not first.exists():
        raise FileError(f"{cut(str(path))}: there is no folder {first} here; write out what ~ stands for")


def check_output(path: Path) -> None:
    """Raise FileError if `path` cannot be written: for a file's content, its folder counts."""
    if isinstance(path, OutputFile) and path.is_dir():
        raise FileError(f"{cut(str(path))}: is a folder; expected a file to write")
    if isinstance(path, OutputFolder) and path.exists() and not path.is_dir():
        raise FileError(f"{cut(str(path))}: is a file; expected a folder to write")
    above = next(each for each in path.absolute().parents if os.path.lexists(each))
    if not above.is_dir():
        what = "a file" if above.exists() else "a link to nothing"
        raise FileError(f"{cut(str(path))}: {above} is {what}; expected a folder")
    _check_access(above, os.W_OK | os.X_OK, f"{cut(str(path))}: cannot write in {above}")


def _check_input(path: Path) -> None:
    try:
        is_folder = stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return
    _check_access(path, os.R_OK | (os.X_OK if is_folder else 0), f"{cut(str(path))}: cannot read it")


def _check_access(path: Path, mode: int, problem: str) -> None:
    if os.access(path, mode, effective_ids=os.access in os.supports_effective_ids):
        return
    read_only = mode & os.W_OK and os.statvfs(path).f_flag & os.ST_RDONLY
    reason = "its file system is read-only" if read_only else f"user {os.geteuid()} has no permission"
    raise FileError(f"{problem}: {reason}")
