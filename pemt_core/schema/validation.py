"""Validate values against the class of their group, with messages for users."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError

from pemt_core.errors import SettingsError, cut, nearest, shown
from pemt_core.schema.values import LARGEST_NUMBER

ModelType = TypeVar("ModelType", bound=BaseModel)

_MOST_PROBLEMS = 10  # that a message lists
_GROUP = ("dict_type", "model_type")  # types of pydantic's errors where a group is expected
_QUOTED = re.compile(r"'([^']*)'")
_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?(e[-+]?\d+)?", re.IGNORECASE)
_TRUTH = {"1": "true", "y": "true", "yes": "true", "on": "true", "true": "true",
          "0": "false", "n": "false", "no": "false", "off": "false", "false": "false"}  # fmt: skip
_MOST_COMPARED = 100  # unknown keys that may be a misspelling of a missing one


def merged(values: Mapping[str, Any], differences: Mapping[str, Any]) -> dict[str, Any]:
    """Merge `differences` over `values`, group by group."""
    result = dict(values)
    for key, value in differences.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def holds(values: Any, location: Sequence[str]) -> bool:
    """Whether nested `values` have a value at `location`, or one that is not a mapping on the way to it."""
    for part in location:
        if not isinstance(values, Mapping):
            return True
        if part not in values:
            return False
        values = values[part]
    return True


def validate(
    model: type[ModelType],
    values: Mapping[str, Any],
    origin: str,
    placed: Callable[[Sequence[str]], tuple[str, str]] | None = None,
) -> ModelType:
    """Parse `values` as a `model`. Raises SettingsError with the problems: the key, the value, what was expected.

    `placed` turns the parts of a key into the file that holds it and its name there; by default the file is `origin`.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        of_file: dict[str, list[str]] = {}
        problems = error.errors(include_url=False)
        for problem in problems[:_MOST_PROBLEMS]:
            file, line = _line(model, problem, placed or (lambda parts: (origin, ".".join(parts))))
            of_file.setdefault(file, []).append(line)
        files = [f"{file}: {'; '.join(dict.fromkeys(lines))}" for file, lines in of_file.items()]
        others = len(problems) - _MOST_PROBLEMS
        raise SettingsError("; ".join([*files, *([f"and {others:,} more problems"] if others > 0 else [])])) from error
    except RecursionError as error:
        raise SettingsError(f"{origin}: nested too deeply") from error


def _line(model: type[BaseModel], problem: Any, placed: Callable[[Sequence[str]], tuple[str, str]]) -> tuple[str, str]:
    """Describe one problem, after the file that has it: the key, what is wrong, the value, the nearest valid key."""
    location = [str(part) for part in problem["loc"] if part != "[key]"]
    file, key = placed([part for part in location if not part.startswith(("literal[", "constrained-", "function-"))])
    return file, _description(model, problem, location, f"{key}''" if key.endswith(".") else key)


def _description(model: type[BaseModel], problem: Any, location: list[str], key: str) -> str:
    of_name = "[key]" in problem["loc"]  # the key itself is wrong
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'; {nearest(location[-1], _fields_at(model, location[:-1]))}"
    if problem["type"] == "missing":
        siblings = problem["input"] if isinstance(problem["input"], dict) else {}
        unknown = [str(key) for key in siblings if key not in _fields_at(model, location[:-1])][:_MOST_COMPARED]
        match = difflib.get_close_matches(location[-1], unknown, n=1)
        return f"key '{key}' is missing" + (f"; is '{match[0]}' a misspelling of it?" if match else "")
    reason = _reason(problem)
    if of_name or isinstance(problem["input"], dict):
        return f"{key}: {reason}" if key else reason
    return f"key '{key}' is {shown(problem['input'])}: {reason}"


def _reason(problem: Any) -> str:
    if problem["type"] in _GROUP:
        return "expected a group of settings"
    if problem["type"] == "too_short":  # a list or a group
        found, least = problem["ctx"]["actual_length"], problem["ctx"]["min_length"]
        return f"expected at least {least} {'entry' if least == 1 else 'entries'}, found {found or 'none'}"
    if problem["type"] == "string_too_short":
        return "expected text that is not empty"
    return cut(problem["msg"].removeprefix("Value error, "), 500) + _remedy(problem)


def _remedy(problem: Any) -> str:
    """How to write in YAML what a wrong value seems to mean; empty if that is unclear."""
    kind, value, context = problem["type"], problem["input"], problem.get("ctx", {})
    if kind == "bool_type" and str(value).lower() in _TRUTH:
        return f", as in {_TRUTH[str(value).lower()]}"
    if kind in ("int_type", "float_type") and isinstance(value, str) and _NUMBER.fullmatch(value):
        return ", without quotes"
    if kind == "int_type" and isinstance(value, float) and value.is_integer() and abs(value) < LARGEST_NUMBER:
        return f", as in {int(value)}"
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f", as in '{shown(value).lower()}'"
    if kind == "list_type" and isinstance(value, bool | int | float | str):
        return f", as in [{cut(value) if isinstance(value, str) else shown(value)}]"
    if kind == "literal_error" and isinstance(value, str):
        hint = nearest(value, _QUOTED.findall(context["expected"]))
        return f"; {hint}" if hint.startswith("did you mean") else ""
    return ""


def _fields_at(model: type[BaseModel], location: list[str]) -> list[str]:
    """The valid keys at `location`; empty if it is not a group."""
    place: Any = model
    for part in location:
        if get_origin(place) is dict:  # groups under names that the user chose
            place = get_args(place)[1]
        else:
            field = place.model_fields.get(part) if _is_model(place) else None
            place = field and field.annotation
    return list(place.model_fields) if _is_model(place) else []


def _is_model(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, BaseModel)
