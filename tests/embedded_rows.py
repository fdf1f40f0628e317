"""The rows of the embedded suite as plain values, made once for all tests."""

from functools import cache
from typing import Any

from pemt_core.embedded.suite import load_embedded
from pemt_core.tasks import get_task

SEED = 5
TRAIN = "train"
Row = dict[str, Any]


@cache
def splits(name: str) -> dict[str, list[Row]]:
    """The official splits of a task, as plain rows."""
    loaded = load_embedded(get_task(name).dataset, SEED)
    return {split: rows.to_list() for split, rows in loaded.items()}


def all_rows(name: str) -> list[Row]:
    return [row for rows in splits(name).values() for row in rows]


def texts_in(row: Row) -> list[str]:
    """All texts of a row, without its ids."""
    return [
        value for key, value in row.items() if isinstance(value, str) and key not in ("id", "qid", "subset", "title")
    ]
