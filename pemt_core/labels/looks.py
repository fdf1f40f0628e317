"""What makes two texts the same to a person: how they look, and which number they are."""

import unicodedata
from decimal import Decimal, InvalidOperation

from pemt_core.schema.visible import without_invisible


def seen(word: str) -> str:
    """What a person sees of a word: without characters of no width, with one form of each letter and of blanks."""
    visible = without_invisible(" ".join(unicodedata.normalize("NFKC", word).split()))
    return " ".join(unicodedata.normalize("NFKC", visible).split())


def number_in(word: str) -> Decimal | None:
    """The finite number that a word is, as in 1, 1.0, +1, 01 and 1e0; None for any other word."""
    try:
        number = Decimal(word) if "_" not in word else None
    except InvalidOperation:
        return None
    return number if number is not None and number.is_finite() else None
