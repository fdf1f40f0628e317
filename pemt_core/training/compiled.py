"""Layers that torch.compile turns into kernels for the steps of a training; evaluations run them as they are."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

BACKEND = "inductor"
GRAPHS_PER_LAYER = 8  # lengths of rows for which a layer may be compiled anew, before its lengths become variables

Call = TypeVar("Call", bound=Callable[..., Any])


@contextmanager
def compiled_layers(model: nn.Module, backend: str | None = None) -> Iterator[None]:
    """Compile the layers of the model's transformer, one by one, for the block. `backend`: one of torch's.

    The first steps take minutes, as each layer has modules of its own, which are constants of its graph. Losses equal
    those of the layers as they are up to rounding.
    """
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    with torch._dynamo.config.patch(recompile_limit=GRAPHS_PER_LAYER * max(1, len(layers))):
        try:
            for layer in layers:
                layer.compile(backend=backend or BACKEND)
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
