"""Print what backbones of the embedded suite read: the share of questions on new texts that they answer.

    python benchmarks/reading.py [BACKBONE ...] [--texts 4000] [--seed 7]

BACKBONE is a folder, by default those in the repository. The texts are of the kind that these were pretrained on, drawn
with another seed. Where a text ends with a hidden answer, the backbone has to continue what is before it with exactly
this answer. Prints a Markdown table with a row for each kind of question.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from pemt_core.backbone.tokenizer import load_tokenizer
from pemt_core.data.corpus import corpus_table
from pemt_core.data.tokenized import IGNORED_LABEL
from pemt_core.embedded.text import plain_text
from pemt_core.pretraining.scratch import PretrainingRows, read_corpus
from pemt_core.settings import BackboneSettings, load_settings

REPOSITORY = Path(__file__).parents[1]
BACKBONES = [REPOSITORY / "pemt_core" / "embedded" / name for name in ("backbone", "decoder_backbone")]
KINDS = {  # of question, by its possible answers
    "does a claim follow from a story": ("Yes.", "No.", "Perhaps."),
    "do two questions ask for the same": ("The same.", "Another."),
    "does a story answer a question": ("An answer.", "No answer."),
    "is a review good": ("good", "bad"),
}
OTHER = "what a story says"
BATCH = 50


def answered(folder: Path, texts: Path) -> dict[str, list[bool]]:
    """For every question on the texts, by its kind, whether the backbone in a folder answers it."""
    config = AutoConfig.from_pretrained(folder)
    model_class = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model, tokenizer = model_class.from_pretrained(folder).eval(), load_tokenizer(str(folder))
    rows, _ = read_corpus(texts, tokenizer, _settings("T5" if config.is_encoder_decoder else "Llama"))
    places = np.array([place for place, piece in enumerate(rows.pieces) if _is_answered(piece.hidden)])
    found = defaultdict(list)
    for start in range(0, len(places), BATCH):
        batch = places[start : start + BATCH]
        for place, is_right in zip(batch, _right(model, rows, batch), strict=True):
            piece = rows.pieces[place]
            answer = tokenizer.decode(piece.ids[piece.hidden]).strip()
            found[next((kind for kind, words in KINDS.items() if answer in words), OTHER)].append(is_right)
    return found


def _settings(family: str) -> BackboneSettings:
    group = load_settings(REPOSITORY / "params.yaml").backbone
    return group.model_copy(update={"kind": "scratch", "family": family})


def _is_answered(hidden: Any) -> bool:
    """Whether what is hidden is the end of a text."""
    return hidden is not None and not hidden[0] and bool(hidden[int(hidden.argmax()) :].all())


def _right(model: Any, rows: PretrainingRows, places: Any) -> list[bool]:
    """Whether every token of an answer is the most probable one after those before it: then it would be generated."""
    batch = rows.collate(places, epoch=0)
    with torch.no_grad():
        logits, labels = model(**batch).logits, batch["labels"]
    if not model.config.is_encoder_decoder:  # a position predicts the next one
        logits, labels = logits[:, :-1], labels[:, 1:]
    right = (logits.argmax(-1) == labels) | (labels == IGNORED_LABEL)
    return [bool(row) for row in right.all(1)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", type=Path, nargs="*", metavar="BACKBONE", default=BACKBONES)
    parser.add_argument("--texts", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    with TemporaryDirectory() as temporary:
        texts = Path(temporary) / "texts.parquet"
        pq.write_table(corpus_table(plain_text(arguments.seed, arguments.texts)), texts)
        found = {folder: answered(folder, texts) for folder in arguments.backbones}
    print(f"| question | {' | '.join(folder.name for folder in found)} | texts |")
    print("| --- |" + " ---: |" * (len(found) + 1))
    for kind in (*KINDS, OTHER):
        shares = [f"{np.mean(of[kind]):.0%}".replace("%", " %") for of in found.values() if of[kind]]
        if shares:
            print(f"| {kind} | {' | '.join(shares)} | {len(next(iter(found.values()))[kind])} |")


if __name__ == "__main__":
    main()
