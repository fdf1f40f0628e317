"""Inputs that differ from valid ones by a few random changes; the same random generator gives the same input."""

import copy
import json
import string
from collections.abc import Callable
from random import Random
from typing import Any

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 0.5, -0.0, 2**31, 2**63, 2**64, -(2**63) - 1, 10**20, 10**400, 1e308, 1e-320,
    float("nan"), float("inf"), float("-inf"), "", " ", "\n", "\t", "\0", "\ud800", "\ufeff", "\u200b", "a\u0301",
    "á", "m²", "😀", "0", "0.0", "1e999", "nan", "null", "true", "~", "no", "2001-13-45", "12:30:45", "0x1F", "${x}",
    "{{x}}", "../..", "/etc/passwd", "a/b", ".", "..", "?", ":", "#", "- x", "&a", "*a", "!!python/name:os.system",
    "(.*.*.*.*.*.*.*.*)*x", "(a+)+$", "[", "x" * 10_000, "models:/x@y", [], {}, [[]], [None], {"": None}, {"a": {}},
    [1, "a"], ["a", "a"],
)  # fmt: skip
TOKENS: tuple[bytes, ...] = (
    b"\xff", b"\xfe\xff", b"\x00", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\r", b"\r\n", b"\n\n", b'"', b"'", b",", b";",
    b"\t", b"\\", b"\\ud800", b"\\u0000", b"NaN", b"-Infinity", b"1e999", b"9" * 5_000, b"[" * 3_000, b'{"a":' * 3_000,
    b"[" * 100_000, b"{", b"}", b"]", b": ", b"&a [*a, *a]", b"*a", b"!!python/object/apply:os.system [x]", b"!!set",
    b"? ", b"<<: *a", b"- ", b"# ", b"%YAML 9", b"---\n", b"...\n", b"PAR1", b"\x1f\x8b", b"x" * 70_000,
)  # fmt: skip


def mutated_bytes(content: bytes, random: Random, most: int = 3) -> bytes:
    """Flip, remove, repeat, move or insert a few parts of a file."""
    changed = bytearray(content)
    for _ in range(random.randint(1, most)):
        place, length = random.randrange(len(changed) + 1), random.choice((1, 1, 2, 8, 64, 1_000))
        part = changed[place : place + length]
        match random.randrange(7):
            case 0 | 1 if place < len(changed):
                changed[place] ^= 1 << random.randrange(8)
            case 2:
                del changed[place : place + length]
            case 3:
                changed[place:place] = part * random.choice((1, 2, 50))
            case 4:
                changed[place : place + length] = random.randbytes(len(part))
            case 5:
                del changed[place:]
            case _:
                changed[place:place] = random.choice(TOKENS)
    return bytes(changed)


def mutated_value(value: Any, random: Random, most: int = 3) -> Any:
    """Change a few nodes of nested lists and mappings."""
    value = copy.deepcopy(value)
    for _ in range(random.randint(1, most)):
        holders = [node for node in nodes_of(value) if node]
        if not holders:
            return hostile(random)
        holder = random.choice(holders)
        key = random.choice(list(holder)) if isinstance(holder, dict) else random.randrange(len(holder))
        random.choice(_CHANGES)(holder, key, random)
    return value


def hostile(random: Random) -> Any:
    """Return a value of a kind that programs forget."""
    if random.random() < 0.05:
        depth = random.choice((20, 100, 400))
        nested: Any = []
        for _ in range(depth):
            nested = [nested] if random.random() < 0.5 else {"a": nested}
        return nested
    if random.random() < 0.1:
        return "".join(random.choices(string.printable + "é²😀\ud800\u0301", k=random.randint(1, 12)))
    return copy.deepcopy(random.choice(HOSTILE))


def nodes_of(value: Any) -> list[Any]:
    """List every list and mapping in a value, itself included."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    return [] if inner is None else [value, *(node for each in inner for node in nodes_of(each))]


def as_json(value: Any, random: Random) -> bytes:
    """Serialise a value as JSON in one of the ways that programs write it, sometimes damaged."""
    text = json.dumps(
        value,
        ensure_ascii=random.random() < 0.5,
        indent=random.choice((None, None, 2)),
        skipkeys=True,
    )
    content = text.encode("utf-8", "surrogatepass")
    return mutated_bytes(content, random) if random.random() < 0.2 else content


def _replace(holder: Any, key: Any, random: Random) -> None:
    holder[key] = hostile(random)


def _remove(holder: Any, key: Any, random: Random) -> None:
    del holder[key]


def _wrap(holder: Any, key: Any, random: Random) -> None:
    holder[key] = random.choice(([holder[key]], {"a": holder[key]}, str(holder[key])))


def _add(holder: Any, key: Any, random: Random) -> None:
    if isinstance(holder, dict):
        holder[random.choice((f"{key}s", "", "x", "\ud800", str(hostile(random))[:50]))] = holder[key]
    else:
        holder.append(copy.deepcopy(holder[key]))


def _nudge(holder: Any, key: Any, random: Random) -> None:
    value = holder[key]
    if isinstance(value, int | float) and not isinstance(value, bool):
        holder[key] = random.choice((-value, value + 1, value - 1, value * 10**6, value * 10**30, 0, float(value)))
    elif isinstance(value, str):
        place = random.randrange(len(value) + 1)
        holder[key] = value[:place] + random.choice(("", "x", " ", "\n", "/", "\ud800", "é")) + value[place + 1 :]
    else:
        holder[key] = hostile(random)


_CHANGES: tuple[Callable[[Any, Any, Random], None], ...] = (_replace, _replace, _remove, _wrap, _add, _nudge, _nudge)
