"""Methods as values: how a target is adapted, from its initial tensors to its model.

Each file here with a subclass of `Method` is a kind of method; an entry of `methods` in params.yaml defines a method of
some kind. Training, evaluation, prediction, tracking and reports know only the interface (method.py), not the kinds.
These files load without torch: a kind imports the model code when it builds a model.
"""

from pemt_core.methods.method import Method
from pemt_core.methods.registry import kinds, method_of, stored_method

__all__ = ["Method", "kinds", "method_of", "stored_method"]
