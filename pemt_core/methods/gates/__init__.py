"""The gates of a mixture, one file each: how the experts of a layer are weighted, or mixed altogether.

Each file defines `initial_tensors` and `build`, which also get the settings, and may define `penalty`: the fields of
`pemt_core.model.gate.Gates`.
"""

import pkgutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path


@cache
def gate_modules() -> Mapping[str, str]:
    """The module of each gate by name. The modules are not loaded, because they need torch."""
    return {each.name: f"{__name__}.{each.name}" for each in pkgutil.iter_modules([str(Path(__file__).parent)])}
