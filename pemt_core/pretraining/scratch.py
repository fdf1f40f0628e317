"""A small model of a named size, pretrained on the corpus, for machines without checkpoints."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from pemt_core.backbone.families import family_named, family_of
from pemt_core.backbone.tokenizer import NUM_SENTINELS
from pemt_core.data.batches import epoch_batches, length_batches
from pemt_core.data.corpus import read_corpus_table
from pemt_core.data.tokenized import IGNORED_LABEL, Ragged, TokenizedSplit
from pemt_core.errors import DataError, SettingsError
from pemt_core.pretraining.llama import new_llama
from pemt_core.pretraining.objectives import chunks, continuation, corrupt, followed, middle, noise_counts, noise_mask
from pemt_core.pretraining.t5 import new_t5
from pemt_core.settings import BackboneSettings
from pemt_core.training.course import Evaluation

SHORTEST = 4  # tokens; shorter texts teach nothing and are left out
VALIDATION_SHARE = 20  # one piece of text in this many is held out, to tell learning from memory
SMALLEST_RMS = 0.02  # the least factor of a tensor's learning rate


class Pretraining(nn.Module):
    """A whole model with the interface that the training loop expects: its loss and its trained tensors."""

    def __init__(self, model: Any, text_weight: float = 0.0) -> None:
        """A decoder-only model also learns the text before the target, with `text_weight`, in training alone."""
        super().__init__()
        self.model = model
        self.text_weight = 0.0 if family_of(model).has_encoder else text_weight
        self.trained: dict[str, nn.Parameter] = dict(model.named_parameters())

    def learning_rate_factors(self) -> dict[str, float]:
        """The root mean square of each tensor, by which Adafactor scales steps (Shazeer & Stern 2018, section 8).

        Embeddings start dozens of times as large as queries, so no single learning rate suits both.
        """
        return {
            name: max(tensor.detach().square().mean().sqrt().item(), SMALLEST_RMS)
            for name, tensor in self.trained.items()
        }

    def forward(self, **batch: Tensor) -> Any:
        output = self.model(**batch)
        if self.text_weight and self.training:
            text = batch["input_ids"].masked_fill(batch["labels"] != IGNORED_LABEL, IGNORED_LABEL)
            text = text.masked_fill(batch["attention_mask"] == 0, IGNORED_LABEL)[:, 1:]
            of_text = F.cross_entropy(output.logits[:, :-1].flatten(0, 1), text.flatten(), ignore_index=IGNORED_LABEL)
            output.loss = output.loss + self.text_weight * of_text
        return output


@dataclass(frozen=True)
class Piece:
    """Tokens of text, and which of them are hidden; None: the objectives choose."""

    ids: NDArray[np.int32]
    hidden: NDArray[np.bool_] | None = None


class PretrainingRows:
    """Training rows from pieces of text. Annotated spans are always hidden; other text is masked anew each epoch."""

    def __init__(self, pieces: list[Piece], tokenizer: Any, settings: BackboneSettings) -> None:
        self.pieces = pieces
        self.settings = settings
        self.pad_id: int = tokenizer.pad_token_id
        self.eos_id: int = tokenizer.eos_token_id
        self.has_encoder = family_named(settings.family).has_encoder
        self.sentinels = _sentinels(tokenizer, settings)

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        lengths = np.array([len(piece.ids) for piece in self.pieces])
        return epoch_batches(lengths, self.settings.training.batch_size, self.settings.seed, epoch)

    def collate(self, rows: NDArray[np.int64], epoch: int) -> dict[str, Tensor]:
        """Make rows that depend only on (seed, epoch, row), so that a resumed run sees the same ones."""
        pairs = [self._pair(int(row), epoch) for row in rows]
        if not self.has_encoder:
            pairs = [followed(*pair, bos_id=self.eos_id) for pair in pairs]
        split = TokenizedSplit(
            Ragged.of([pair[0] for pair in pairs]), Ragged.of([pair[1] for pair in pairs]), self.pad_id
        )
        return split.batch(np.arange(len(pairs)), self.settings.training.pad_to_multiple_of)

    def _pair(self, row: int, epoch: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        ids, hidden, settings = self.pieces[row].ids, self.pieces[row].hidden, self.settings
        if hidden is not None:
            first = int(hidden.argmax())
            if first and hidden[first:].all():
                return continuation(ids, first, self.eos_id)
            return corrupt(ids, hidden, self.sentinels, self.eos_id)
        generator = np.random.default_rng([settings.seed, epoch, row])
        if generator.random() < settings.continuation_share:
            return continuation(ids, middle(len(ids), generator), self.eos_id)
        mask = noise_mask(len(ids), settings.noise_density, settings.mean_span_length, generator)
        return corrupt(ids, mask, self.sentinels, self.eos_id)


def _sentinels(tokenizer: Any, settings: BackboneSettings) -> NDArray[np.int32]:
    """The ids of <extra_id_0> and so on. Raises an error if they are too few for a piece of text."""
    _, needed = noise_counts(settings.length, settings.noise_density, settings.mean_span_length)
    if needed > NUM_SENTINELS:
        raise SettingsError(
            f"backbone.length {settings.length} with noise_density {settings.noise_density:g} and mean_span_length "
            f"{settings.mean_span_length:g} makes {needed} spans, but there are {NUM_SENTINELS} sentinels: shorten it"
        )
    ids = tokenizer.convert_tokens_to_ids([f"<extra_id_{index}>" for index in range(NUM_SENTINELS)])
    if tokenizer.unk_token_id in ids:
        raise DataError(f"the tokenizer has no <extra_id_{ids.index(tokenizer.unk_token_id)}>: it cannot pretrain")
    return np.array(ids, dtype=np.int32)


def new_model(settings: BackboneSettings, tokenizer: Any) -> Any:
    """A model of the named family and size with random weights that follow the seed."""
    make = {"T5": new_t5, "Llama": new_llama}[settings.family]
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        return make(settings.size, tokenizer, settings.dropout)


def read_corpus(path: Path, tokenizer: Any, settings: BackboneSettings) -> tuple[PretrainingRows, PretrainingRows]:
    """Read the corpus as pieces for training and for validation, in one seeded order.

    If `packed`, a piece is `length` tokens of concatenated texts; otherwise it is one text cut at `length`.
    """
    texts = read_corpus_table(path)
    texts = texts.take(np.random.default_rng(settings.seed).permutation(len(texts)))
    encoded = tokenizer(texts["text"].to_pylist(), add_special_tokens=False, return_offsets_mapping=not settings.packed)
    rows = [np.asarray(row, dtype=np.int32) for row in encoded["input_ids"]]
    if settings.packed:
        pieces = [Piece(ids) for ids in chunks(rows, settings.length)]
    else:
        hidden = map(_hidden_tokens, encoded["offset_mapping"], texts["hidden"].to_pylist())
        pieces = [
            Piece(ids[: settings.length], mask if len(ids) <= settings.length else None)
            for ids, mask in zip(rows, hidden, strict=True)
            if len(ids) >= SHORTEST
        ]
    if len(pieces) <= VALIDATION_SHARE:
        raise DataError(
            f"{path}: {len(pieces)} pieces of {settings.length} tokens are too few to pretrain on; expected more than "
            f"{VALIDATION_SHARE}"
        )
    training = [piece for index, piece in enumerate(pieces) if index % VALIDATION_SHARE]
    bound = settings.training.validation_rows
    return (
        PretrainingRows(training, tokenizer, settings),
        PretrainingRows(pieces[::VALIDATION_SHARE][:bound], tokenizer, settings),
    )


def _hidden_tokens(offsets: list[tuple[int, int]], hidden: list[dict[str, int]]) -> NDArray[np.bool_] | None:
    """Which tokens end within a hidden part, by their character offsets; None if nothing is hidden."""
    mask = np.array([any(part["start"] < end <= part["end"] for part in hidden) for _, end in offsets])
    return mask if mask.any() else None


def validation_loss(model: Any, corpus: PretrainingRows, device: torch.device) -> Evaluation:
    """The mean cross-entropy per batch on the validation pieces; the score is its negative."""
    model.eval()
    lengths = np.array([len(piece.ids) for piece in corpus.pieces])
    losses = []
    with torch.no_grad():
        for rows in length_batches(lengths, corpus.settings.training.batch_size):
            batch = {name: tensor.to(device) for name, tensor in corpus.collate(rows, epoch=0).items()}
            losses.append(model(**batch).loss.item())
    loss = float(np.mean(losses))
    return Evaluation(score=-loss, metrics={"validation/loss": loss})
