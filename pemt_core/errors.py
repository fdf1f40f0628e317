"""Errors that a user can act on: each names the file or key, the value, what was expected and the nearest choice."""

import difflib
import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from reprlib import Repr
from typing import Any

_LONGEST_SHOWN = 200  # characters of a value in a message
_MOST_CHOICES = 40  # that a message lists
_LONGEST_NAME = 100  # comparing longer ones takes too long

# What an error of the operating system about a path means to the user; for others, its own words suffice
_MEANINGS = {
    errno.ENOENT: "no such file or folder",
    errno.EISDIR: "is a folder, expected a file",
    errno.ENOTDIR: "a file is where a folder is expected",
    errno.EEXIST: "already exists",
    errno.EACCES: "permission denied; check who owns it, and its permissions and those of its folders",
    errno.EPERM: "not permitted; check who owns it, and its permissions and those of its folders",
    errno.EROFS: "is on a file system that is read-only",
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.ENAMETOOLONG: "the name is too long",
    errno.ELOOP: "too many links that refer to one another",
    errno.EMFILE: "this process has too many open files; raise the limit of `ulimit -n`",
    errno.EIO: "the disk or network reports an error (input/output error)",
}


class PemtError(Exception):
    """A problem with the user's input or the machine, never a bug: programs print the message without a traceback."""


class SettingsError(PemtError):
    """params.yaml holds an unknown, missing or ill-typed key, or values that contradict each other."""


class DataError(PemtError):
    """A dataset, subset, split, column or row is missing or does not match its record."""


class ArtifactError(PemtError):
    """A stored artifact is missing, incomplete, altered, or belongs to another backbone."""


class TrainingError(PemtError):
    """Training cannot continue; the message names the step and what was kept."""


class FileError(PemtError):
    """The operating system refuses to read or write a file or folder."""


@contextmanager
def file_errors_named() -> Iterator[None]:
    """Turn the operating system's refusal of a file or folder in the block into a FileError that names it."""
    try:
        yield
    except ConnectionError:  # of a server or a pipe
        raise
    except OSError as error:
        if error.filename is None and error.errno not in _MEANINGS and type(error) is OSError:
            raise  # a library's own error
        raise FileError(file_problem(error)) from error
    except RuntimeError as error:
        if not str(error).startswith("Symlink loop"):  # how pathlib reports links that lead in a circle
            raise
        raise FileError(cut(str(error))) from error


def file_problem(error: OSError) -> str:
    """Describe an error of the operating system in a line: the path, and what is wrong with it."""
    reason = _MEANINGS.get(error.errno or 0) or error.strerror or _of_type(error)
    if error.filename is None:  # as when a write to an open file fails; a library may name the file in its text
        plain = error.errno and error.strerror == os.strerror(error.errno)
        return reason if plain or not str(error) else f"{cut(' '.join(str(error.strerror or error).split()))}: {reason}"
    names = [os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else str(name)
             for name in (error.filename, error.filename2) if name is not None]  # fmt: skip
    return f"{' -> '.join(map(cut, names))}: {reason}{_obstacle(Path(names[0]), error.errno)}"


def _of_type(error: OSError) -> str:
    """The meaning of an error that a library raised without a number."""
    numbers = {FileNotFoundError: errno.ENOENT, PermissionError: errno.EACCES, FileExistsError: errno.EEXIST,
               IsADirectoryError: errno.EISDIR, NotADirectoryError: errno.ENOTDIR}  # fmt: skip
    number = numbers.get(type(error))
    return _MEANINGS[number] if number else type(error).__name__


def _obstacle(path: Path, number: int | None) -> str:
    """Name what is in the way at or above `path`: a link to nothing, a file, or the nearest folder that exists."""
    try:
        if number == errno.ENOENT and path.is_symlink():
            return f"; it is a link to {path.readlink()}, which does not exist"
        above = next((each for each in path.absolute().parents if os.path.lexists(each)), None)
        if number == errno.ENOTDIR:
            file = next((each for each in (path, *path.parents) if each.is_file()), None)
            return f": {file}" if file else ""
        if number == errno.ENOENT and above and above != path.absolute().parent:
            return f"; the nearest folder that exists is {above}"
    except (OSError, ValueError):  # the path cannot be examined either
        pass
    return ""


def refusal(error: PemtError) -> str:
    """Return what a program says of an error: one line, whatever line breaks and escapes a file's texts have."""
    return printable(f"error: {error}")


def printable(text: str) -> str:
    """Escape what a person does not see and a terminal may act on: line breaks, controls, characters of no width."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def cut(text: str, length: int = _LONGEST_SHOWN) -> str:
    """Shorten a text for a message."""
    return text if len(text) <= length else f"{text[:length]}... ({len(text):,} characters)"


def counted(number: int, noun: str) -> str:
    """A number of things: "1 target", "2 targets"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def shown(value: Any) -> str:
    """Represent a value in a message, shortened; this takes little time for any size, depth and number of digits."""
    brief = Repr()
    brief.maxstring = brief.maxother = _LONGEST_SHOWN
    brief.maxlist = brief.maxdict = brief.maxtuple = 20
    try:
        text = repr(value) if isinstance(value, bool | float | None) else brief.repr(value)
    except ValueError:  # more digits than Python writes
        text = f"a number of about {int(value.bit_length() * 0.30103):,} digits" if isinstance(value, int) else "..."
    return cut(text.replace("\n", " "))


def nearest(name: object, choices: Iterable[object]) -> str:
    """Suggest the choice most similar to `name`, as in "did you mean 'rte'?", or list all if none is similar.

    Of a choice that looks the same as `name`, the characters that differ are escaped.
    """
    from pemt_core.schema.visible import look_alike, told_apart  # whose import is a fifth of the start of `pemt --help`

    known, name = sorted(map(str, choices)), str(name)
    short = [choice for choice in known if len(choice) <= _LONGEST_NAME] if len(name) <= _LONGEST_NAME else []
    twin = next((choice for choice in short if look_alike(choice, name)), None)
    if twin is not None:
        choice, given = told_apart(twin, name)
        return f"did you mean '{choice}'? It looks the same, but '{given}' has other characters"
    of_any_case = {choice.casefold(): choice for choice in short}
    similar = difflib.get_close_matches(name, short, n=1)
    similar = similar or [of_any_case[each] for each in difflib.get_close_matches(name.casefold(), of_any_case, n=1)]
    if similar:
        return f"did you mean '{similar[0]}'?"
    others = f" and {len(known) - _MOST_CHOICES:,} more" if len(known) > _MOST_CHOICES else ""
    return f"choose from: {', '.join(map(cut, known[:_MOST_CHOICES]))}{others}"
