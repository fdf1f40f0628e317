"""Readers of raw rows: each returns a value of its declared type, or raises RowError with the key."""

import json
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

RawRow = Mapping[str, Any]
_SHOWN_CHARACTERS = 80


class RowError(Exception):
    """A value of a row does not match the record; the caller adds the row's place to the message."""

    def __init__(self, key: str, value: object, expected: str) -> None:
        try:
            shown = repr(value)
        except (ValueError, RecursionError):  # a number of thousands of digits, or nested too deeply
            shown = f"a huge {type(value).__name__}"
        if len(shown) > _SHOWN_CHARACTERS:
            shown = f"{shown[:_SHOWN_CHARACTERS]}..."
        super().__init__(f"'{key}' is {shown}, expected {expected}")


class UnlistedLabelError(RowError):
    """An answer is none of the labels that the task lists."""


class NoValueError(RowError):
    """A row has nothing in columns of which one must have a value."""

    def __init__(self, *keys: str) -> None:
        names = " or ".join(f"'{key}'" for key in keys)
        Exception.__init__(self, f"there is no value in column {names}")


def is_absent(value: Any) -> bool:
    """Whether a value of a table is missing: None, not a number, or pandas' NA and NaT."""
    if isinstance(value, float | Decimal):
        return math.isnan(value)
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def as_text(key: str, value: Any) -> str:
    """Text as it is, and numbers and booleans as their JSON text."""
    if isinstance(value, str):
        return _whole_text(key, value)
    if isinstance(value, Decimal) and value.is_finite():
        return format(value, "f")
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    raise RowError(key, value, "text or a number")


def text_of(row: RawRow, key: str) -> str:
    """The text in column `key`; it may be empty, as a few questions of QQP are."""
    value = row[key]
    if is_absent(value):
        raise NoValueError(key)
    if not isinstance(value, str):
        raise RowError(key, value, "text")
    return _whole_text(key, value)


def is_unicode(text: str) -> bool:
    """Whether a text is without lone surrogates: halves of characters, which JSON can write and UTF-8 cannot."""
    return _half_in(text) is None


def _half_in(text: str) -> int | None:
    """The position of the first lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return error.start
    return None


def _whole_text(key: str, text: str) -> str:
    place = _half_in(text)
    if place is not None:
        half = f"character {place + 1}, {text[place]!r}, is half of a surrogate pair"
        raise RowError(key, text, f"Unicode text: {half}")
    return text


def filled_text_of(row: RawRow, key: str) -> str:
    """The text in column `key`, which must hold more than whitespace."""
    value = text_of(row, key).strip()
    if not value:
        raise RowError(key, row[key], "text that is not empty")
    return value


def number_of(row: RawRow, *path: str) -> int:
    """The whole number, 0 or more, at `path`: a column, or a column and a field in it.

    It may be a float: pandas has no other numbers in a column where some are missing.
    """
    value = value_at(row, path)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise RowError(".".join(path), value, "a whole number, 0 or more")
    return value


def key_of(row: RawRow, key: str | None) -> str:
    """The dataset's id for the row; empty if it has none."""
    if key is None:
        return ""
    value = row[key]
    if not isinstance(value, str | int) or value == "":
        raise RowError(key, value, "an id")
    return _whole_text(key, str(value))


def label_of(row: RawRow, key: str, labels: tuple[str, ...]) -> str:
    """The label word of the class number in column `key`."""
    value = row[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < len(labels):
        known = ", ".join(f"{number} ({word})" for number, word in enumerate(labels))
        closest = min(max(value, 0), len(labels) - 1) if isinstance(value, int) else 0
        raise RowError(key, value, f"a label: {known}; the nearest is {closest}")
    return labels[value]


def answers_of(row: RawRow, path: tuple[str, ...], clean: Callable[[str], str]) -> tuple[str, ...]:
    """The cleaned answers at `path`, in order and without duplicates; at least one, and none empty."""
    answers = tuple(dict.fromkeys(clean(answer) for answer in texts_of(row, path)))
    if not answers or "" in answers:
        raise RowError(".".join(path), value_at(row, path), "one or more answers that are not empty")
    return answers


def texts_of(row: RawRow, path: tuple[str, ...]) -> list[str]:
    """The list of texts at `path`."""
    value = value_at(row, path)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise RowError(".".join(path), value, "a list of texts")
    return [_whole_text(".".join(path), item) for item in value]


def value_at(row: RawRow, path: tuple[str, ...]) -> Any:
    """The value at `path`: a column, or a column and a field in it."""
    value: Any = row
    for depth, key in enumerate(path):
        if not isinstance(value, Mapping) or key not in value:
            raise RowError(".".join(path[:depth]), value, f"a record with the field '{key}'")
        value = value[key]
    return value
