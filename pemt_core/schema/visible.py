"""What a person sees of a text."""

import unicodedata
from collections.abc import Iterable
from itertools import takewhile

import regex

INVISIBLE = r"\p{Default_Ignorable_Code_Point}\p{Cf}\p{Cc}\u2800"  # of no width, and the blank of Braille
_VISIBLE = regex.compile(rf"[^\s{INVISIBLE}]")
_BLANK = regex.compile(r"\s")
_ENDS = regex.compile(rf"^[\s{INVISIBLE}]+|[\s{INVISIBLE}]+$")
_INVISIBLE = regex.compile(f"[{INVISIBLE}]")
# Cyrillic and Greek letters in the shape of Latin ones, which other keyboards have on the same or the next key
_LATIN = str.maketrans("аеорсухіјѕԁԛԝһАВЕКМНОРСТУХІЈЅΑΒΕΖΗΙΚΜΝΟΡΤΥΧον", "aeopcyxijsdqwhABEKMHOPCTYXIJSABEZHIKMNOPTYXov")


def is_blank(text: str) -> bool:
    """Whether a text has nothing that a person sees, but blanks and characters of no width."""
    return _VISIBLE.search(text) is None


def without_invisible(text: str) -> str:
    """A text without the characters of no width."""
    return str(_INVISIBLE.sub("", text))


def trimmed(text: str) -> str:
    """A text that begins and ends with something that a person sees."""
    return str(_ENDS.sub("", text))


def look_alike(text: str, other: str) -> bool:
    """Whether a person takes two texts for the same, though they differ."""
    return text != other and _shape(text) == _shape(other)


def _shape(text: str) -> str:
    """A text with one kind of blank and one form of each letter, without characters of no width."""
    return unicodedata.normalize("NFC", without_invisible(_BLANK.sub(" ", text))).translate(_LATIN)


def told_apart(text: str, other: str) -> tuple[str, str]:
    """Two texts that look alike, each with escapes for the characters in which it differs from the other."""
    begin = _num_equal(text, other)
    end = _num_equal(reversed(text[begin:]), reversed(other[begin:]))
    return _escaped(text, begin, len(text) - end), _escaped(other, begin, len(other) - end)


def _num_equal(text: Iterable[str], other: Iterable[str]) -> int:
    """The number of characters that two texts have in common at their beginnings."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(text, other, strict=False)))


def _escaped(text: str, begin: int, end: int) -> str:
    return text[:begin] + text[begin:end].encode("unicode_escape").decode() + text[end:]
