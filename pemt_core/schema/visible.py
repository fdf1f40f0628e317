"""What a person sees of a text."""

import regex

INVISIBLE = r"\p{Default_Ignorable_Code_Point}\p{Cf}\p{Cc}\u2800"  # of no width, and the blank of Braille
_VISIBLE = regex.compile(rf"[^\s{INVISIBLE}]")


def is_blank(text: str) -> bool:
    """Whether a text has nothing that a person sees, but blanks and characters of no width."""
    return _VISIBLE.search(text) is None
