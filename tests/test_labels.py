"""Label words: which ones a model can write and tell apart, and the words proposed instead."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from source_code import REPOSITORY
from tiny import World, write_corpus
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from pemt_core.backbone.text_ids import answer_ids
from pemt_core.backbone.tokenizer import load_tokenizer, train_tokenizer
from pemt_core.data.prepared import PreparedTask, TaskDescription, load_task_description, write_description
from pemt_core.data.tokenized import answer_length
from pemt_core.labels import LabelError, check_label_words, check_labels, check_written
from pemt_core.preparation.prepare import describe
from pemt_core.preparation.statistics import token_lengths
from pemt_core.tasks import TASKS
from pemt_core.tasks.entry import OwnTask
from pemt_core.tasks.own import own_task


def task_of(*labels: str, suite: str = "Own", shown: dict[str, str] | None = None) -> TaskDescription:
    longest = max(8, *(len(label.encode()) + 2 for label in labels))
    return TaskDescription("emo", suite, "Decide which it is.", list(labels), ["accuracy"], longest, shown)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """The tokenizer of the kept backbone, trained on English with NFKC."""
    return load_tokenizer(str(REPOSITORY / "pemt_core" / "embedded" / "backbone"))


EQUAL: dict[str, tuple[list[str], str]] = {
    "composed and decomposed": (["café", "tea", "cafe\u0301"], r'"café" and "cafe\u0301" look the same'),
    "a blank of another kind": (["x y", "x\u00a0y"], r'"x y" and "x\xa0y" look the same'),
    "two blanks": (["x  y", "x y"], "look the same"),
    "no width": (["yes", "yes\u200b"], r'"yes" and "yes\u200b" look the same'),
    "a soft hyphen": (["co-op", "co\u00ad-op"], "look the same"),
    "a mark of direction": (["left", "left\u200e"], "look the same"),
    "a selector of variants": (["❤", "❤\ufe0f"], "look the same"),
    "wide letters": (["yes", "ｙｅｓ"], "look the same"),
    "invisible": (["yes", "\u2060"], r'"\u2060" cannot be seen'),
    "0 and 0.0": (["0", "1", "0.0", "1.0"], '"0" and "0.0"; "1" and "1.0" are one number'),
    "zeros in front": (["7", "007"], "are one number"),
    "exponents": (["10", "1e1", "x"], '"10" and "1e1" are one number'),
    "a sign": (["+1", "1"], "are one number"),
    "digits of another script": (["1", "١"], "are one number"),
}


@pytest.mark.parametrize("case", EQUAL)
def test_labels_that_look_the_same_or_are_one_number_are_refused(case: str, tokenizer: Any) -> None:
    """The proposal, applied, passes."""
    labels, expected = EQUAL[case]
    with pytest.raises(LabelError, match=re.escape(expected)) as caught:
        check_labels(task_of(*labels))
    assert "emo: the label" in str(caught.value)
    assert f"label_words: {caught.value.pasted}" in str(caught.value)
    words = [caught.value.words.get(label, label) for label in labels]
    check_labels(task_of(*words))
    if all(word.isascii() for word in words):
        check_written(task_of(*words), tokenizer)


@pytest.mark.parametrize(
    "labels",
    [
        ["Yes", "yes", "YES"],
        ["0", "1", "2.5", "1e400", "1e500"],
        ["1_0", "10"],
        ["12345678901234567890", "12345678901234567891"],  # one float
        ["nan", "NaN", "inf"],
        ["+", "-"],
        ["résumé", "resume"],
    ],
)
def test_labels_that_differ_are_accepted(labels: list[str]) -> None:
    check_labels(task_of(*labels))


UNWRITTEN: dict[str, tuple[list[str], str, dict[str, str]]] = {
    "changed by NFKC": (["m²", "CO₂", "½ done"], '"m²" (tokens ▁m 2 </s>, read back as "m2")',
                        {"m²": "m2", "CO₂": "CO2", "½ done": "1_2_done"}),
    "unknown signs": (["😀", "😡", "fine"], '"😀" (tokens ▁ <unk> </s>, read back as "")',
                      {"😀": "grinning_face", "😡": "pouting_face"}),
    "unknown letters": (["כן", "לא", "label1"], "<unk>", {"כן": "label2", "לא": "label3"}),
    "an accent": (["naïve", "other"], "<unk>", {"naïve": "naive"}),
    "a taken form": (["m²", "m2"], "read back", {"m²": "m_superscript_two"}),
    "two blanks": (["a  b", "c"], 'read back as "a  b"', {"a  b": "a b"}),
    "a special token": (["<pad>", "<extra_id_0>", "ok"], 'read back as ""',
                        {"<pad>": "pad", "<extra_id_0>": "extra_id_0"}),
}  # fmt: skip


@pytest.mark.parametrize("case", UNWRITTEN)
def test_labels_that_the_tokenizer_does_not_give_back_are_refused(case: str, tokenizer: Any) -> None:
    labels, expected, words = UNWRITTEN[case]
    looks_differ = case != "a taken form"
    with pytest.raises(LabelError, match=re.escape(expected)) as caught:
        (check_label_words if looks_differ else check_written)(task_of(*labels), tokenizer)
    assert caught.value.words == words
    check_label_words(task_of(*(words.get(label, label) for label in labels)), tokenizer)


def test_many_labels_are_named_in_part_and_proposed_in_whole(tokenizer: Any) -> None:
    labels = [chr(0x4E00 + n) for n in range(20)]
    with pytest.raises(LabelError, match="and 17 more; ") as caught:
        check_written(task_of(*labels), tokenizer)
    assert len(set(caught.value.words.values())) == len(labels)


def test_no_label_is_cut(tokenizer: Any) -> None:
    """An answer has at most `generation_length` tokens, or those of the longest label."""
    task = replace(task_of("unmistakably", "unmistakable"), generation_length=4)
    check_written(task, tokenizer)
    longest = max(len(ids) for ids in answer_ids(tokenizer, ["unmistakably", "unmistakable"]))
    assert answer_length(task, tokenizer) == longest > 4
    assert answer_length(replace(task, labels=None), tokenizer) == 4


@pytest.mark.parametrize("name", TASKS)
def test_byt5_writes_the_labels_of_every_task(name: str) -> None:
    """Byte by byte: none of its answers fits into T5's eight tokens."""
    task, byt5 = describe(TASKS[name]), ByT5Tokenizer()
    check_label_words(task, byt5)
    longest = max((len(label.encode()) + 1 for label in task.labels or []), default=0)
    assert answer_length(task, byt5) == max(longest, task.generation_length)


def test_errors_name_the_users_labels(tokenizer: Any) -> None:
    task = task_of("½", "two", shown={"½": "half"})
    with pytest.raises(LabelError, match=r'cannot write the label "half" .*label_words: \{half: "1_2"\}'):
        check_written(task, tokenizer)
    blanks = task_of("a  b", "two", shown={"a  b": "good"})
    with pytest.raises(LabelError, match=r'the label "good" .*label_words: \{good: a b\}'):
        check_written(blanks, tokenizer)
    with pytest.raises(
        LabelError, match=r"give other words in params\.yaml: prepare: \{label_words: \{emo: \{\"½\": \"1_2\"\}\}\}"
    ):
        check_written(task_of("½", "two", suite="GLUE"), tokenizer)


def test_checking_leaves_the_tokenizer_as_it_is(tokenizer: Any) -> None:
    before = tokenizer.backend_tokenizer.to_str()
    check_written(task_of("good", "bad"), tokenizer)
    assert tokenizer.backend_tokenizer.to_str() == before


@pytest.mark.parametrize("vocab_size", [None, 350, 2000])
def test_the_labels_of_all_tasks_can_be_written(tmp_path: Path, tokenizer: Any, vocab_size: int | None) -> None:
    """By the kept backbone, and by a tokenizer trained on another corpus and the tasks' texts, as `prepare` does."""
    if vocab_size is not None:
        texts = [text for task in TASKS.values() for text in (task.description, *(task.labels or ()))]
        tokenizer = train_tokenizer(write_corpus(tmp_path / "corpus.parquet"), vocab_size, texts)
    for task in TASKS.values():
        check_label_words(describe(task), tokenizer)


def test_both_stages_refuse_labels_that_the_backbone_cannot_write(world: World, tmp_path: Path) -> None:
    """Before anything is trained or written."""
    description = load_task_description(world.folder / "data" / "gamma")
    for split in ("train", "validation", "test"):
        (tmp_path / "data" / "gamma").mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / "gamma" / f"{split}.parquet").symlink_to(world.folder / f"data/gamma/{split}.parquet")
    write_description(tmp_path / "data" / "gamma", replace(description, labels=["red", "bleu\u0301"]))
    for part in ("backbone", "experts"):
        (tmp_path / part).symlink_to(world.folder / part)
    copy = World(tmp_path)
    for train in (copy.transfer, copy.train_source):
        with pytest.raises(LabelError, match=r'gamma: the backbone cannot write the label "bleu\\u0301"'):
            train(tmp_path / "adapters", task="gamma")
    assert not (tmp_path / "adapters").exists()
    assert not (tmp_path / "checkpoints").exists()


# --- byte-level tokenizers, as those of Llama, Qwen and SmolLM


def byte_level(*, unknown: bool, begins: bool) -> Any:
    """Bytes and the merges of a few words, with one special token for everything, and no EOS behind texts."""
    special = "<|endoftext|>"
    found = Tokenizer(models.BPE())
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=[special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    found.train_from_iterator(["Decide whether it is positive or negative, positive or negative."] * 9, trainer)
    if begins:
        found.post_processor = processors.TemplateProcessing(single=f"{special} $A", special_tokens=[(special, 0)])
    names = {"bos_token": special, "eos_token": special, **({"unk_token": special} if unknown else {})}
    return PreTrainedTokenizerFast(tokenizer_object=found, **names)


BYTE_LEVEL = [(unknown, begins) for unknown in (False, True) for begins in (False, True)]


@pytest.mark.parametrize(("unknown", "begins"), BYTE_LEVEL)
def test_a_byte_level_tokenizer_can_write_every_label(tmp_path: Path, unknown: bool, begins: bool) -> None:
    """SmolLM2's unknown token is its EOS, which closes every answer, and Llama's tokenizer begins with a BOS."""
    byte_level(unknown=unknown, begins=begins).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    check_written(task_of("positive", "negative", "m²", "שלום", "😀", "{a}", "a b"), tokenizer)
    assert answer_ids(tokenizer, ["positive"])[0][-1] == tokenizer.eos_token_id
    with pytest.raises(LabelError, match=re.escape('cannot write the label "<|endoftext|>"')) as caught:
        check_written(task_of("positive", "<|endoftext|>"), tokenizer)
    check_written(task_of("positive", *caught.value.words.values()), tokenizer)


@pytest.mark.parametrize(("unknown", "begins"), BYTE_LEVEL)
def test_the_longest_label_fits_byte_by_byte(tmp_path: Path, unknown: bool, begins: bool) -> None:
    """The length of answers follows from the bytes of the labels: a blank before and the EOS behind."""
    path = tmp_path / "rows.jsonl"
    words = ["zzzzqqqq", "ÄÖÜßäöü😀"]
    path.write_text("".join(json.dumps({"text": "x", "answer": word}) + "\n" for word in words), encoding="utf-8")
    entry = OwnTask.model_validate({
        "files": {"train": str(path)}, "text": {"text": "text"}, "target": "answer", "labels": words,
        "description": "Decide.", "metrics": ["accuracy"],
    })  # fmt: skip
    task = own_task("own", entry, tmp_path)
    tokenizer = byte_level(unknown=unknown, begins=begins)
    lengths = [len(ids) for ids in answer_ids(tokenizer, words)]
    assert max(lengths) == len(words[1].encode()) + 2 <= task.generation_length


@pytest.mark.parametrize(("unknown", "begins"), BYTE_LEVEL)
def test_lengths_count_what_the_model_reads(tmp_path: Path, world: World, unknown: bool, begins: bool) -> None:
    """A text has no closing token here, an answer has; the BOS belongs to the model."""
    tokenizer = byte_level(unknown=unknown, begins=begins)
    directory = world.folder / "data" / world.TARGET
    found = token_lengths([directory], tokenizer)[world.TARGET]["train"]
    rows = PreparedTask.load(directory).rows("train").to_pylist()
    plain = tokenizer.backend_tokenizer
    sources = [len(plain.encode(row["source"], add_special_tokens=False).ids) for row in rows]
    targets = [len(plain.encode(f" {row['target']}", add_special_tokens=False).ids) + 1 for row in rows]
    assert (found["source"]["max"], found["target"]["max"]) == (max(sources), max(targets))
