"""Layers that torch.compile turns into kernels for the steps of a training; evaluations run them as they are."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from pemt_core.errors import SettingsError

BACKEND = "inductor"
GRAPHS_PER_LAYER = 32  # pairs of lengths, of texts and answers; layers run as they are for more
COMPILERS = ("g++", "clang++", "c++")  # which torch.compile calls

Call = TypeVar("Call", bound=Callable[..., Any])


@contextmanager
def compiled_layers(model: nn.Module, *, lengths_repeat: bool, backend: str | None = None) -> Iterator[None]:
    """Compile the layers of the model's transformer, one by one, for the block. `backend`: one of torch's.

    The first steps take minutes, as each layer has modules of its own, which are constants of its graph. If
    `lengths_repeat`, there are kernels for every length, else from the second length on for all lengths. Losses equal
    those of the layers as they are up to rounding. Raises SettingsError if the machine has no compiler.
    """
    if not any(map(shutil.which, COMPILERS)):
        expected = f"one of {', '.join(COMPILERS)}"
        raise SettingsError(
            f"training.compile is true, but torch needs a C++ compiler: install {expected}, or set false"
        )
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    limit = GRAPHS_PER_LAYER * max(1, len(layers))
    with torch._dynamo.config.patch(recompile_limit=limit, accumulated_recompile_limit=2 * limit):
        try:
            for layer in layers:
                layer.compile(backend=backend or BACKEND, dynamic=False if lengths_repeat else None)
            yield
        finally:
            for layer in layers:
                layer._compiled_call_impl = None
            torch.compiler.reset()


def uncompiled(call: Call) -> Call:
    """`call`, for which compiled layers run as they are: answers grow token by token, and need not fit a graph."""

    def run(*arguments: Any) -> Any:
        with torch.compiler.set_stance("force_eager"):
            return call(*arguments)

    return run  # type: ignore[return-value]
