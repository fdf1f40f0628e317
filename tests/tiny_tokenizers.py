"""Small tokenizers like those of decoder-only models: bytes, no unknown token, and no EOS behind a text."""

from pathlib import Path
from typing import Any

from pemt_core.backbone.tokenizer import load_tokenizer

SENTENCES = [f"The first ten minutes of day {n} were positive, negative or red and blue; decide!" for n in range(40)]


def byte_tokenizer(folder: Path, *, bos: bool = False, pad: bool = False) -> Any:
    """Train byte-level BPE, with a BOS that it puts before every text, or a token for padding, and read it back.

    Without a token for padding, the EOS takes its place, as in SmolLM2.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|end|>", *(["<|begin|>"] if bos else []), *(["<|pad|>"] if pad else [])]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin|> $A", special_tokens=[("<|begin|>", tokenizer.token_to_id("<|begin|>"))]
        )
    names = {"eos_token": "<|end|>"} | ({"bos_token": "<|begin|>"} if bos else {})
    names |= {"pad_token": "<|pad|>"} if pad else {}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names).save_pretrained(
        folder
    )
    return load_tokenizer(folder)
