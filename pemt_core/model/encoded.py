"""A batch of rows after the encoder, for generation and for the log-probabilities of given texts."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

IGNORED_LABEL = -100  # the label that transformers and torch ignore: padding


class EncodedRows:
    """The encoder's output for B rows of S = P + T positions; valid while `PromptedT5.encoded` is open."""

    def __init__(self, backbone: Any, state: Float[Tensor, "B S D"], mask: Int[Tensor, "B S"]) -> None:
        self.backbone, self.state, self.mask = backbone, state, mask

    @torch.no_grad()
    def generate(self, **options: Any) -> Int[Tensor, "B L"]:
        """Call transformers' `generate` with `options`. It is greedy unless they say otherwise."""
        stacks = self.backbone.encoder.block, self.backbone.decoder.block
        if len(stacks[0]) != len(stacks[1]) and options.get("use_cache", True):
            # transformers gives the cache as many layers as the encoder has, but this one grows
            options.setdefault("past_key_values", EncoderDecoderCache(DynamicCache(), DynamicCache()))
        outputs = BaseModelOutput(last_hidden_state=self.state)  # a new one each time: beams expand it in place
        ids: Tensor = self.backbone.generate(encoder_outputs=outputs, attention_mask=self.mask, **options)
        return ids

    @torch.no_grad()
    def log_probabilities(self, candidates: Int[Tensor, "B C L"]) -> Float[Tensor, "B C"]:
        """log p(candidate | text) of C candidates per row, closing tokens included; -100 is padding."""
        num_candidates, labels = candidates.shape[1], candidates.flatten(0, 1)
        logits = self.backbone(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.state.repeat_interleave(num_candidates, dim=0)),
            attention_mask=self.mask.repeat_interleave(num_candidates, dim=0),
            decoder_input_ids=self.backbone.prepare_decoder_input_ids_from_labels(labels=labels),
            use_cache=False,
        ).logits
        losses = F.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED_LABEL, reduction="none"
        )
        return -losses.view(candidates.shape).sum(-1)
