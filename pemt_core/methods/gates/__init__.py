"""The gates of a mixture, one file each: how a layer's expert weights are computed.

Each file defines `initial_weight` and `build`, the interface `Gates` of `pemt_core.model.gate`.
"""

import pkgutil
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from pemt_core.model.gate import Gates


@cache
def gate_modules() -> Mapping[str, str]:
    """The module of each gate by name. The modules are not loaded, because they need torch."""
    return {each.name: f"{__name__}.{each.name}" for each in pkgutil.iter_modules([str(Path(__file__).parent)])}


def gates(name: str) -> "Gates":
    """The gate with this name."""
    return cast("Gates", import_module(gate_modules()[name]))
