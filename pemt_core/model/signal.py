"""The state that modules attached to a backbone share during one forward pass."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

Part = Literal["prompt", "text"]  # of the encoder's positions


class ForwardSignal:
    """Shared by all modules attached to one backbone. The gates' inputs exist only while a forward pass is open.

    The published gate of an encoder layer reads the mean of its input over the prompt; that of a decoder layer reads
    the mean of the encoder's output over the prompt. Both write their expert weights and, on request, their share of
    the task sparsity loss.
    """

    def __init__(self) -> None:
        self._close()
        self.expert_weights: dict[str, Tensor] = {}  # by layer, as in "encoder.0": (B, E)

    def _close(self) -> None:
        self._prompt_mask: Tensor | None = None
        self._encoder_state: Tensor | None = None
        self._encoder_means: dict[Part, Tensor] = {}
        self._decoder_ids: Tensor | None = None  # what the decoder reads in this call
        self._continues = False  # whether they continue those of the call before
        self._sums: dict[str, tuple[Tensor, Tensor]] = {}  # of weights per position, and their number
        self.positions: Mapping[str, Tensor] = {}
        self.collects_sparsity = False
        self.sparsity: list[Tensor] = []

    @contextmanager
    def open(
        self,
        prompt_mask: Bool[Tensor, "B P"],
        positions: Mapping[str, Bool[Tensor, "B _"]] | None = None,
        *,
        collects_sparsity: bool = False,
    ) -> Iterator["ForwardSignal"]:
        """Give the attached modules the prompt positions of one pass (False: padding on the prompt's left).

        `positions` has, per stack, the positions that are not padding; the decoder's are unknown in generation.
        """
        self._close()
        self._prompt_mask = prompt_mask
        self.positions = positions or {}
        self.collects_sparsity = collects_sparsity
        self.expert_weights = {}
        try:
            yield self
        finally:
            self._close()

    def prompt_mean(self, x: Float[Tensor, "B S C"]) -> Float[Tensor, "B C"]:
        """The mean of x over each sequence's prompt positions, which come first. Raises RuntimeError without any."""
        mask = self._open_prompt_mask()
        if not mask.shape[1]:
            raise RuntimeError("the model has no prompt to read: its P is 0")
        weights = mask.unsqueeze(-1).to(x.dtype)
        return (x[:, : weights.shape[1]] * weights).sum(1) / weights.sum(1)

    def text_mean(self, x: Float[Tensor, "B S C"]) -> Float[Tensor, "B C"]:
        """The mean of x over each sequence's text, without padding; over its prompt if it has no text."""
        prompt = F.pad(self._open_prompt_mask(), (0, x.shape[1] - self._open_prompt_mask().shape[1]))
        text = self.positions["encoder"].clone()
        text[:, : self._open_prompt_mask().shape[1]] = False
        weights = torch.where(text.any(1, keepdim=True), text, prompt).unsqueeze(-1).to(x.dtype)
        return (x * weights).sum(1) / weights.sum(1)

    def _open_prompt_mask(self) -> Bool[Tensor, "B P"]:
        if self._prompt_mask is None:
            raise RuntimeError("the backbone was called outside its PromptedT5, so there is no prompt to read")
        return self._prompt_mask

    def encoder_hook(self, _module: nn.Module, _arguments: tuple[object, ...], output: object) -> None:
        """Forward hook for the encoder: keeps its final output, and the prompt mean, for the decoder's gates."""
        state = output[0] if isinstance(output, tuple) else output.last_hidden_state  # type: ignore[attr-defined]
        self._encoder_state = state
        self._encoder_means = {"prompt": self.prompt_mean(state)} if self._open_prompt_mask().shape[1] else {}

    def encoder_mean(self, part: Part, num_rows: int) -> Float[Tensor, "B D"]:
        """The mean of the encoder's output over the prompt, or over the text as in `text_mean`.

        It is for `num_rows` decoder rows, which are several per sequence if beams were expanded.
        """
        if self._encoder_state is None:
            raise RuntimeError("the decoder ran before the encoder: pass inputs through PromptedT5")
        if part not in self._encoder_means:
            mean = self.text_mean if part == "text" else self.prompt_mean
            self._encoder_means[part] = mean(self._encoder_state)
        return self._encoder_means[part].repeat_interleave(num_rows // len(self._encoder_state), dim=0)

    def decoder_hook(self, module: Any, _arguments: tuple[object, ...], options: dict[str, Any]) -> None:
        """Forward pre-hook for the decoder: keeps its input, from which `record` finds the padding in generation."""
        cache = options.get("past_key_values")
        self._decoder_ids, self._continues = options.get("input_ids"), bool(cache and cache.get_seq_length())
        self._endings = module.config.pad_token_id, module.config.eos_token_id

    def record(self, stack: str, layer: str, weights: Float[Tensor, "B E"] | Float[Tensor, "B S E"]) -> None:
        """Keep a layer's expert weights: of those per position, each row's mean over what is not padding.

        In generation, this is the mean over all steps up to now, and a row's steps after its end do not count. Rows
        must keep their order: with beams, a mean mixes what the beams at its place read.
        """
        if weights.ndim == 2:
            self.expert_weights[layer] = weights
            return
        counted = self._counted(stack).unsqueeze(-1)
        total, number = (weights * counted).sum(1), counted.sum(1)
        if stack == "decoder" and self._continues:
            before = self._sums[layer]
            total, number = before[0] + total, before[1] + number
        self._sums[layer] = total, number
        self.expert_weights[layer] = total / number

    def _counted(self, stack: str) -> Bool[Tensor, "B S"]:
        if stack in self.positions:
            return self.positions[stack]
        if self._decoder_ids is None:
            raise RuntimeError("the decoder ran outside its PromptedT5")
        padding, end = self._endings
        counted = (self._decoder_ids != padding) & (self._decoder_ids != end)
        if not self._continues:
            counted[:, 0] = True  # T5 starts with the padding token
        return counted
