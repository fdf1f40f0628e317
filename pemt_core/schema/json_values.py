"""Read JSON within bounds: nothing takes long, and every error is one line."""

import json
from typing import Any, NoReturn

from pemt_core.errors import SettingsError, cut, shown
from pemt_core.schema.values import DEEPEST, check_values

MOST_BYTES = 2**22  # params.yaml and all recipes fit

_EXACT = 2**53  # floats below have no fraction only if they are whole


def parse_json(text: str, origin: str) -> Any:
    """Parse JSON; whole numbers become int, even if written as 1.0. Raises SettingsError, naming `origin`."""
    if len(text) > MOST_BYTES:
        raise SettingsError(f"{origin}: has more than {MOST_BYTES:,} characters, the most that settings may have")
    try:
        values = json.loads(text, parse_float=_number, parse_constant=_refused, object_pairs_hook=with_unique_keys)
    except RecursionError as error:
        raise SettingsError(
            f"{origin}: nested too deeply: expected at most {DEEPEST} objects and lists within one another"
        ) from error
    except ValueError as error:
        raise SettingsError(f"{origin}: not readable as JSON: {error}") from error
    check_values(values, origin)
    return values


def parse_object(text: str, origin: str) -> dict[str, Any]:
    """Parse a JSON object as `parse_json` does. Raises SettingsError if it is not one."""
    values = parse_json(text, origin)
    if not isinstance(values, dict):
        raise SettingsError(f"{origin}: expected groups of settings, found {type(values).__name__}")
    return values


def _number(text: str) -> int | float:
    """Parse a number; Kubeflow writes every number as a float."""
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < _EXACT else number


def _refused(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def with_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a JSON object of its pairs, in linear time. Raises ValueError if a key occurs twice."""
    values = dict(pairs)
    if len(values) < len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {cut(shown(repeated))} occurs twice in an object")
    return values
