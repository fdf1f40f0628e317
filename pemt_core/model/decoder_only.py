"""A prompted decoder-only model: it reads the prefix of text and prompt, and continues with the answer.

With a causal mask, a prompt in front of the text sees nothing of it, so the gates would be the same for every text.
The layouts, `backbone.config.prompt_layout`, put it elsewhere:

    behind: [text ; prompt] answer           gates read the prompt; the text does not see it
    both:   [prompt ; text ; prompt] answer  the same vectors twice; gates read the second
    front:  [prompt ; text] answer           gates read the prompt, and are static: an ablation

A BOS comes before all. Such models put far more weight on their first position than on any other ("attention sink"),
so it is neither a prompt's nor a text's. Texts are padded on the left, so that a row alone equals the row in a batch.
"""

import copy
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from pemt_core.model.encoder_decoder import beginning, padded_left, sums_of_log_probabilities
from pemt_core.model.prompted import IGNORED_LABEL, Prefix, PromptedModel, ReadRows
from pemt_core.model.signal import ForwardSignal, Kept


class DecoderOnly(PromptedModel):
    """Llama and its relatives."""

    def prefix(self, input_ids: Int[Tensor, "B T"], attention_mask: Int[Tensor, "B T"]) -> Prefix:
        layout = self.backbone.config.prompt_layout
        rows, text = self.prompt.embed(self.backbone.get_input_embeddings()(input_ids), attention_mask)
        before = beginning(self.backbone).expand(len(text), -1, -1)
        in_front = rows if layout in ("front", "both") else rows[:, :0]
        behind = rows if layout != "front" else rows[:, :0]
        prompt_mask, num_prompt = self.prompt.mask(rows), rows.shape[1]
        is_prompt = [prompt_mask[:, : part.shape[1]] for part in (in_front, behind)]
        is_read = torch.cat(
            [F.pad(is_prompt[0], (before.shape[1], 0), value=True), attention_mask.bool(), is_prompt[1]], dim=1
        )
        sizes = before.shape[1] + in_front.shape[1], behind.shape[1]
        is_text = F.pad(attention_mask.bool(), sizes, value=False)
        order, mask = padded_left(is_read)
        read = torch.cat([before, in_front, text, behind], dim=1)
        read = read.gather(1, order.unsqueeze(-1).expand_as(read))
        columns: slice | Tensor = slice(read.shape[1] - num_prompt, read.shape[1])
        if layout == "front":
            padding = (~mask).sum(1, keepdim=True) - (~prompt_mask).sum(1, keepdim=True)
            columns = (padding + before.shape[1] + torch.arange(num_prompt, device=text.device)).clamp_min(0)
        return Prefix(read, mask, prompt_mask, columns, is_text.gather(1, order) & mask)

    def logits(self, prefix: Prefix, labels: Int[Tensor, "B L"]) -> Float[Tensor, "B L V"]:
        answers = self.backbone.get_input_embeddings()(_read_labels(labels, self.backbone.config.pad_token_id))
        mask = torch.cat([prefix.mask, _is_read(labels)], dim=1)
        logits: Tensor = self.backbone(
            inputs_embeds=torch.cat([prefix.embeddings, answers.to(prefix.embeddings.dtype)], dim=1),
            attention_mask=mask.long(),
            position_ids=_position_ids(mask),
            logits_to_keep=_last(labels.shape[1], mask.device),
            use_cache=False,
        ).logits
        return logits

    def positions(self, prefix: Prefix, labels: Int[Tensor, "B L"]) -> dict[str, Bool[Tensor, "B _"]]:
        return {"decoder": torch.cat([self.counted(prefix), _is_read(labels)], dim=1)}

    def counted(self, prefix: Prefix) -> Bool[Tensor, "B S"]:
        """Neither padding nor the BOS, whose activations are of another scale."""
        return prefix.mask & (prefix.mask.cumsum(1) > 1)

    def read(self, prefix: Prefix) -> "PrefixRows":
        return PrefixRows(self.backbone, self.signal, prefix)


class PrefixRows(ReadRows):
    """B rows whose prefix of S positions is read when it is needed."""

    num_start_tokens = 0

    def __init__(self, backbone: Any, signal: ForwardSignal, prefix: Prefix) -> None:
        super().__init__(backbone, prefix.mask)
        self.signal, self.prefix = signal, prefix

    @torch.no_grad()
    def generate(self, **options: Any) -> Int[Tensor, "B L"]:
        if options.get("num_beams", 1) == 1:  # for beams, transformers repeats tensors
            options["logits_to_keep"] = _last(1, self.mask.device)
        ids: Tensor = self.backbone.generate(
            inputs_embeds=self.prefix.embeddings, attention_mask=self.prefix.mask.long(), **options
        )
        return ids

    @torch.no_grad()
    def _log_probabilities(self, candidates: Int[Tensor, "B C L"]) -> Float[Tensor, "B C"]:
        """All candidates continue the cache of one pass over the prefix."""
        mask, num_candidates, labels = self.mask, candidates.shape[1], candidates.flatten(0, 1)
        read, kept = self._read
        first = read.logits.repeat_interleave(num_candidates, dim=0)
        if labels.shape[1] == 1:
            return sums_of_log_probabilities(first, labels).view(candidates.shape[:2])
        self.signal.resume(kept)
        cache = copy.deepcopy(read.past_key_values)
        cache.batch_repeat_interleave(num_candidates)
        whole = torch.cat([mask.repeat_interleave(num_candidates, dim=0), _is_read(labels)], dim=1)
        rest = self.backbone(
            input_ids=_read_labels(labels, self.backbone.config.pad_token_id),
            attention_mask=whole.long(),
            position_ids=_position_ids(whole)[:, mask.shape[1] :],
            past_key_values=cache,
            use_cache=True,
        ).logits
        return sums_of_log_probabilities(torch.cat([first, rest], dim=1), labels).view(candidates.shape[:2])

    @cached_property
    def _read(self) -> tuple[Any, Kept]:
        """The logits at the last position of the prefix with its cache, and what gates keep of it."""
        output = self.backbone(
            inputs_embeds=self.prefix.embeddings,
            attention_mask=self.prefix.mask.long(),
            position_ids=_position_ids(self.prefix.mask),
            logits_to_keep=_last(1, self.mask.device),
            use_cache=True,
        )
        return output, self.signal.kept()


def _last(count: int, device: torch.device) -> Int[Tensor, " {count}"]:
    """The last `count` positions, as indices.

    By the number alone, transformers slices the hidden states, which then are not contiguous, and torch multiplies them
    with a copy of the output layer for every row: in bfloat16 on a CPU that was half of a step of SmolLM2.
    """
    return torch.arange(-count, 0, device=device)


def _read_labels(labels: Int[Tensor, "B L"], padding: int) -> Int[Tensor, "B L-1"]:
    """The tokens of the answers that the model reads, with `padding` behind the shorter ones."""
    return labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED_LABEL, padding)


def _is_read(labels: Int[Tensor, "B L"]) -> Bool[Tensor, "B L-1"]:
    """An answer's token is read if another follows."""
    return labels[:, 1:] != IGNORED_LABEL


def _position_ids(mask: Bool[Tensor, "B S"]) -> Int[Tensor, "B S"]:
    """Positions that count only what is not padding, as transformers' `generate` does."""
    return (mask.long().cumsum(1) - 1).clamp_min(0)
