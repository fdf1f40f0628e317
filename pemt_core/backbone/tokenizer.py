"""The tokenizer: a checkpoint's, an installed package's, one from a folder, or one trained on the corpus."""

import string
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pemt_core.backbone.location import locate, one_line
from pemt_core.backbone.package import packaged_file
from pemt_core.errors import ArtifactError, DataError, SettingsError
from pemt_core.settings import TokenizerSettings

NUM_SENTINELS = 100  # of span corruption, as in T5
TASK_TEXT_WEIGHT = 1_000  # how often the text of a task counts
PROBE = "the first ten minutes"
PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
TRAINED = "train"  # the value of backbone.tokenizer that trains a new one


def obtain_tokenizer(settings: TokenizerSettings, corpus_path: Path, task_texts: Sequence[str] = ()) -> Any:
    """The tokenizer that `settings` name, or a new one trained on the texts of `corpus_path`.

    It keeps its chat template only if `settings` ask for it. Raises SettingsError if it has none then.
    """
    if settings.kind == "scratch" and settings.tokenizer == TRAINED:
        tokenizer = train_tokenizer(corpus_path, settings.vocab_size, task_texts)
    elif settings.kind == "scratch":
        tokenizer = fetch_tokenizer(settings.tokenizer)
    elif settings.kind == "package":
        file = packaged_file(settings.name)
        tokenizer = _read(file.folder, **file.options)
    else:
        tokenizer = fetch_tokenizer(settings.name, settings.revision)
    if settings.chat and not tokenizer.chat_template:
        raise SettingsError("backbone.chat is true, but the tokenizer has no chat template; set it to false")
    if not settings.chat:
        tokenizer.chat_template = None
    return tokenizer


def fetch_tokenizer(name: str, revision: str = "") -> Any:
    """Load a tokenizer from a folder, the hub, or the hub's cache if it is unreachable.

    Raises ArtifactError if it is missing, and DataError as `load_tokenizer` does.
    """
    try:
        location = locate(name, revision, cached=True)
    except ArtifactError as error:
        raise ArtifactError(f"tokenizer {error}") from error
    return _read(name, **location.options)


def load_tokenizer(directory: str | Path) -> Any:
    """Load a tokenizer from a folder. Raises DataError if it is missing, damaged, or cannot encode plain English."""
    if not Path(directory).is_dir():
        what = "is a file, expected a folder" if Path(directory).exists() else "no such folder"
        raise DataError(f"tokenizer '{directory}': {what}; the step that writes it has not run")
    return _read(str(directory), local_files_only=True)


def _read(name: str, **options: Any) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        probe = tokenizer(PROBE, add_special_tokens=False)["input_ids"]  # the unknown token can be the BOS too
    except Exception as error:  # transformers and tokenizers raise various types for a damaged file
        raise DataError(f"tokenizer '{name}': not readable as a tokenizer ({one_line(error)})") from error
    # without the vocabulary file, transformers silently returns a tokenizer with special tokens only
    if len(tokenizer) < 200 or (tokenizer.unk_token is not None and tokenizer.unk_token_id in probe):
        raise DataError(
            f"tokenizer '{name}': has {len(tokenizer)} tokens and cannot encode plain English; its files are incomplete"
        )
    if tokenizer.eos_token is None:
        raise DataError(f"tokenizer '{name}': has no EOS, with which answers end; set eos_token in its files")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token  # it is always masked
    return tokenizer


def tokenizer_content(tokenizer: Any) -> str:
    """All that determines the tokens of a text, without the padding and truncation of the last call."""
    chat = f"\n{tokenizer.chat_template}" if tokenizer.chat_template else ""
    if not tokenizer.is_fast:  # a tokenizer in Python, such as ByT5's
        names = tokenizer.special_tokens_map
        return repr([type(tokenizer).__name__, sorted(tokenizer.get_vocab().items()), sorted(names.items())]) + chat
    plain = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
    plain.no_padding()
    plain.no_truncation()
    content: str = plain.to_str()
    return content + chat


def train_tokenizer(corpus_path: Path, vocab_size: int, task_texts: Sequence[str] = ()) -> Any:
    """Train a byte-pair tokenizer with T5's special tokens and sentinels; equal corpora give equal tokenizers.

    The words of `task_texts` (labels, descriptions of tasks) become whole tokens even if the corpus lacks them.

    It does not use SentencePiece's unigram model, which T5 has: `tokenizers` trains it differently from run to run, and
    sentencepiece takes minutes on paragraphs (250 s for 9,000 texts, against half a second).
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    sentinels = [f"<extra_id_{index}>" for index in range(NUM_SENTINELS)]
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.normalizer = normalizers.NFKC()
    words_and_marks = pre_tokenizers.Split(Regex(r"▁?(?:[\p{L}\p{N}]+|[^\p{L}\p{N}▁]|▁)"), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(), words_and_marks])
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - NUM_SENTINELS,
        special_tokens=[PAD, EOS, UNK],
        initial_alphabet=sorted(string.digits + string.ascii_letters + string.punctuation),
        show_progress=False,
    )
    tokenizer.train_from_iterator(chain(_texts(corpus_path), [list(task_texts)] * TASK_TEXT_WEIGHT), trainer)
    tokenizer.add_special_tokens(sentinels)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, tokenizer.token_to_id(EOS))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        additional_special_tokens=sentinels,
        clean_up_tokenization_spaces=False,
    )


def _texts(corpus_path: Path) -> Iterator[list[str]]:
    with pq.ParquetFile(corpus_path) as file:
        for batch in file.iter_batches(columns=["text"]):
            yield batch.column("text").to_pylist()
