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
from pemt_core.model.signal import ForwardSignal

MOST_POSITIONS = 64  # of candidates that are read side by side: their attention grows with the square


class EncoderDecoder(PromptedModel):
    """T5 and its relatives. In families whose texts begin with a BOS, it comes before the prompt."""

    def prefix(self, input_ids: Int[Tensor, "B T"], attention_mask: Int[Tensor, "B T"]) -> Prefix:
        rows, text = self.prompt.embed(self.backbone.get_input_embeddings()(input_ids), attention_mask)
        prompt_mask = self.prompt.mask(rows)
        first, is_first = beginning(self.backbone).expand(len(text), -1, -1), prompt_mask
        start, end = first.shape[1], first.shape[1] + rows.shape[1]
        first = torch.cat([first, rows], dim=1)
        if start:
            order, is_first = padded_left(F.pad(prompt_mask, (start, 0), value=True))
            first = first.gather(1, order.unsqueeze(-1).expand_as(first))
        mask = torch.cat([is_first, attention_mask.bool()], dim=1)
        text_mask = F.pad(attention_mask.bool(), (end, 0), value=False)
        return Prefix(torch.cat([first, text], dim=1), mask, prompt_mask, slice(start, end), text_mask)

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
        return EncodedRows(self.backbone, self.signal, state, mask)


class EncodedRows(ReadRows):
    """The encoder's output for B rows of S positions."""

    num_start_tokens = 1

    def __init__(
        self, backbone: Any, signal: ForwardSignal, state: Float[Tensor, "B S D"], mask: Int[Tensor, "B S"]
    ) -> None:
        super().__init__(backbone, mask)
        self.signal, self.state = signal, state

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
        if candidates.shape[1] == 1 or not family_of(self.backbone).has_relative_decoder:
            return self._in_rows(candidates)
        parts = candidates.split(max(1, MOST_POSITIONS // candidates.shape[2]), dim=1)
        return torch.cat([self._side_by_side(part) for part in parts], dim=1)

    def _side_by_side(self, candidates: Int[Tensor, "B C L"]) -> Float[Tensor, "B C"]:
        """Read all candidates of a row as one sequence, in which each sees itself alone.

        The keys and values of the encoder's output are then computed once per row, and not once per candidate. Layers
        with a gate per position show the weights of the first candidate.
        """
        num_rows, num_candidates, length = candidates.shape
        labels = candidates.flatten(0, 1)
        ids = self.backbone.prepare_decoder_input_ids_from_labels(labels=labels).view(num_rows, -1)
        sees = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
        hidden = ~torch.block_diag(*[sees] * num_candidates)
        mask = torch.zeros(hidden.shape, dtype=self.state.dtype, device=ids.device)
        mask = mask.masked_fill(hidden, torch.finfo(mask.dtype).min).expand(num_rows, 1, -1, -1)
        first = F.pad(candidates[:, 0] != IGNORED_LABEL, (0, ids.shape[1] - length), value=False)
        with self.signal.counting("decoder", first):
            logits = self.backbone(
                encoder_outputs=BaseModelOutput(last_hidden_state=self.state),
                attention_mask=self.mask,
                decoder_input_ids=ids,
                decoder_attention_mask=mask,
                use_cache=False,
            ).logits
        return sums_of_log_probabilities(logits.view(*labels.shape, -1), labels).view(num_rows, num_candidates)

    def _in_rows(self, candidates: Int[Tensor, "B C L"]) -> Float[Tensor, "B C"]:
        """Read every candidate as a row, with a copy of the encoder's output."""
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


def padded_left(mask: Bool[Tensor, "B S"]) -> tuple[Int[Tensor, "B S"], Bool[Tensor, "B S"]]:
    """For rows with padding anywhere: which position moves to each, so that padding is on the left, and the mask then.

    Padding becomes a copy of the first position.
    """
    order = mask.long().argsort(dim=1, stable=True)
    moved = mask.gather(1, order)
    return order * moved, moved


def sums_of_log_probabilities(logits: Float[Tensor, "N L V"], labels: Int[Tensor, "N L"]) -> Float[Tensor, " N"]:
    """log p of each row of labels; -100 is padding."""
    losses = F.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED_LABEL, reduction="none"
    )
    return -losses.view(labels.shape).sum(-1)
