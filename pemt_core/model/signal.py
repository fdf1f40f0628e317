"""The state that modules attached to a backbone share during one forward pass."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

Part = Literal["prompt", "text"]  # of what is read before an answer


class Kept(NamedTuple):
    """What is kept of the positions that were read, for those that are generated next."""

    means: dict[nn.Module, Tensor]  # by gate, what it read
    sums: dict[str, tuple[Tensor, Tensor]]  # by layer, of weights per position, and their number


class ForwardSignal:
    """Shared by all modules attached to one backbone. The gates' inputs exist only while a forward pass is open.

    The published gate of an encoder layer reads the mean of its input over the prompt; that of a decoder layer reads
    the mean of the encoder's output over the prompt. In a decoder-only model, a gate reads its layer's input over the
    prompt, and keeps what it read while the answer continues. All write their expert weights and, on request, their
    share of the task sparsity loss.
    """

    def __init__(self) -> None:
        self._close()
        self.expert_weights: dict[str, Tensor] = {}  # by layer, as in "encoder.0": (B, E)

    def _close(self) -> None:
        self._prompt_mask: Tensor | None = None
        self._columns: slice | Tensor = slice(0)
        self._text: Tensor | None = None
        self._kept = Kept({}, {})
        self._encoder_state: Tensor | None = None
        self._encoder_means: dict[Part, Tensor] = {}
        self._decoder_ids: Tensor | None = None  # what the decoder reads in this call
        self._continues = False  # whether they continue those of the call before
        self.positions: Mapping[str, Tensor] = {}
        self.collects_sparsity = False
        self.sparsity: list[Tensor] = []

    @contextmanager
    def open(
        self,
        prompt_mask: Bool[Tensor, "B P"],
        positions: Mapping[str, Bool[Tensor, "B _"]] | None = None,
        *,
        columns: slice | Int[Tensor, "B P"] | None = None,
        text: Bool[Tensor, "B S"] | None = None,
        collects_sparsity: bool = False,
    ) -> Iterator["ForwardSignal"]:
        """Give the attached modules the prompt positions of one pass (False: padding on the prompt's left).

        Args:
            positions: per stack, those that are not padding; what a decoder generates is unknown.
            columns: where the prompt is in the stack that reads it; None: at the beginning.
            text: where the text is in that stack, without padding.
        """
        self._close()
        self._prompt_mask = prompt_mask
        self._columns = slice(prompt_mask.shape[1]) if columns is None else columns
        self._text = text
        self.positions = positions or {}
        self.collects_sparsity = collects_sparsity
        self.expert_weights = {}
        try:
            yield self
        finally:
            self._close()

    @contextmanager
    def counting(self, stack: str, positions: Bool[Tensor, "B _"]) -> Iterator[None]:
        """For one call of a stack, record the weights of these positions alone."""
        before, self.positions = self.positions, {**self.positions, stack: positions}
        try:
            yield
        finally:
            self.positions = before

    def prompt_mean(self, x: Float[Tensor, "B S C"]) -> Float[Tensor, "B C"]:
        """The mean of x over each sequence's prompt positions. Raises RuntimeError if there are none."""
        mask = _rows(self._open_prompt_mask(), len(x))
        if not mask.shape[1]:
            raise RuntimeError("the model has no prompt to read: its P is 0")
        weights = mask.unsqueeze(-1).to(x.dtype)
        if isinstance(self._columns, slice):
            read = x[:, self._columns]
        else:
            read = x.gather(1, _rows(self._columns, len(x)).unsqueeze(-1).expand(-1, -1, x.shape[-1]))
        return (read * weights).sum(1) / weights.sum(1)

    def text_mean(self, x: Float[Tensor, "B S C"]) -> Float[Tensor, "B C"]:
        """The mean of x over each sequence's text, without padding; over its prompt if it has no text."""
        if self._text is None:
            raise RuntimeError("the backbone was called outside its PromptedModel, so there is no text to read")
        text = _rows(F.pad(self._text, (0, x.shape[1] - self._text.shape[1])), len(x))
        weights = text.unsqueeze(-1).to(x.dtype)
        means = (x * weights).sum(1) / weights.sum(1).clamp_min(1)
        if not self._open_prompt_mask().shape[1] and bool(text.any(1).all()):  # a GPU waits here, but not with a prompt
            return means
        return torch.where(text.any(1, keepdim=True), means, self.prompt_mean(x))

    def prefix_mean(self, reader: nn.Module, part: Part, x: Float[Tensor, "B S C"]) -> Float[Tensor, "B C"]:
        """The mean of x over the prompt or the text, which `reader` keeps for the positions that are generated next."""
        if not self._continues:
            self._kept.means[reader] = self.text_mean(x) if part == "text" else self.prompt_mean(x)
        return _rows(self._kept.means[reader], len(x))

    def kept(self) -> Kept:
        """What is kept now: for `resume`, before another continuation of the same prefix."""
        return Kept(dict(self._kept.means), dict(self._kept.sums))

    def resume(self, kept: Kept) -> None:
        """Go back to what was kept when `kept` was called."""
        self._kept = Kept(dict(kept.means), dict(kept.sums))

    def _open_prompt_mask(self) -> Bool[Tensor, "B P"]:
        if self._prompt_mask is None:
            raise RuntimeError("the backbone was called outside its PromptedModel, so there is no prompt to read")
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
            raise RuntimeError("the decoder ran before the encoder: pass inputs through PromptedModel")
        if part not in self._encoder_means:
            mean = self.text_mean if part == "text" else self.prompt_mean
            self._encoder_means[part] = mean(self._encoder_state)
        return _rows(self._encoder_means[part], num_rows)

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
            before = [_rows(each, len(weights)) for each in self._kept.sums[layer]]
            total, number = before[0] + total, before[1] + number
        self._kept.sums[layer] = total, number
        self.expert_weights[layer] = total / number

    def _counted(self, stack: str) -> Bool[Tensor, "B S"]:
        if stack in self.positions and not (stack == "decoder" and self._continues):
            return self.positions[stack]
        if self._decoder_ids is None:
            raise RuntimeError("the decoder ran outside its PromptedModel")
        padding, end = self._endings
        counted = (self._decoder_ids != padding) & (self._decoder_ids != end)
        if not self._continues:
            counted[:, 0] = True  # T5 starts with the padding token
        return counted


def _rows(tensor: Tensor, num_rows: int) -> Tensor:
    """The tensor's rows, each repeated so that there are `num_rows`: beams and candidates are rows of their own."""
    return tensor if len(tensor) == num_rows else tensor.repeat_interleave(num_rows // len(tensor), dim=0)
