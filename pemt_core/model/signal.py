"""The state that modules attached to a backbone share during one forward pass."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from jaxtyping import Bool, Float
from torch import Tensor, nn


class ForwardSignal:
    """Shared by all modules attached to one backbone. The gates' inputs exist only while a forward pass is open.

    The mixture of an encoder layer reads the mean of its input over the prompt; that of a decoder layer reads the mean
    of the encoder's output over the prompt. Both write their expert weights and, on request, their share of the task
    sparsity loss.
    """

    def __init__(self) -> None:
        self._prompt_mask: Tensor | None = None
        self._encoder_state: Tensor | None = None
        self.positions: Mapping[str, Tensor] = {}
        self.collects_sparsity = False
        self.sparsity: list[Tensor] = []
        self.expert_weights: dict[str, Tensor] = {}

    @contextmanager
    def open(
        self,
        prompt_mask: Bool[Tensor, "B P"],
        positions: Mapping[str, Bool[Tensor, "B _"]] | None = None,
    ) -> Iterator["ForwardSignal"]:
        """Give the attached modules the prompt positions of one pass (False: padding on the prompt's left).

        `positions` has, per stack, the positions that are not padding. If given, the sparsity loss is collected.
        """
        self._prompt_mask = prompt_mask
        self.positions = positions or {}
        self.collects_sparsity = positions is not None
        self.sparsity, self.expert_weights = [], {}
        try:
            yield self
        finally:
            self._prompt_mask = self._encoder_state = None
            self.positions = {}
            self.collects_sparsity = False
            self.sparsity = []

    def prompt_mean(self, x: Float[Tensor, "B S C"]) -> Float[Tensor, "B C"]:
        """The mean of x over each sequence's prompt positions, which come first. Raises RuntimeError without any."""
        if self._prompt_mask is None:
            raise RuntimeError("the backbone was called outside its PromptedT5, so there is no prompt to read")
        if not self._prompt_mask.shape[1]:
            raise RuntimeError("the model has no prompt to read: its P is 0")
        mask = self._prompt_mask.unsqueeze(-1).to(x.dtype)
        return (x[:, : mask.shape[1]] * mask).sum(1) / mask.sum(1)

    def encoder_hook(self, _module: nn.Module, _arguments: tuple[object, ...], output: object) -> None:
        """Forward hook for the encoder: keeps the prompt mean of its final output, if any, for the decoder's gates."""
        if self._prompt_mask is not None and not self._prompt_mask.shape[1]:
            return
        state = output[0] if isinstance(output, tuple) else output.last_hidden_state  # type: ignore[attr-defined]
        self._encoder_state = self.prompt_mean(state)

    def encoder_state(self, num_rows: int) -> Float[Tensor, "B D"]:
        """The encoder's prompt mean for `num_rows` decoder rows (several per sequence if beams were expanded)."""
        if self._encoder_state is None:
            raise RuntimeError("the decoder ran before the encoder: pass inputs through PromptedT5")
        return self._encoder_state.repeat_interleave(num_rows // len(self._encoder_state), dim=0)
