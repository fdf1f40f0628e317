"""Methods as values: how a target is adapted, from its initial tensors to its model.

A file here that defines a subclass of `Method` is a kind of method; an entry of `methods` in params.yaml names a method
and says what it is. Training, evaluation, prediction, tracking and reports know the interface (method.py) and no kind.
Loading these files loads no torch: a kind imports the model where it builds one.
"""

from pemt_core.methods.method import Method
from pemt_core.methods.registry import kinds, method_of, stored_method

__all__ = ["Method", "kinds", "method_of", "stored_method"]
