"""Conversions of raw rows to text pairs: each factory returns pure functions and the columns that they read."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from pemt_core.errors import nearest, shown
from pemt_core.schema.visible import is_blank
from pemt_core.tasks.pairs import DroppedRowError, Kind, RowConversion, TextPair, one_per_reference
from pemt_core.tasks.text import (
    highlights_to_sentences,
    join_fields,
    mark_noun_and_pronoun,
    pad_punctuation,
    remove_html,
    round_score,
)
from pemt_core.tasks.values import (
    NoValueError,
    RawRow,
    RowError,
    UnlistedLabelError,
    answers_of,
    as_text,
    filled_text_of,
    is_absent,
    key_of,
    label_of,
    number_of,
    text_of,
    texts_of,
)

BOOLEAN_WORDS = ("False", "True")
TOP_SCORE = 5.0  # of STS-B


def classification(
    fields: Mapping[str, str], labels: tuple[str, ...], key: str | None = "idx", label: str = "label"
) -> RowConversion:
    """Label words from integer classes. `fields` maps the names in the text, in order, to columns."""
    source = _text_of_fields(fields)

    def pair(row: RawRow) -> TextPair:
        return _target_only(source(row), label_of(row, label, labels), key_of(row, key))

    return RowConversion(tuple(fields.values()), (label, *([key] if key else [])), source, pair, labels)


def word_classification(fields: Mapping[str, str], labels: tuple[str, ...], label: str) -> RowConversion:
    """Label words that the dataset holds as strings."""
    source = _text_of_fields(fields)

    def pair(row: RawRow) -> TextPair:
        word = row[label]
        if word not in labels:
            raise RowError(label, word, f"a label word ({nearest(str(word), labels)})")
        return _target_only(source(row), word)

    return RowConversion(tuple(fields.values()), (label,), source, pair, labels)


def columns_as_text(
    fields: Mapping[str, str],
    target: str,
    labels: Mapping[str, str] | None,
    key: str | None,
    problem: Callable[[str], str | None] = lambda answer: None,
) -> RowConversion:
    """A user's task: the column `target` has the answer.

    Args:
        labels: what the model writes for each label, None for free text.
        problem: what is expected instead of an answer, None if it can be scored.
    """
    joined = _text_of_fields(fields)

    def source(row: RawRow) -> str:
        texts = {column: "" if is_absent(row[column]) else as_text(column, row[column]) for column in fields.values()}
        if all(map(is_blank, texts.values())):
            raise NoValueError(*texts)
        return joined(texts)

    def pair(row: RawRow) -> TextPair:
        answer = filled_text_of(row, target)
        if labels is not None and answer not in labels:
            raise UnlistedLabelError(target, answer, f"a label word ({nearest(answer, labels)})")
        expected = "text that can be seen" if labels is None and is_blank(answer) else problem(answer)
        if expected:
            raise RowError(target, answer, expected)
        return _target_only(source(row), answer if labels is None else labels[answer], key_of(row, key))

    others = (target, *([key] if key else []))
    words = None if labels is None else tuple(labels.values())
    shown = {word: label for label, word in (labels or {}).items() if word != label}
    return RowConversion(tuple(fields.values()), others, source, pair, words, shown=shown)


def answer_classification(labels: tuple[str, ...] = BOOLEAN_WORDS) -> RowConversion:
    """MultiRC: is this answer right? Rows are grouped by question, because exact match scores whole questions."""
    names = ("question", "answer", "paragraph")

    def source(row: RawRow) -> str:
        return join_fields(*((name, remove_html(text_of(row, name))) for name in names))

    def pair(row: RawRow) -> TextPair:
        paragraph, question, answer = (number_of(row, "idx", key) for key in ("paragraph", "question", "answer"))
        made = _target_only(source(row), label_of(row, "label", labels), f"{paragraph}-{question}-{answer}")
        return replace(made, group=f"{paragraph}-{question}")

    return RowConversion(names, ("label", "idx"), source, pair, labels)


def marked_spans(labels: tuple[str, ...] = BOOLEAN_WORDS) -> RowConversion:
    """WSC: does the marked pronoun refer to the marked noun? Raises DroppedRowError if a span is not in the text."""

    def source(row: RawRow) -> str:
        noun, pronoun = text_of(row, "span1_text"), text_of(row, "span2_text")
        noun_index, pronoun_index = number_of(row, "span1_index"), number_of(row, "span2_index")
        text = mark_noun_and_pronoun(text_of(row, "text"), noun, noun_index, pronoun, pronoun_index)
        if text is None:
            places = (
                f"{shown(span)} at word {shown(at)}" for span, at in ((noun, noun_index), (pronoun, pronoun_index))
            )
            raise DroppedRowError(f"{' or '.join(places)} is not in the text")
        return join_fields(("text", text))

    def pair(row: RawRow) -> TextPair:
        return _target_only(source(row), label_of(row, "label", labels), key_of(row, "idx"))

    inputs = ("text", "span1_text", "span1_index", "span2_text", "span2_index")
    kinds: dict[str, Kind] = {"span1_index": "number", "span2_index": "number"}
    return RowConversion(inputs, ("label", "idx"), source, pair, labels, kinds=kinds)


def similarity(first: str, second: str) -> RowConversion:
    """STS-B: a score from 0 to 5, written as a number."""
    source = _text_of_fields({first: first, second: second})

    def pair(row: RawRow) -> TextPair:
        score = row["label"]
        if not isinstance(score, float | int) or not math.isfinite(score) or not 0 <= score <= TOP_SCORE:
            raise RowError("label", score, f"a score from 0 to {TOP_SCORE:g}")
        return _target_only(source(row), round_score(score), key_of(row, "idx"))

    return RowConversion((first, second), ("label", "idx"), source, pair)


def option_choice() -> RowConversion:
    """WinoGrande: the target is the text of the option that fills the gap."""
    names = ("sentence", "option1", "option2")
    source = _text_of_fields({name: name for name in names})

    def pair(row: RawRow) -> TextPair:
        answer = row["answer"]
        if answer not in ("1", "2"):
            raise RowError("answer", answer, "'1' or '2'")
        return _target_only(source(row), filled_text_of(row, f"option{answer}"))

    return RowConversion(names, ("answer",), source, pair)


def question_answering(answers: tuple[str, ...], key: str) -> RowConversion:
    """SQuAD and MRQA: the first answer is the target, every answer a reference; spaces surround punctuation.

    `answers` is the path of the list of answers: a column, or a column and a field in it.
    """
    names = ("question", "context")

    def source(row: RawRow) -> str:
        return join_fields(*((name, pad_punctuation(text_of(row, name))) for name in names))

    def pair(row: RawRow) -> TextPair:
        text, references = source(row), answers_of(row, answers, pad_punctuation)
        return TextPair(text, references[0], references, key_of(row, key))

    return RowConversion(names, (answers[0], key), source, pair)


def cloze() -> RowConversion:
    """ReCoRD: which entity fills the gap in the query? One training row per answer."""

    def source(row: RawRow) -> str:
        entities = ", ".join(entity.strip() for entity in texts_of(row, ("entities",)))
        passage = highlights_to_sentences(text_of(row, "passage"))
        return join_fields(("record query", text_of(row, "query")), ("entities", entities), ("passage", passage))

    def pair(row: RawRow) -> TextPair:
        references = answers_of(row, ("answers",), str.strip)
        group = f"{number_of(row, 'idx', 'passage')}-{number_of(row, 'idx', 'query')}"
        return TextPair(source(row), references[0], references, group, group)

    inputs = ("query", "entities", "passage")
    kinds: dict[str, Kind] = {"entities": "texts"}
    return RowConversion(inputs, ("answers", "idx"), source, pair, expand=one_per_reference, kinds=kinds)


def _text_of_fields(fields: Mapping[str, str]) -> Callable[[RawRow], str]:
    """Return a function that joins a row's columns; `fields` maps names in the text, in order, to columns."""

    def source(row: RawRow) -> str:
        return join_fields(*((name, text_of(row, column)) for name, column in fields.items()))

    return source


def _target_only(source: str, target: str, key: str = "") -> TextPair:
    """A pair whose target is the only right answer."""
    return TextPair(source, target, (target,), key)
