"""Values as YAML on one line, the same to readers of YAML 1.1 and 1.2."""

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

import regex

_PLAIN = re.compile(r"[A-Za-z_][\w./@+-]*(?: [\w./@+-]+)*", re.ASCII)  # any other text is quoted
_OTHER_TYPES = re.compile(r"y|n|yes|no|on|off|true|false|null", re.IGNORECASE)  # in either version, without quotes
_HIDDEN = regex.compile(r"\p{Default_Ignorable_Code_Point}")  # of no width, though they count as printable
_LONGEST_KEY = 100  # of 1,024 characters that YAML allows after escapes; a longer key is marked by "?"


def flow(value: Any) -> str:
    """Format a value of params.yaml or JSON. Raises TypeError for a value of another type."""
    match value:
        case str():
            return value if is_plain(value) else quoted(value)
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
        case int():
            return str(value)
        case float():
            return _number(value)
        case Mapping():
            return f"{{{', '.join(f'{_key(key)}: {flow(inner)}' for key, inner in value.items())}}}"
        case Sequence():
            return f"[{', '.join(map(flow, value))}]"
    raise TypeError(f"{type(value).__name__} has no form in YAML here")


def is_plain(text: str) -> bool:
    """Whether a text without quotes is the same text in YAML 1.1 and 1.2."""
    return bool(_PLAIN.fullmatch(text)) and not _OTHER_TYPES.fullmatch(text)


def quoted(text: str) -> str:
    """Put a text in double quotes, with escapes for characters that cannot be seen, alone or beside the one before."""
    is_composed = unicodedata.is_normalized("NFC", text)
    return f'"{"".join(_escaped(character, is_composed) for character in text)}"'


def _escaped(character: str, is_composed: bool) -> str:
    if character in '"\\':
        return f"\\{character}"
    is_mark = bool(unicodedata.combining(character)) and not is_composed  # é as two characters looks like é
    if character.isprintable() and not is_mark and not _HIDDEN.match(character):
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _key(key: str) -> str:
    return flow(key) if len(key) <= _LONGEST_KEY else f"? {flow(key)} "


def _number(value: float) -> str:
    """YAML 1.1 reads only numbers with a point as floats."""
    if not math.isfinite(value):
        return ".nan" if math.isnan(value) else f"{'-' if value < 0 else ''}.inf"
    mantissa, _, exponent = repr(value).partition("e")
    point = mantissa if "." in mantissa else f"{mantissa}.0"
    return f"{point}e{int(exponent):+d}" if exponent else point
