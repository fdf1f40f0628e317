"""A prompted encoder-decoder: the encoder reads [prompt ; text], and the decoder writes the answer."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from pemt_core.backbone.families import family_of
from pemt_core.model.prompted import IGNORED_LABEL, Prefix, PromptedModel, ReadRows


class EncoderDecoder(PromptedModel):
    """T5 and its relatives. In families whose texts begin with a BOS, it comes before the prompt."""

    def prefix(self, input_ids: Int[Tensor, "B T"], attention_mask: Int[Tensor, "B T"]) -> Prefix:
        rows, text = self.prompt.embed(self.backbone.get_input_embeddings()(input_ids), attention_mask)
        prompt_mask = torch.ones(rows.shape[:2], dtype=torch.bool, device=text.device)
        before = beginning(self.backbone).expand(len(text), -1, -1)
        start, end = before.shape[1], before.shape[1] + rows.shape[1]
        mask = F.pad(attention_mask.bool(), (end, 0), value=True)
        text_mask = F.pad(attention_mask.bool(), (end, 0), value=False)
        return Prefix(torch.cat([before, rows, text], dim=1), mask, prompt_mask, slice(start, end), text_mask)

    def logits(self, prefix: Prefix, labels: Int[Tensor, "B L"]) -> Float[Tensor, "B L V"]:
        logits: Tensor = self.backbone(
            inputs_embeds=prefix.embeddings,
            attention_mask=self._attention_mask(prefix.mask),
            decoder_input_ids=self.backbone.prepare_decoder_input_ids_from_labels(labels=labels),
            use_cache=False,
        ).logits
        return logits

    def _attention_mask(self, mask: Bool[Tensor, "B S"]) -> Bool[Tensor, "B 1 1 S"] | Int[Tensor, "B S"]:
        """The mask as transformers reads it: with two dimensions, a GPU would wait while it looks for padding."""
        return mask[:, None, None] if mask.is_cuda and broadcasts_masks(self.backbone) else mask.long()

    def positions(self, prefix: Prefix, labels: Int[Tensor, "B L"]) -> dict[str, Bool[Tensor, "B _"]]:
        return {"encoder": prefix.mask, "decoder": labels != IGNORED_LABEL}

    def read(self, prefix: Prefix) -> "EncodedRows":
        mask = prefix.mask.long()
        encoder = self.backbone.get_encoder()
        state = encoder(inputs_embeds=prefix.embeddings, attention_mask=mask).last_hidden_state
        return EncodedRows(self.backbone, state, mask)


class EncodedRows(ReadRows):
    """The encoder's output for B rows of S positions."""

    num_start_tokens = 1

    def __init__(self, backbone: Any, state: Float[Tensor, "B S D"], mask: Int[Tensor, "B S"]) -> None:
        super().__init__(backbone, mask)
        self.state = state

    @torch.no_grad()
    def generate(self, **options: Any) -> Int[Tensor, "B L"]:
        sizes = [len(self.backbone.get_submodule(stack.layers)) for stack in family_of(self.backbone).stacks]
        if sizes[0] != sizes[1] and options.get("use_cache", True):
            # transformers gives the cache as many layers as the encoder has, but this one grows
            options.setdefault("past_key_values", EncoderDecoderCache(DynamicCache(), DynamicCache()))
        outputs = BaseModelOutput(last_hidden_state=self.state)  # a new one each time: beams expand it in place
        ids: Tensor = self.backbone.generate(encoder_outputs=outputs, attention_mask=self.mask, **options)
        return ids

    @torch.no_grad()
    def _log_probabilities(self, candidates: Int[Tensor, "B C L"]) -> Float[Tensor, "B C"]:
        num_candidates, labels = candidates.shape[1], candidates.flatten(0, 1)
        logits = self.backbone(
            encoder_outputs=BaseModelOutput(last_hidden_state=self.state.repeat_interleave(num_candidates, dim=0)),
            attention_mask=self.mask.repeat_interleave(num_candidates, dim=0),
            decoder_input_ids=self.backbone.prepare_decoder_input_ids_from_labels(labels=labels),
            use_cache=False,
        ).logits
        return sums_of_log_probabilities(logits, labels).view(candidates.shape[:2])


def broadcasts_masks(backbone: Any) -> bool:
    """Whether all attentions take a mask of the keys alone: there are no windows, and torch's own attention runs."""
    return family_of(backbone).broadcasts_masks and backbone.config._attn_implementation == "sdpa"


def beginning(backbone: Any) -> Float[Tensor, "1 _ D"]:
    """The embedding of the BOS with which texts begin, or no position in a family without."""
    count, embedding = int(family_of(backbone).starts_with_bos), backbone.get_input_embeddings()
    bos = backbone.config.bos_token_id if count else 0
    vectors: Tensor = embedding(torch.full((1, count), bos, device=embedding.weight.device))  # no copy from the CPU
    return vectors


def sums_of_log_probabilities(logits: Float[Tensor, "N L V"], labels: Int[Tensor, "N L"]) -> Float[Tensor, " N"]:
    """log p of each row of labels; -100 is padding."""
    losses = F.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED_LABEL, reduction="none"
    )
    return -losses.view(labels.shape).sum(-1)
