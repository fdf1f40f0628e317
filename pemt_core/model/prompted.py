"""A frozen T5 behind a task prompt: the forward pass and generation that both stages share."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from pemt_core.model.attachment import Attachment
from pemt_core.model.encoded import IGNORED_LABEL, EncodedRows
from pemt_core.model.prompt import Prompt
from pemt_core.model.signal import ForwardSignal


@dataclass
class PromptedOutput:
    """The output of a forward pass; training minimises `loss`."""

    loss: Float[Tensor, ""]
    lm_loss: Float[Tensor, ""]
    sparsity_loss: Float[Tensor, ""] | None
    logits: Float[Tensor, "B L V"]


class PromptedT5(nn.Module):
    """A backbone with attached modules, and a task prompt in front of its text.

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

    def __enter__(self) -> "PromptedT5":
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
    def attached(self) -> Iterator["PromptedT5"]:
        """Attach a detached model for the block, so that several models can take turns on one backbone."""
        self.attachment.attach()
        try:
            self._hook()
            yield self
        finally:
            self.detach()

    def _hook(self) -> None:
        encoder, decoder = (self.backbone.get_submodule(stack) for stack in ("encoder", "decoder"))
        self._hooks = (
            encoder.register_forward_hook(self.signal.encoder_hook),
            decoder.register_forward_pre_hook(self.signal.decoder_hook, with_kwargs=True),
        )

    def tensors(self) -> dict[str, Tensor]:
        """A copy on the CPU of every trained tensor, by its artifact name."""
        return {name: parameter.detach().cpu().clone().contiguous() for name, parameter in self.trained.items()}

    def num_trained_parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.trained.values())

    def prepend_prompt(
        self, input_ids: Int[Tensor, "B T"], attention_mask: Int[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B S D"], Int[Tensor, "B S"], Bool[Tensor, "B P"]]:
        """Embeddings and attention mask of prompt and text (S = P + T), and which prompt positions are real."""
        rows, text = self.prompt.embed(self.backbone.get_input_embeddings()(input_ids), attention_mask)
        prompt_mask = torch.ones(rows.shape[:2], dtype=torch.bool, device=text.device)
        mask = torch.cat([prompt_mask.to(attention_mask.dtype), attention_mask], dim=1)
        return torch.cat([rows, text], dim=1), mask, prompt_mask

    def forward(
        self, input_ids: Int[Tensor, "B T"], attention_mask: Int[Tensor, "B T"], labels: Int[Tensor, "B L"]
    ) -> PromptedOutput:
        """Cross-entropy over the labels that are not -100, the sparsity loss times its coefficient, and the penalty."""
        embeddings, mask, prompt_mask = self.prepend_prompt(input_ids, attention_mask)
        positions = {"encoder": mask.bool(), "decoder": labels != IGNORED_LABEL}
        with self.signal.open(prompt_mask, positions, collects_sparsity=self.sparsity_coefficient > 0) as signal:
            logits = self.backbone(
                inputs_embeds=embeddings,
                attention_mask=mask,
                decoder_input_ids=self.backbone.prepare_decoder_input_ids_from_labels(labels=labels),
                use_cache=False,
            ).logits
            sparsity = torch.stack(signal.sparsity).mean() if signal.sparsity else None
        lm_loss = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED_LABEL)
        loss = lm_loss if sparsity is None else lm_loss + self.sparsity_coefficient * sparsity
        loss = loss if self.penalty is None else loss + self.penalty()
        return PromptedOutput(loss, lm_loss, sparsity, logits)

    @contextmanager
    def encoded(self, input_ids: Int[Tensor, "B T"], attention_mask: Int[Tensor, "B T"]) -> Iterator[EncodedRows]:
        """Run the encoder once, without gradients, for everything that the block does with these rows."""
        with torch.no_grad():
            embeddings, mask, prompt_mask = self.prepend_prompt(input_ids, attention_mask)
            with self.signal.open(prompt_mask, {"encoder": mask.bool()}):
                state = self.backbone.encoder(inputs_embeds=embeddings, attention_mask=mask).last_hidden_state
                yield EncodedRows(self.backbone, state, mask)

    def generate(
        self, input_ids: Int[Tensor, "B T"], attention_mask: Int[Tensor, "B T"], **options: Any
    ) -> Int[Tensor, "B L"]:
        """Call transformers' `generate` behind the prompt with `options`. It is greedy unless they say otherwise."""
        with self.encoded(input_ids, attention_mask) as rows:
            return rows.generate(**options)
