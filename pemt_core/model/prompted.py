"""A frozen backbone behind a task prompt: what all families share of the forward pass and of generation."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pemt_core.backbone.families import family_of
from pemt_core.model.attachment import Attachment
from pemt_core.model.frozen_products import frozen_products
from pemt_core.model.prompt import Prompt
from pemt_core.model.signal import ForwardSignal

MOST_LOGITS = 2**27  # of candidates that are scored at a time: 512 MiB in float32
IGNORED_LABEL = -100  # the label that transformers and torch ignore: padding


@dataclass
class PromptedOutput:
    """The output of a forward pass; training minimises `loss`."""

    loss: Float[Tensor, ""]
    lm_loss: Float[Tensor, ""]
    sparsity_loss: Float[Tensor, ""] | None
    logits: Float[Tensor, "B L V"]


class Prefix(NamedTuple):
    """What a model reads before an answer: prompt and text, S = P + T positions, or more with a BOS or two prompts."""

    embeddings: Float[Tensor, "B S D"]
    mask: Bool[Tensor, "B S"]  # False: padding
    prompt_mask: Bool[Tensor, "B P"]  # which positions of the prompt are real
    columns: slice | Int[Tensor, "B P"]  # where gates read the prompt
    text: Bool[Tensor, "B S"]  # where the text is


class ReadRows:
    """A batch of rows whose prefix is read, ready to be answered; valid while `PromptedModel.encoded` is open."""

    num_start_tokens: int  # of what `generate` returns, before the answer

    def __init__(self, backbone: Any, mask: Int[Tensor, "B S"] | Bool[Tensor, "B S"]) -> None:
        """`mask`: False or 0 where what was read is padding."""
        self.backbone, self.mask = backbone, mask
        self.num_rows, self.device = len(mask), mask.device

    def generate(self, **options: Any) -> Int[Tensor, "B L"]:
        """Call transformers' `generate` with `options`. It is greedy unless they say otherwise."""
        raise NotImplementedError

    def log_probabilities(self, candidates: Int[Tensor, "B C L"]) -> Float[Tensor, "B C"]:
        """log p(candidate | text) of C candidates per row, closing tokens included; -100 is padding.

        With a large vocabulary, candidates pass in several parts, so that their logits fit into memory.
        """
        one = self.num_rows * candidates.shape[2] * len(self.backbone.get_output_embeddings().weight)
        parts = candidates.split(max(1, MOST_LOGITS // one), dim=1)
        return torch.cat([self._log_probabilities(part) for part in parts], dim=1)

    def _log_probabilities(self, candidates: Int[Tensor, "B C L"]) -> Float[Tensor, "B C"]:
        raise NotImplementedError


class PromptedModel(nn.Module):
    """A backbone with attached modules, and a task prompt beside its text. A subclass knows how one is read.

    `trained` has every trained tensor by its name in artifacts: prompt, encoder.0.gate, and so on.
    """

    def __init__(
        self,
        backbone: nn.Module,
        prompt: Prompt,
        attachment: Attachment,
        signal: ForwardSignal,
        trained: Mapping[str, nn.Parameter],
        *,
        sparsity_coefficient: float = 0.0,
        penalty: Callable[[], Tensor] | None = None,
    ) -> None:
        """`penalty` is added to the loss as it is."""
        super().__init__()
        self.backbone: Any = backbone
        self.prompt: Prompt = prompt
        self.attachment = attachment
        self.signal = signal
        self.trained = dict(trained)
        self.sparsity_coefficient = sparsity_coefficient
        self.penalty = penalty
        self._hook()

    def __enter__(self) -> "PromptedModel":
        """Use this attached model for a block, and detach it at its end, however the block ends."""
        return self

    def __exit__(self, *raised: object) -> None:
        self.detach()

    def detach(self) -> nn.Module:
        """Detach every module, and return the backbone as it was."""
        self.attachment.detach()
        for hook in self._hooks:
            hook.remove()
        backbone: nn.Module = self.backbone
        return backbone

    @contextmanager
    def attached(self) -> Iterator["PromptedModel"]:
        """Attach a detached model for the block, so that several models can take turns on one backbone."""
        self.attachment.attach()
        try:
            self._hook()
            yield self
        finally:
            self.detach()

    def _hook(self) -> None:
        family = family_of(self.backbone)
        stacks = {each.name: self.backbone.get_submodule(each.layers.rpartition(".")[0]) for each in family.stacks}
        self._hooks = [stacks["decoder"].register_forward_pre_hook(self.signal.decoder_hook, with_kwargs=True)]
        if family.has_encoder:
            self._hooks.append(stacks["encoder"].register_forward_hook(self.signal.encoder_hook))

    def tensors(self) -> dict[str, Tensor]:
        """A copy on the CPU of every trained tensor, by its artifact name."""
        return {name: parameter.detach().cpu().clone().contiguous() for name, parameter in self.trained.items()}

    def num_trained_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.trained.values())

    def prefix(self, input_ids: Int[Tensor, "B T"], attention_mask: Int[Tensor, "B T"]) -> Prefix:
        """Prompt and text as the backbone reads them; the text is padded on its right."""
        raise NotImplementedError

    def logits(self, prefix: Prefix, labels: Int[Tensor, "B L"]) -> Float[Tensor, "B L V"]:
        """The logits of every label, given the prefix and the labels before it."""
        raise NotImplementedError

    def positions(self, prefix: Prefix, labels: Int[Tensor, "B L"]) -> dict[str, Bool[Tensor, "B _"]]:
        """Per stack, the positions over which means are taken while `logits` runs, as in `counted`."""
        raise NotImplementedError

    def counted(self, prefix: Prefix) -> Bool[Tensor, "B S"]:
        """The prefix's positions over which means are taken: all but padding."""
        return prefix.mask

    def read(self, prefix: Prefix) -> ReadRows:
        """Read the prefix, without gradients."""
        raise NotImplementedError

    def forward(
        self, input_ids: Int[Tensor, "B T"], attention_mask: Int[Tensor, "B T"], labels: Int[Tensor, "B L"]
    ) -> PromptedOutput:
        """Cross-entropy over the labels that are not -100, the sparsity loss times its coefficient, and the penalty."""
        prefix = self.prefix(input_ids, attention_mask)
        collects = self.sparsity_coefficient > 0
        with self.opened(prefix, self.positions(prefix, labels), collects_sparsity=collects) as signal:
            logits = self.logits(prefix, labels)
            sparsity = torch.stack(signal.sparsity).mean() if signal.sparsity else None
        lm_loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED_LABEL)
        loss = lm_loss if sparsity is None else lm_loss + self.sparsity_coefficient * sparsity
        loss = loss if self.penalty is None else loss + self.penalty()
        return PromptedOutput(loss, lm_loss, sparsity, logits)

    @contextmanager
    def encoded(self, input_ids: Int[Tensor, "B T"], attention_mask: Int[Tensor, "B T"]) -> Iterator[ReadRows]:
        """Read prompt and text, without gradients, for everything that the block does with these rows."""
        with torch.no_grad():
            prefix = self.prefix(input_ids, attention_mask)
            stack = family_of(self.backbone).stacks[0].name
            with self.opened(prefix, {stack: self.counted(prefix)}):
                yield self.read(prefix)

    def generate(
        self, input_ids: Int[Tensor, "B T"], attention_mask: Int[Tensor, "B T"], **options: Any
    ) -> Int[Tensor, "B L"]:
        """Call transformers' `generate` behind the prompt with `options`. It is greedy unless they say otherwise."""
        with self.encoded(input_ids, attention_mask) as rows:
            return rows.generate(**options)

    @contextmanager
    def opened(
        self, prefix: Prefix, positions: Mapping[str, Bool[Tensor, "B _"]], *, collects_sparsity: bool = False
    ) -> Iterator[ForwardSignal]:
        """Open a pass over this prefix; means are taken over `positions`, per stack."""
        opened = self.signal.open(
            prefix.prompt_mask,
            positions,
            columns=prefix.columns,
            text=prefix.text,
            collects_sparsity=collects_sparsity,
        )
        with opened as signal, self._computing():
            yield signal

    def _computing(self) -> AbstractContextManager[Any]:
        """A backbone in bfloat16 computes in bfloat16; what is trained beside it stays in float32."""
        reduced = self.backbone.dtype == torch.bfloat16
        return torch.autocast(self.backbone.device.type, torch.bfloat16) if reduced else frozen_products(self.backbone)
