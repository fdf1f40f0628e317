"""The 23 task records: the conversion of a raw row of each dataset, the text functions and the registry."""

import subprocess
import sys
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from pemt_core.errors import SettingsError
from pemt_core.tasks import SOURCES, TARGETS, TASKS, get_task
from pemt_core.tasks.pairs import DroppedRowError, TextPair
from pemt_core.tasks.split_rules import Share
from pemt_core.tasks.text import (
    highlights_to_sentences,
    mark_noun_and_pronoun,
    mark_span,
    pad_punctuation,
    remove_html,
    round_score,
)
from pemt_core.tasks.values import RowError

QA_ROW: dict[str, Any] = {
    "context": "The U.S. Constitution (1787) isn't long.",
    "question": "When was it written?",
}
MRQA_ROW = QA_ROW | {"subset": "any", "qid": "abc", "answers": ["U.S. (1787)", "1787", "1787"]}
QA_SOURCE = "question: When was it written ? context: The U . S . Constitution ( 1787 ) isn ' t long ."

# task: a row in the dataset's schema, source, target, references (None: only the target), key, group
EXAMPLES: dict[str, tuple[dict[str, Any], str, str, tuple[str, ...] | None, str, str]] = {
    "mnli": (
        {"premise": "It rains.", "hypothesis": "It is dry.", "label": 2, "idx": 7},
        "premise: It rains. hypothesis: It is dry.", "contradiction", None, "7", "",
    ),
    "qnli": (
        {"question": "Who won?", "sentence": "Ann won.", "label": 0, "idx": 3},
        "question: Who won? sentence: Ann won.", "entailment", None, "3", "",
    ),
    "qqp": (
        {"question1": "Why?", "question2": "How come?", "label": 1, "idx": 0},
        "question1: Why? question2: How come?", "duplicate", None, "0", "",
    ),
    "sst2": (
        {"sentence": "a gem of a film ", "label": 1, "idx": 5},
        "sentence: a gem of a film", "positive", None, "5", "",
    ),
    "squad": (
        QA_ROW | {"id": "56be", "title": "Law", "answers": {"text": ["1787", "in 1787."], "answer_start": [23, 20]}},
        QA_SOURCE, "1787", ("1787", "in 1787 ."), "56be", "",
    ),
    "record": (
        {
            "passage": "Ann met Bob.\n@highlight\nAnn is tall\n@highlight\nBob is not",
            "query": "@placeholder is short.", "entities": ["Ann", "Bob"],
            "entity_spans": {"text": [], "start": [], "end": []},
            "answers": ["Bob", "Robert"], "idx": {"passage": 4, "query": 9},
        },
        "record query: @placeholder is short. entities: Ann, Bob passage: Ann met Bob. Ann is tall. Bob is not",
        "Bob", ("Bob", "Robert"), "4-9", "4-9",
    ),
    "cola": ({"sentence": "Him ran.", "label": 0, "idx": 1}, "sentence: Him ran.", "unacceptable", None, "1", ""),
    "stsb": (
        {"sentence1": "A cat.", "sentence2": "A dog.", "label": 2.75, "idx": 2},
        "sentence1: A cat. sentence2: A dog.", "2.8", None, "2", "",
    ),
    "mrpc": (
        {"sentence1": "He left.", "sentence2": "He went.", "label": 1, "idx": 2},
        "sentence1: He left. sentence2: He went.", "equivalent", None, "2", "",
    ),
    "rte": (
        {"sentence1": "Ann sleeps.", "sentence2": "Ann runs.", "label": 1, "idx": 2},
        "sentence1: Ann sleeps. sentence2: Ann runs.", "not_entailment", None, "2", "",
    ),
    "multirc": (
        {
            "paragraph": "<b>Sent 1: </b>Ann ran.<br><b>Sent 2: </b>She won.<br/>", "question": "Who ran?",
            "answer": "Ann", "idx": {"paragraph": 1, "question": 2, "answer": 3}, "label": 1,
        },
        "question: Who ran? answer: Ann paragraph: Sent 1: Ann ran. Sent 2: She won.", "True", None, "1-2-3", "1-2",
    ),
    "boolq": (
        {"question": "is it so", "passage": "It is so.", "label": 1, "idx": 8},
        "question: is it so passage: It is so.", "True", None, "8", "",
    ),
    "wic": (
        {
            "word": "bank", "sentence1": "A river bank.", "sentence2": "A bank lends.",
            "start1": 8, "start2": 2, "end1": 12, "end2": 6, "idx": 0, "label": 0,
        },
        "sentence1: A river bank. sentence2: A bank lends. word: bank", "False", None, "0", "",
    ),
    "wsc": (
        {
            "text": "Mark told Pete many lies. He should have been wiser.", "span1_index": 0, "span2_index": 5,
            "span1_text": "mark", "span2_text": "He", "idx": 4, "label": 1,
        },
        "text: * Mark * told Pete many lies. # He # should have been wiser.", "True", None, "4", "",
    ),
    "cb": (
        {"premise": "I doubt it rains.", "hypothesis": "it rains", "label": 1, "idx": 6},
        "premise: I doubt it rains. hypothesis: it rains", "contradiction", None, "6", "",
    ),
    "nq": (MRQA_ROW, QA_SOURCE, "U . S . ( 1787 )", ("U . S . ( 1787 )", "1787"), "abc", ""),
    "hotpotqa": (MRQA_ROW, QA_SOURCE, "U . S . ( 1787 )", ("U . S . ( 1787 )", "1787"), "abc", ""),
    "searchqa": (MRQA_ROW, QA_SOURCE, "U . S . ( 1787 )", ("U . S . ( 1787 )", "1787"), "abc", ""),
    "newsqa": (MRQA_ROW, QA_SOURCE, "U . S . ( 1787 )", ("U . S . ( 1787 )", "1787"), "abc", ""),
    "winogrande": (
        {"sentence": "Ann beat Eva, so _ won.", "option1": "Ann", "option2": "Eva", "answer": "1"},
        "sentence: Ann beat Eva, so _ won. option1: Ann option2: Eva", "Ann", None, "", "",
    ),
    "yelp": ({"text": "Cold food.", "label": 0}, "sentence: Cold food.", "negative", None, "", ""),
    "scitail": (
        {"gold_label": "neutral", "sentence1": "Cells divide.", "sentence2": "Cells eat."},
        "premise: Cells divide. hypothesis: Cells eat.", "neutral", None, "", "",
    ),
    "paws": (
        {"id": 12, "sentence1": "From A to B .", "sentence2": "From B to A .", "label": 0},
        "sentence1: From A to B . sentence2: From B to A .", "not_paraphrase", None, "12", "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TASKS)
def test_row_becomes_text_pair(name: str) -> None:
    row, source, target, references, key, group = EXAMPLES[name]
    task = get_task(name)
    assert set(task.columns) <= set(row)
    pair = task.conversion.pair(row)
    assert pair == TextPair(source, target, references or (target,), key, group)
    if task.labels is not None:
        assert pair.target in task.labels


# The labels in the class order of each dataset's documentation, and the metrics of the task table.
LABELS_AND_METRICS = {
    "mnli": ("entailment neutral contradiction", "accuracy"),
    "qnli": ("entailment not_entailment", "accuracy"),
    "qqp": ("not_duplicate duplicate", "accuracy f1"),
    "sst2": ("negative positive", "accuracy"),
    "squad": (None, "qa_f1 qa_em qa_f1_first qa_em_first"),
    "record": (None, "qa_f1 qa_em"),
    "cola": ("unacceptable acceptable", "matthews"),
    "stsb": (None, "pearson spearman"),
    "mrpc": ("not_equivalent equivalent", "accuracy f1"),
    "rte": ("entailment not_entailment", "accuracy"),
    "multirc": ("False True", "multirc_f1 multirc_em"),
    "boolq": ("False True", "accuracy"),
    "wic": ("False True", "accuracy"),
    "wsc": ("False True", "accuracy"),
    "cb": ("entailment contradiction neutral", "accuracy macro_f1"),
    "nq": (None, "qa_f1 qa_em qa_f1_first qa_em_first"),
    "hotpotqa": (None, "qa_f1 qa_em qa_f1_first qa_em_first"),
    "searchqa": (None, "qa_f1 qa_em qa_f1_first qa_em_first"),
    "newsqa": (None, "qa_f1 qa_em qa_f1_first qa_em_first"),
    "winogrande": (None, "accuracy"),
    "yelp": ("negative positive", "accuracy"),
    "scitail": ("entailment neutral", "accuracy"),
    "paws": ("not_paraphrase paraphrase", "accuracy"),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_row_without_its_answer_has_the_same_text(name: str) -> None:
    conversion = get_task(name).conversion
    row, text, *_ = EXAMPLES[name]
    assert conversion.source({column: row[column] for column in conversion.inputs}) == text


@pytest.mark.parametrize("name", TASKS)
def test_labels_metrics_and_lengths(name: str) -> None:
    task = get_task(name)
    labels, metrics = LABELS_AND_METRICS[name]
    assert " ".join(task.metrics) == metrics
    assert task.labels == (None if labels is None else tuple(labels.split()))
    assert task.generation_length == (8 if labels is not None or name == "stsb" else 128)
    assert task.caps == ({"train": 100_000} if name == "yelp" else {})
    assert task.description.endswith(".")
    assert len(task.description.split()) > 8


def test_registry() -> None:
    assert list(TASKS)[:6] == list(SOURCES) == ["mnli", "qnli", "qqp", "sst2", "squad", "record"]
    assert len(TASKS) == 23
    assert list(TASKS) == [*SOURCES, *TARGETS]
    assert all(name == task.name for name, task in TASKS.items())
    assert len({task.description for task in TASKS.values()}) == 23
    assert [task.suite for task in TASKS.values()].count("source") == 6


def test_split_rules_follow_the_table() -> None:
    rules = {name: task.splits.name for name, task in TASKS.items()}
    small = {"cola", "mrpc", "stsb", "rte", "multirc", "boolq", "wic", "wsc", "cb", "scitail"}
    assert {name for name, rule in rules.items() if rule == "small"} == small
    assert {name for name, rule in rules.items() if rule == "own"} == {"mnli", "paws"}
    mnli = get_task("mnli").splits
    assert (mnli.validation.split, mnli.test.split) == ("validation_mismatched", "validation_matched")
    assert get_task("yelp").splits.test.split == "test"
    assert get_task("qnli").splits.validation.share is Share.HELD_OUT
    units = {name: task.splits.unit.path for name, task in TASKS.items() if task.splits.unit}
    passage = ("context",)
    assert units == dict.fromkeys(("squad", "nq", "hotpotqa", "searchqa", "newsqa"), passage) | {
        "record": ("idx", "passage"),
        "multirc": ("idx", "question"),
    }


def test_unknown_task_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"'multi_rc'.*did you mean 'multirc'\?"):
        get_task("multi_rc")


def test_records_import_without_the_heavy_libraries() -> None:
    heavy = ("torch", "transformers", "sklearn", "datasets", "numpy", "pyarrow")
    code = f"import sys, pemt_core.tasks; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_training_rows_of_record_are_one_per_answer() -> None:
    conversion = get_task("record").conversion
    expanded = conversion.expand(conversion.pair(EXAMPLES["record"][0]))
    assert [(pair.target, pair.key, pair.references) for pair in expanded] == [
        ("Bob", "4-9-0", ("Bob", "Robert")),
        ("Robert", "4-9-1", ("Bob", "Robert")),
    ]
    other = get_task("squad").conversion
    assert len(other.expand(other.pair(EXAMPLES["squad"][0]))) == 1


@pytest.mark.parametrize(
    ("text", "padded"),
    [
        ("don't", "don ' t"),
        ("$5.50 (net)", "$ 5 . 50 ( net )"),
        ("snake_case  stays\n", "snake_case stays"),
        ("François ½ Ⅷ", "François ½ Ⅷ"),
        ("e\u0301te\u0301", "e\u0301te\u0301"),  # accents that are separate characters
        ("हिन्दी।", "हिन्दी ।"),
        ("U.S.", "U . S ."),
        ("5€–6€", "5 € – 6 €"),
    ],
)
def test_pad_punctuation(text: str, padded: str) -> None:
    assert pad_punctuation(text) == padded


def test_remove_html() -> None:
    assert remove_html("<b>Sent 1: </b>It is 3 < 4.<BR>x<br />y") == "Sent 1: It is 3 < 4. x y"


def test_highlights_to_sentences() -> None:
    passage = 'One\n@highlight\nTwo!\n@highlight\n"Three"\n@highlight\nFour'
    assert highlights_to_sentences(passage) == 'One. Two! "Three" Four'


def test_mark_span() -> None:
    assert mark_span("See the cup, please", "The cup", 1, "*") == "See * the cup *, please"
    assert mark_span("cost (net) of it", "(net)", 1, "*") == "cost * (net) * of it"  # the text is not a pattern
    assert mark_span("two  spaces here", "here", 2, "#") == "two  spaces # here #"
    assert mark_span("hers is red", "he", 0, "*") is None  # only part of a word
    assert mark_span("a b", "b", 0, "*") is None
    for index in (2, 3, 4, 5, 2**32, 10**400):
        assert mark_span("a b", "b", index, "*") is None


@pytest.mark.parametrize(
    ("noun", "pronoun", "marked"),
    [
        (("Ann", 0), ("she", 3), "* Ann * said that # she # saw the men and their mothers"),
        (("the men", 5), ("she", 3), "Ann said that # she # saw * the men * and their mothers"),
        (("their mothers", 8), ("their", 8), "Ann said that she saw the men and * # their # mothers *"),
        (("men and their mothers", 6), ("their", 8), "Ann said that she saw the * men and # their # mothers *"),
        (("Eve", 0), ("she", 3), None),
        (("Ann", 0), ("he", 3), None),
    ],
)
def test_mark_noun_and_pronoun(noun: tuple[str, int], pronoun: tuple[str, int], marked: str | None) -> None:
    assert mark_noun_and_pronoun("Ann said that she saw the men and their mothers", *noun, *pronoun) == marked


def test_wsc_drops_a_row_without_its_span() -> None:
    row = EXAMPLES["wsc"][0] | {"span2_text": "She"}
    with pytest.raises(DroppedRowError, match="'She' at word 5"):
        get_task("wsc").conversion.pair(row)


def test_round_score_is_the_nearest_fifth() -> None:
    """It agrees with T5's float32 arithmetic on every score with two decimals."""
    for hundredths in range(501):
        score = np.float32(hundredths / 100)
        expected = f"{np.round(score * np.float32(5)) / np.float32(5):.1f}"
        assert round_score(float(score)) == expected, hundredths
    assert [round_score(value) for value in (0.0, 0.1, 0.3, 2.5, 3.333, 5.0)] == [
        "0.0",
        "0.0",
        "0.4",
        "2.4",
        "3.4",
        "5.0",
    ]


@pytest.mark.mirror
def test_round_score_on_every_published_score(mirror: Any) -> None:
    for split in ("train", "validation"):
        for score in pq.read_table(mirror / f"nyu-mll/glue/stsb/{split}-00000-of-00001.parquet")["label"].to_pylist():
            assert round_score(score) == f"{np.round(np.float32(score) * np.float32(5)) / np.float32(5):.1f}"
            assert Decimal(round_score(score)) * 5 % 1 == 0


@pytest.mark.parametrize(
    ("task", "change", "message"),
    [
        ("cb", {"label": 3}, r"'label' is 3, expected a label: 0 \(entailment\), 1 .*, 2 .*; the nearest is 2"),
        ("cb", {"label": -1}, "'label' is -1, .* the nearest is 0"),
        ("cb", {"label": True}, "'label' is True, expected a label"),
        ("cb", {"premise": None}, "there is no value in column 'premise'"),
        ("scitail", {"gold_label": "entails"}, r"'entails', expected a label word \(did you mean 'entailment'\?\)"),
        ("scitail", {"gold_label": None}, "'gold_label' is None"),
        ("winogrande", {"answer": ""}, "'answer' is '', expected '1' or '2'"),
        ("winogrande", {"option1": " "}, "'option1' is ' ', expected text that is not empty"),
        ("stsb", {"label": 5.2}, "'label' is 5.2, expected a score from 0 to 5"),
        ("stsb", {"label": float("nan")}, "'label' is nan"),
        ("stsb", {"label": "4"}, "'label' is '4'"),
        ("squad", {"answers": {"text": []}}, r"'answers.text' is \[\], expected one or more answers"),
        ("squad", {"answers": {"text": [" "]}}, "'answers.text'"),
        ("squad", {"answers": {"start": []}}, "'answers' is .*a record with the field 'text'"),
        ("squad", {"id": None}, "'id' is None, expected an id"),
        ("nq", {"answers": "1787"}, "'answers' is '1787', expected a list of texts"),
        ("multirc", {"idx": {"paragraph": 1, "question": -2, "answer": 0}}, "'idx.question' is -2"),
        ("wsc", {"span1_index": None}, "'span1_index' is None, expected a whole number"),
    ],
)
def test_wrong_values_are_named(task: str, change: dict[str, Any], message: str) -> None:
    with pytest.raises(RowError, match=message):
        get_task(task).conversion.pair(EXAMPLES[task][0] | change)


def test_a_long_value_is_shortened_in_the_message() -> None:
    with pytest.raises(RowError) as caught:
        get_task("cb").conversion.pair(EXAMPLES["cb"][0] | {"premise": ["x" * 10_000]})
    assert len(str(caught.value)) < 200


def test_a_choice_between_options_says_what_a_guess_scores() -> None:
    """Where the answer is a label, a constant answer scores at least as much as a guess."""
    assert {name: task.chance for name, task in TASKS.items() if task.chance is not None} == {"winogrande": 50.0}
