"""The target adapter: a bottleneck with a skip connection, after the mixture in every layer."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

STD = 0.01  # of an adapter's weights at step 0


class TargetAdapter(nn.Module):
    """y = h + W_up gelu_new(W_down h + b_down) + b_up (method, stage 2). W_down is D/16 x D in the paper."""

    def __init__(self, d_model: int, bottleneck: int) -> None:
        super().__init__()
        self.down = nn.Linear(d_model, bottleneck)
        self.up = nn.Linear(bottleneck, d_model)

    def forward(self, h: Float[Tensor, "B S D"]) -> Float[Tensor, "B S D"]:
        adapted: Tensor = h + self.up(F.gelu(self.down(h), approximate="tanh"))
        return adapted


def initial_adapter(key: str, d_model: int, bottleneck: int, generator: torch.Generator) -> dict[str, Tensor]:
    """An adapter at step 0, `key`.{down,up}.{weight,bias}: weights from N(0, 0.01), biases 0."""
    tensors = {}
    for name, shape in (("down", (bottleneck, d_model)), ("up", (d_model, bottleneck))):
        tensors[f"{key}.{name}.weight"] = STD * torch.randn(shape, generator=generator)
        tensors[f"{key}.{name}.bias"] = torch.zeros(shape[0])
    return tensors


def adapter_of(tensors: Mapping[str, Tensor], key: str) -> tuple[TargetAdapter, dict[str, nn.Parameter]]:
    """The adapter that has the tensors below `key` as its parameters, and these by name."""
    bottleneck, d_model = tensors[f"{key}.down.weight"].shape
    adapter = TargetAdapter(d_model, bottleneck)
    names = [name for name, _ in adapter.named_parameters()]
    adapter.load_state_dict({name: tensors[f"{key}.{name}"] for name in names}, assign=True)
    return adapter, {f"{key}.{name}": adapter.get_parameter(name) for name in names}


class AdaptedOutput(nn.Module):
    """The target adapter after a plain `wo`, for stage 2 without sources."""

    def __init__(self, base_layer: nn.Linear, adapter: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.adapter = adapter

    @property
    def weight(self) -> Tensor:
        return self.base_layer.weight

    def forward(self, x: Float[Tensor, "B S F"]) -> Float[Tensor, "B S D"]:
        adapted: Tensor = self.adapter(self.base_layer(x))
        return adapted
