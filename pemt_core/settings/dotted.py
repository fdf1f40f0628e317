"""Nested settings under dotted keys."""

from collections.abc import Callable, Mapping
from typing import Any


def flatten(values: Mapping[str, Any], text: Callable[[Any], str], prefix: str = "") -> dict[str, str]:
    """Flatten nested settings to dotted keys, each value formatted by `text`; an empty group is a value.

    {"training": {"epochs": 20}} gives {"training.epochs": "20"}.
    """
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, text, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = text(value)
    return flat
