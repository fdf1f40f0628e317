"""Text transformations of the tasks, as in T5's preprocessing."""

import re
from decimal import ROUND_HALF_EVEN, Decimal

import regex

# Everything but underscores, whitespace, numbers, letters and the marks that belong to letters.
_PUNCTUATION = regex.compile(r"([^_\s\p{N}\p{L}\p{M}])")
_WHITESPACE = re.compile(r"\s+")
_LINE_BREAK_TAG = re.compile(r"<br\s*/?>", re.IGNORECASE)
_BOLD_TAG = re.compile(r"</?b>", re.IGNORECASE)
_HIGHLIGHT_AFTER_SENTENCE = re.compile(r"([.?!\"'])\n@highlight\n")
_HIGHLIGHT = "\n@highlight\n"


def join_fields(*fields: tuple[str, str]) -> str:
    """Build the source text: ("premise", "A."), ("hypothesis", "B.") becomes "premise: A. hypothesis: B."."""
    return " ".join(f"{name}: {value.strip()}".rstrip() for name, value in fields)


def pad_punctuation(text: str) -> str:
    """Put spaces around punctuation marks and collapse whitespace: "U.S. (1990)" becomes "U . S . ( 1990 )"."""
    return _WHITESPACE.sub(" ", _PUNCTUATION.sub(r" \1 ", text)).strip()


def remove_html(text: str) -> str:
    """Remove MultiRC's tags: a line break becomes a space, bold tags vanish."""
    return _BOLD_TAG.sub("", _LINE_BREAK_TAG.sub(" ", text))


def highlights_to_sentences(passage: str) -> str:
    """Turn ReCoRD's "@highlight" lines into sentences, adding a full stop if the line before has no end mark."""
    return _HIGHLIGHT_AFTER_SENTENCE.sub(r"\1 ", passage).replace(_HIGHLIGHT, ". ")


def mark_span(text: str, span: str, word_index: int, mark: str) -> str | None:
    """Put `mark` around the span that starts at word `word_index` of `text`; None if it is not there.

    Case is ignored, because the datasets capitalise some spans that the text does not.
    """
    if word_index > len(text):  # which is more than it has words, and may be more than `re` counts
        return None
    before = rf"(\s*(?:\S+\s+){{{word_index}}})"
    match = re.match(rf"{before}({re.escape(span)})(?!\w)", text, re.IGNORECASE)
    if match is None:
        return None
    return f"{match[1]}{mark} {match[2]} {mark}{text[match.end() :]}"


def mark_noun_and_pronoun(text: str, noun: str, noun_index: int, pronoun: str, pronoun_index: int) -> str | None:
    """Mark WSC's noun with "* *" and its pronoun with "# #"; None if either is not found."""
    marked = mark_span(text, noun, noun_index, "*")
    if marked is None:
        return None
    return mark_span(marked, pronoun, pronoun_index + _marks_before(pronoun_index, noun, noun_index), "#")


def _marks_before(word_index: int, noun: str, noun_index: int) -> int:
    """Count the noun's marks, which are separate words, before a word: one if the word is part of the noun."""
    if word_index < noun_index:
        return 0
    return 1 if word_index < noun_index + len(noun.split()) else 2


def round_score(score: float) -> str:
    """Round STS-B's score to the nearest 0.2, ties to the even step, with one decimal: 2.5 becomes "2.4".

    The dataset stores float32 (0.7 as 0.69999999). Rounding this error away first makes ties exact, with the same
    results as T5's float32 arithmetic.
    """
    steps = (Decimal(str(round(score, 4))) * 5).to_integral_value(ROUND_HALF_EVEN)
    return f"{steps / 5:.1f}"
