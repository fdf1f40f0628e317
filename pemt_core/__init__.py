"""Parameter-efficient multi-task transfer (PEMT; Lin et al., Findings of ACL 2024, arXiv 2402.15082).

load(["cb", "rte"])                     trained targets of the project in the working directory
load("models:/pemt-cb@champion")        a registered model
load("folder")                          the folder of a model
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pemt_core.prediction.load import load

__all__ = ["__version__", "load"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `load` when it is first used, so that importing the package does not import torch."""
    if name != "load":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    return import_module("pemt_core.prediction.load").load
