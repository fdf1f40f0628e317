"""Find the kinds of methods by their files, and make methods from entries of params.yaml or stored settings."""

import inspect
import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from pemt_core.errors import SettingsError, nearest
from pemt_core.methods.method import Method
from pemt_core.schema.validation import merged, validate


@cache
def kinds() -> Mapping[str, type[Method]]:
    """Every kind by name, in alphabetical order."""
    package = __name__.rpartition(".")[0]
    files = [each.name for each in pkgutil.iter_modules([str(Path(__file__).parent)]) if not each.ispkg]
    modules = [import_module(f"{package}.{name}") for name in files]
    classes = [each for module in modules for each in vars(module).values() if _is_kind(each, module.__name__)]
    return {_name(each): each for each in sorted(classes, key=_name)}


def method_of(name: str, entry: Mapping[str, Any], shared: Mapping[str, Any], key: str) -> Method:
    """The method that an entry of `methods` describes; `key` names the entry in errors.

    Args:
        entry: `kind` (the method's name if absent) and what differs from `shared`.
        shared: the settings of the group `transfer`; a kind takes those of every method, and
            others that it has without a default.

    Raises:
        SettingsError: the kind or a setting is unknown, or a value is not what the kind expects.
    """
    kind = entry.get("kind", name)
    if not isinstance(kind, str) or kind not in kinds():
        hint = nearest(str(kind), kinds())
        missing = "" if "kind" in entry else f"; expected the key `kind`, as '{name}' is not a kind"
        raise SettingsError(f"{key}: there is no kind of method '{kind}'{missing}; {hint}")
    fields = kinds()[kind].model_fields
    for each in entry:
        if each in shared and each not in fields:
            raise SettingsError(f"{key}: key '{each}': the kind '{kind}' has no such setting; {nearest(each, fields)}")
    taken = {
        each: value
        for each, value in shared.items()
        if each in Method.model_fields or (each in fields and fields[each].is_required())
    }
    return validate(kinds()[kind], merged(taken, {**entry, "kind": kind}), key)


def stored_method(settings: Mapping[str, Any], origin: str) -> Method:
    """The method that an adapter was trained by, from the settings in its description."""
    return method_of("", settings, {}, origin)


def _is_kind(value: Any, module: str) -> bool:
    is_method = isinstance(value, type) and issubclass(value, Method) and not inspect.isabstract(value)
    return is_method and value.__module__ == module


def _name(kind: type[Method]) -> str:
    (name,) = kind.model_fields["kind"].annotation.__args__  # type: ignore[union-attr]  # Literal["name"]
    return str(name)
