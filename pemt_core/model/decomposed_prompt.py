"""The prompt of DePT (Shi and Lipani 2024): a short prompt, and a low-rank change of the text's embeddings."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pemt_core.model.attachment import copied
from pemt_core.model.prompt import TaskPrompt
from pemt_core.model.prompt_tuning import behind_prompt
from pemt_core.model.prompted import PromptedModel

PAIR_SCALE = 8.0  # over sqrt(r), as in the authors' code


class DecomposedPrompt(TaskPrompt):
    """P vectors in front of the text, whose embedding at position t becomes x_t + (8 / sqrt r) A[t] B.

    A position is counted from the text's start, so the result does not depend on padding, which is on the right.
    """

    def __init__(
        self, vectors: Float[Tensor, "P D"], by_position: Float[Tensor, "S R"], to_embedding: Float[Tensor, "R D"]
    ) -> None:
        """A is `by_position`, for the S positions of the longest text; B is `to_embedding`."""
        super().__init__(vectors)
        self.by_position, self.to_embedding = nn.Parameter(by_position), nn.Parameter(to_embedding)
        self.scale = PAIR_SCALE / math.sqrt(len(to_embedding))

    def embed(
        self, text: Float[Tensor, "B T D"], mask: Int[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B P D"], Float[Tensor, "B T D"]]:
        rows, _ = super().embed(text, mask)
        with torch.autocast(text.device.type, enabled=False):  # embeddings are in float32 too
            change = self.scale * self.by_position[: text.shape[1]] @ self.to_embedding
        beyond = text.shape[1] - len(change)  # texts are cut to S tokens, so only padding can be there
        return rows, text + F.pad(change, (0, 0, 0, beyond)).to(text.dtype)


def initial_pair_tensors(d_model: int, *, positions: int, rank: int, generator: torch.Generator) -> dict[str, Tensor]:
    """The pair at step 0: A (S, R) is Kaiming-uniform (a = sqrt 5), B (R, D) is zero, so it changes nothing."""
    by_position = torch.empty(positions, rank)
    nn.init.kaiming_uniform_(by_position, a=math.sqrt(5), generator=generator)
    return {"pair.a": by_position, "pair.b": torch.zeros(rank, d_model)}


def build_decomposed_prompt_model(backbone: Any, tensors: Mapping[str, Tensor]) -> PromptedModel:
    """Build DePT from the tensors `prompt`, `pair.a` and `pair.b`."""
    copies = copied(tensors, backbone)
    prompt = DecomposedPrompt(*(copies[name] for name in ("prompt", "pair.a", "pair.b")))
    trained = {"prompt": prompt.vectors, "pair.a": prompt.by_position, "pair.b": prompt.to_embedding}
    return behind_prompt(backbone, prompt, trained)
