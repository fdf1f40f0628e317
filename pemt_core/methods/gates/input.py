"""The published gate: each layer reads its input, or the encoder's output, at the prompt's positions."""

from pemt_core.model.gate import build, initial_weight

__all__ = ["build", "initial_weight"]
