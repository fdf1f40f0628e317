"""From a raw row to a text pair: each factory returns a pure function with the columns that it reads."""

import math
from collections.abc import Mapping
from dataclasses import replace

from pemt_core.errors import nearest
from pemt_core.tasks.pairs import DroppedRowError, RowConversion, TextPair, one_per_reference
from pemt_core.tasks.text import (
    highlights_to_sentences,
    join_fields,
    mark_noun_and_pronoun,
    pad_punctuation,
    remove_html,
    round_score,
)
from pemt_core.tasks.values import (
    RawRow,
    RowError,
    answers_of,
    filled_text_of,
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

    def pair(row: RawRow) -> TextPair:
        source = join_fields(*((name, text_of(row, column)) for name, column in fields.items()))
        return _target_only(source, label_of(row, label, labels), key_of(row, key))

    return RowConversion((*fields.values(), label, *([key] if key else [])), pair, labels)


def word_classification(fields: Mapping[str, str], labels: tuple[str, ...], label: str) -> RowConversion:
    """Label words that the dataset holds as strings."""

    def pair(row: RawRow) -> TextPair:
        source = join_fields(*((name, text_of(row, column)) for name, column in fields.items()))
        word = row[label]
        if word not in labels:
            raise RowError(label, word, f"a label word ({nearest(str(word), labels)})")
        return _target_only(source, word)

    return RowConversion((*fields.values(), label), pair, labels)


def answer_classification(labels: tuple[str, ...] = BOOLEAN_WORDS) -> RowConversion:
    """MultiRC: is this answer right? Rows are grouped by their question, which exact match needs whole."""

    def pair(row: RawRow) -> TextPair:
        names = ("question", "answer", "paragraph")
        source = join_fields(*((name, remove_html(text_of(row, name))) for name in names))
        paragraph, question, answer = (number_of(row, "idx", key) for key in ("paragraph", "question", "answer"))
        made = _target_only(source, label_of(row, "label", labels), f"{paragraph}-{question}-{answer}")
        return replace(made, group=f"{paragraph}-{question}")

    return RowConversion(("question", "answer", "paragraph", "label", "idx"), pair, labels)


def marked_spans(labels: tuple[str, ...] = BOOLEAN_WORDS) -> RowConversion:
    """WSC: does the marked pronoun stand for the marked noun? DroppedRowError where a span is not in the text."""
    columns = ("text", "span1_text", "span1_index", "span2_text", "span2_index", "label", "idx")

    def pair(row: RawRow) -> TextPair:
        noun, pronoun = text_of(row, "span1_text"), text_of(row, "span2_text")
        noun_index, pronoun_index = number_of(row, "span1_index"), number_of(row, "span2_index")
        text = mark_noun_and_pronoun(text_of(row, "text"), noun, noun_index, pronoun, pronoun_index)
        if text is None:
            raise DroppedRowError(
                f"{noun!r} at word {noun_index} or {pronoun!r} at word {pronoun_index} is not in the text"
            )
        return _target_only(join_fields(("text", text)), label_of(row, "label", labels), key_of(row, "idx"))

    return RowConversion(columns, pair, labels)


def similarity(first: str, second: str) -> RowConversion:
    """STS-B: a score from 0 to 5, written as a number."""

    def pair(row: RawRow) -> TextPair:
        source = join_fields((first, text_of(row, first)), (second, text_of(row, second)))
        score = row["label"]
        if not isinstance(score, float | int) or not math.isfinite(score) or not 0 <= score <= TOP_SCORE:
            raise RowError("label", score, f"a score from 0 to {TOP_SCORE:g}")
        return _target_only(source, round_score(score), key_of(row, "idx"))

    return RowConversion((first, second, "label", "idx"), pair)


def option_choice() -> RowConversion:
    """WinoGrande: the target is the text of the option that fills the gap."""

    def pair(row: RawRow) -> TextPair:
        names = ("sentence", "option1", "option2")
        answer = row["answer"]
        if answer not in ("1", "2"):
            raise RowError("answer", answer, "'1' or '2'")
        source = join_fields(*((name, text_of(row, name)) for name in names))
        return _target_only(source, filled_text_of(row, f"option{answer}"))

    return RowConversion(("sentence", "option1", "option2", "answer"), pair)


def question_answering(answers: tuple[str, ...], key: str) -> RowConversion:
    """SQuAD and MRQA: the first answer is the target, every answer a reference, all with punctuation set apart.

    `answers` is the path of the list of answers: a column, or a column and a field in it.
    """

    def pair(row: RawRow) -> TextPair:
        question, context = (pad_punctuation(text_of(row, name)) for name in ("question", "context"))
        references = answers_of(row, answers, pad_punctuation)
        source = join_fields(("question", question), ("context", context))
        return TextPair(source, references[0], references, key_of(row, key))

    return RowConversion(("question", "context", answers[0], key), pair)


def cloze() -> RowConversion:
    """ReCoRD: which entity fills the gap in the query? One training row per answer."""

    def pair(row: RawRow) -> TextPair:
        references = answers_of(row, ("answers",), str.strip)
        entities = ", ".join(entity.strip() for entity in texts_of(row, ("entities",)))
        passage = highlights_to_sentences(text_of(row, "passage"))
        query = text_of(row, "query")
        source = join_fields(("record query", query), ("entities", entities), ("passage", passage))
        group = f"{number_of(row, 'idx', 'passage')}-{number_of(row, 'idx', 'query')}"
        return TextPair(source, references[0], references, group, group)

    return RowConversion(("query", "entities", "passage", "answers", "idx"), pair, expand=one_per_reference)


def _target_only(source: str, target: str, key: str = "") -> TextPair:
    """A pair whose target is the only right answer."""
    return TextPair(source, target, (target,), key)
