"""Prompts: what is read beside the text, and how it changes the text's embeddings.

A task prompt is P vectors in front of the text (stage 1); its correlation-guided form serves stage 2.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Guide = Literal["sum", "mean"]


class Prompt(nn.Module):
    """What a method adds to what is read: a prompt (P, D), the same for every text.

    A prompt that depends on the text, or changes its embeddings, overrides `embed`.
    """

    def embed(
        self, text: Float[Tensor, "B T D"], mask: Int[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B P D"], Float[Tensor, "B T D"]]:
        """The rows in front of every text, and the text's embeddings; `mask` has ones where a text is not padding."""
        return self().to(text.dtype).unsqueeze(0).expand(len(text), -1, -1), text

    def mask(self, rows: Float[Tensor, "B P D"]) -> Bool[Tensor, "B P"]:
        """Which of the rows that `embed` returned are not padding, which is on their left."""
        return torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device)


class NoPrompt(Prompt):
    """The text alone: P = 0."""

    def embed(
        self, text: Float[Tensor, "B T D"], mask: Int[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B P D"], Float[Tensor, "B T D"]]:
        return text[:, :0], text


class TaskPrompt(Prompt):
    """P trained vectors that start as the embeddings of the task's description (method, stage 1)."""

    def __init__(self, vectors: Float[Tensor, "P D"]) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors)

    def forward(self) -> Float[Tensor, "P D"]:
        return self.vectors


class CorrelationGuidedPrompt(Prompt):
    """Q + w sum_k softmax(Q S_k^T) S_k: the target's prompt, guided by the frozen prompts of all E sources (stage 2).

    w is 1, as published, or 1/E for the mean: the sum grows with the sources, away from what the backbone reads.

    Attention is computed per source and summed, without scaling and with dropout on its probabilities. The sources'
    prompts differ in length, so they are padded and stacked once; padding gets no probability.
    """

    sources: Tensor
    is_padding: Tensor

    def __init__(
        self,
        vectors: Float[Tensor, "P D"],
        sources: Sequence[Float[Tensor, "_ D"]],
        *,
        dropout: float,
        guide: Guide = "sum",
    ) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors)
        self.divisor = len(sources) if guide == "mean" else 1
        longest = max(len(source) for source in sources)
        padding = torch.tensor([[row >= len(source) for row in range(longest)] for source in sources])
        self.register_buffer("sources", nn.utils.rnn.pad_sequence(list(sources), batch_first=True), persistent=False)
        self.register_buffer("is_padding", padding.to(vectors.device), persistent=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self) -> Float[Tensor, "P D"]:
        guidance = self.guidance(self.vectors)
        return self.vectors + (guidance if self.divisor == 1 else guidance / self.divisor)

    def guidance(self, vectors: Float[Tensor, "*G P D"]) -> Float[Tensor, "*G P D"]:
        """sum_k softmax(Q S_k^T) S_k for a prompt Q, or for several."""
        scores = torch.einsum("...pd,ekd->...epk", vectors, self.sources).float()
        scores = scores.masked_fill(self.is_padding.unsqueeze(1), -torch.inf)
        attention = self.dropout(scores.softmax(dim=-1)).to(self.sources.dtype)
        return torch.einsum("...epk,ekd->...pd", attention, self.sources)
