"""Bounds on settings from a file or a flag, so that none takes long to check, or fails only in a later step."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pemt_core.errors import SettingsError, cut, file_problem, shown

DEEPEST = 50  # groups and lists within one another
MOST_VALUES = 100_000
MOST_CHARACTERS = 2**20  # of all texts together
LONGEST_KEY, LONGEST_TEXT = 200, 2**16
LARGEST_NUMBER = 2**63  # no library takes a larger one


def read_text(path: Path, most_bytes: int, remedy: str = "") -> str:
    """Read a UTF-8 file. Raises SettingsError if it is missing, a folder, too large or in another encoding."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except FileNotFoundError as error:
        target = f" (a link to {path.readlink()}, which does not exist)" if path.is_symlink() else ""
        raise SettingsError(f"{cut(str(path))}: no such file{target}{remedy}") from error
    except IsADirectoryError as error:
        raise SettingsError(f"{path}: is a folder, expected a file") from error
    except OSError as error:
        raise SettingsError(file_problem(error)) from error
    except ValueError as error:  # a character that no path has
        raise SettingsError(f"{shown(str(path))}: not the name of a file ({error})") from error
    if len(content) > most_bytes:
        raise SettingsError(f"{path}: has more than {most_bytes:,} bytes, the most that settings may have")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{path}: not text in UTF-8 (byte {content[error.start]:#04x} at position {error.start}); save it as UTF-8"
        ) from error


def check_words(words: Sequence[str]) -> None:
    """Raise SettingsError, naming the flag, if a word of a command line is not UTF-8: no file can keep it."""
    flag = ""
    for word in words:
        name, equals, _ = word.partition("=")
        if word.startswith("--") and not equals:
            flag = name
        try:
            word.encode()
        except UnicodeEncodeError as error:
            place = f" after {flag}" if flag and not word.startswith("--") else ""
            raise SettingsError(
                f"the argument {shown(word)}{place} is not UTF-8 text (character {error.start + 1}); write it in "
                "UTF-8, or rename the file that it names"
            ) from error


def check_values(value: Any, origin: str, *keys: str) -> None:
    """Check what is nested in groups and lists: depth, length of keys and texts, size of numbers.

    Raises SettingsError, naming the key.
    """
    problem = _problem(value, len(keys))
    if problem:
        place = f"key '{cut('.'.join(keys))}' " if keys else ""
        raise SettingsError(f"{origin}: {place}{problem}")
    if isinstance(value, dict):
        for key, inner in value.items():
            check_values(inner, origin, *keys, key)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            check_values(inner, origin, *keys, str(position))


def _problem(value: Any, depth: int) -> str | None:
    """Say what is wrong with one value, without what is in it."""
    if isinstance(value, dict | list) and depth > DEEPEST:
        return f"is nested too deeply: expected at most {DEEPEST} groups and lists within one another"
    if isinstance(value, dict):
        reasons = [(key, _reason(key, LONGEST_KEY)) for key in value]
        return next((f"has the key {shown(key)}: {reason}" for key, reason in reasons if reason), None)
    if isinstance(value, str):
        reason = _reason(value, LONGEST_TEXT)
        return reason and f"is {shown(value)}: {reason}"
    if isinstance(value, float) and not math.isfinite(value):
        return f"is {value}: expected a finite number"
    if isinstance(value, int) and not -LARGEST_NUMBER <= value < LARGEST_NUMBER:
        return f"is {shown(value)}: expected a number of at most 18 digits"
    return None


def _reason(text: str, longest: int) -> str | None:
    """Say what is wrong with a text."""
    if len(text) > longest:
        return f"expected at most {longest:,} characters"
    if "\0" in text:
        return "expected a text without the character NUL"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "half of a pair of surrogates is not a character"
    return None
