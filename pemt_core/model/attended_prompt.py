"""The prompt of ATTEMPT (Asai et al. 2022): an attention over prompts, computed from each text."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pemt_core.model.attachment import copied
from pemt_core.model.prompt import Prompt
from pemt_core.model.prompt_tuning import behind_prompt
from pemt_core.model.prompted import PromptedModel

ATTENTION_STD = 0.01
NORM_FLOOR = 1e-5  # torch's default, which the authors' layer norm has

Pooling = Literal["unpadded", "all"]


class AttendedPrompt(Prompt):
    """Q + sum_j a_j S_j over the E frozen source prompts S_j and Q itself, with weights a that depend on the text.

        h = LayerNorm(W_up SiLU(W_down max_t x_t))
        a = softmax_j(max_p S_j[p] . h / temperature)

    x are the text's embeddings; the maxima are per channel. Q is the trained prompt, and everything passes gradients
    to it. Without `scale` and `shift`, those of the layer norm stay 1 and 0.
    """

    sources: Tensor

    def __init__(
        self,
        vectors: Float[Tensor, "P D"],
        sources: Sequence[Float[Tensor, "P D"]],
        down: Float[Tensor, "R D"],
        up: Float[Tensor, "D R"],
        scale: Float[Tensor, " D"] | None = None,
        shift: Float[Tensor, " D"] | None = None,
        *,
        pooling: Pooling = "unpadded",
    ) -> None:
        """`pooling`: all: the maximum of a text counts its padding, as in the authors' code; unpadded: it does not."""
        super().__init__()
        self.vectors = nn.Parameter(vectors)
        self.register_buffer("sources", torch.stack(list(sources)), persistent=False)
        self.down, self.up = nn.Parameter(down), nn.Parameter(up)
        self.scale = None if scale is None else nn.Parameter(scale)
        self.shift = None if shift is None else nn.Parameter(shift)
        self.pooling = pooling
        self.temperature = math.floor(vectors.shape[1] * math.e)  # 2087 for t5-base, as in the authors' code

    def embed(
        self, text: Float[Tensor, "B T D"], mask: Int[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B P D"], Float[Tensor, "B T D"]]:
        with torch.autocast(text.device.type, enabled=False):  # the vectors of other prompts are in float32 too
            prompts = torch.cat([self.sources, self.vectors.unsqueeze(0)])
            weights = self.attention(text.to(prompts.dtype), mask, prompts)
            rows = self.vectors + torch.einsum("bk,kpd->bpd", weights, prompts)
        return rows.to(text.dtype), text

    def attention(
        self, text: Float[Tensor, "B T D"], mask: Int[Tensor, "B T"], prompts: Float[Tensor, "K P D"]
    ) -> Float[Tensor, "B K"]:
        """The weights of K prompts for every text."""
        if self.pooling == "unpadded":
            text = text.masked_fill(~mask.bool().unsqueeze(-1), -torch.inf)
        pooled = text.amax(1) if text.shape[1] else torch.zeros_like(text.sum(1))
        if self.pooling == "unpadded":  # some tokenizers make no token of an empty text
            pooled = pooled.masked_fill(~mask.bool().any(1, keepdim=True), 0.0)
        h = F.linear(F.silu(F.linear(pooled, self.down)), self.up)
        h = F.layer_norm(h, h.shape[-1:], self.scale, self.shift, eps=NORM_FLOOR)
        return (h @ prompts.amax(1).T / self.temperature).softmax(-1)


def initial_attention_tensors(
    d_model: int, *, bottleneck: int, trains_norm: bool, generator: torch.Generator
) -> dict[str, Tensor]:
    """What ATTEMPT trains beside its prompt, at step 0: W_down (R, D) and W_up (D, R) from N(0, 0.01), the norm."""
    shapes = {"attention.down": (bottleneck, d_model), "attention.up": (d_model, bottleneck)}
    tensors = {name: ATTENTION_STD * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    norm = {"attention.norm.scale": torch.ones(d_model), "attention.norm.shift": torch.zeros(d_model)}
    return tensors | (norm if trains_norm else {})


def build_attended_prompt_model(
    backbone: Any,
    tensors: Mapping[str, Tensor],
    sources: Sequence[Float[Tensor, "P D"]],
    *,
    pooling: Pooling = "unpadded",
) -> PromptedModel:
    """Build ATTEMPT from its trained tensors and the frozen source prompts."""
    copies = copied(tensors, backbone)
    frozen = copied({str(place): source for place, source in enumerate(sources)}, backbone)
    prompt = AttendedPrompt(
        copies["prompt"],
        list(frozen.values()),
        copies["attention.down"],
        copies["attention.up"],
        copies.get("attention.norm.scale"),
        copies.get("attention.norm.shift"),
        pooling=pooling,
    )
    named = {"prompt": prompt.vectors, "attention.down": prompt.down, "attention.up": prompt.up}
    norm = {"attention.norm.scale": prompt.scale, "attention.norm.shift": prompt.shift}
    trained = named | {name: parameter for name, parameter in norm.items() if parameter is not None}
    return behind_prompt(backbone, prompt, trained)
