"""Label words: which ones a model can write and tell apart, and the words proposed instead."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from source_code import REPOSITORY
from tiny import World, write_corpus

from pemt_core.backbone.tokenizer import load_tokenizer, train_tokenizer
from pemt_core.data.prepared import TaskDescription, load_task_description, write_description
from pemt_core.labels import LabelError, check_label_words, check_labels, check_written
from pemt_core.preparation.prepare import describe
from pemt_core.tasks import TASKS


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


def test_labels_that_are_equal_when_cut_are_refused(tokenizer: Any) -> None:
    """An answer has at most `generation_length` tokens."""
    task = replace(task_of("unmistakably", "unmistakable"), generation_length=4)
    with pytest.raises(LabelError, match="cannot write the labels"):
        check_written(task, tokenizer)


def test_errors_name_the_users_labels(tokenizer: Any) -> None:
    task = task_of("½", "two", shown={"½": "half"})
    with pytest.raises(LabelError, match=r'cannot write the label "half" .*label_words: \{half: "1_2"\}'):
        check_written(task, tokenizer)
    blanks = task_of("a  b", "two", shown={"a  b": "good"})
    with pytest.raises(LabelError, match=r'the label "good" .*label_words: \{good: a b\}'):
        check_written(blanks, tokenizer)
    with pytest.raises(LabelError, match="choose other label words in the task's record"):
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
