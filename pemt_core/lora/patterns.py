"""Patterns for modules in adapter_config.json: PEFT's meaning, matched within a bounded time.

PEFT matches them by `re`, which for some patterns does not end. `regex` gives the same answers and stops in time; where
the two would read a pattern differently, it is refused.
"""

import re
import time
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import regex

from pemt_core.errors import shown

MOST_PATTERNS = 256
SECONDS = 2.0  # to match all patterns with all modules

_NO_REPETITION = re.compile(r"\{(?!\d+(,\d*)?\}|,\d+\})")  # `regex` may take it for a match with errors


def check_patterns(patterns: Iterable[str]) -> None:
    """Raise ValueError if there are too many patterns, or one is not a regular expression as PEFT reads it."""
    patterns = list(patterns)
    if len(patterns) > MOST_PATTERNS:
        raise ValueError(f"has {len(patterns):,} patterns: expected at most {MOST_PATTERNS}")
    for pattern in patterns:
        if _NO_REPETITION.search(pattern):
            raise ValueError(f"{shown(pattern)} has a brace that repeats nothing; no module has one in its name")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # of what a later version reads differently
                re.compile(_whole(pattern))
            _compiled(pattern)
        except (re.error, regex.error, RecursionError, OverflowError, Warning) as error:
            raise ValueError(f"{shown(pattern)} is not a regular expression ({error})") from error


def values_of(modules: Iterable[str], by_pattern: Mapping[str, Any], default: Any) -> dict[str, Any]:
    """Return by module the value of the first pattern that matches it, like PEFT's get_pattern_key.

    Raises TimeoutError, naming the pattern, if that takes longer than SECONDS.
    """
    end, compiled = time.monotonic() + SECONDS, {pattern: _compiled(pattern) for pattern in by_pattern}

    def matches(pattern: str, module: str) -> bool:
        try:
            return compiled[pattern].match(module, timeout=max(end - time.monotonic(), 1e-3)) is not None
        except TimeoutError as error:
            raise TimeoutError(f"{shown(pattern)} takes too long to match with names of modules") from error

    found = {}
    for module in modules:
        pattern = next((pattern for pattern in by_pattern if matches(pattern, module)), None)
        found[module] = default if pattern is None else by_pattern[pattern]
    return found


def _whole(pattern: str) -> str:
    return rf"(.*\.)?({pattern})$"


def _compiled(pattern: str) -> Any:
    return regex.compile(_whole(pattern), regex.V0)
