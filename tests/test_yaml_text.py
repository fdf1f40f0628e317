"""Any value that is written into params.yaml is read back by readers of YAML 1.2 and 1.1."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings, strategies as st
from ruamel.yaml import YAML

from pemt_core.schema.flow import flow
from pemt_core.settings.yaml_text import with_item, with_key, with_list

KEYWORDS = [
    *("null", "Null", "~", "", "true", "True", "yes", "NO", "on", "Off", "y", "n"),
    *("1e3", "1e5", "0x1f", "0o17", "017", "0123", "1_000", "12:30:45", "2001-01-01", ".inf", ".nan"),
    *("=", "<<", "-", "?", ":", "??", "---", "...", "#", "&a", "*a", "!a", "|", ">", "%", "@", "`", "'", '"', "{", "["),
    *("a: b", "a #b", "a,b", "- a", "? a", ": a", "a:", " a ", "\t", "\n", "a\nb", "\r\n", "\\", "\\n", "${x}", "é"),
    *("\x00", "\x07", "\x7f", "\x85", "\xa0", "\u200b", "\u2028", "\u2029", "\ufeff", "\ufffe", "😀", "\U000e0100"),
    "cafe\u0301",
]
TEXTS = st.one_of(
    st.sampled_from(KEYWORDS), st.text(st.characters(exclude_categories=["Cs"])), st.text("ny01e:-?# ,'\"{[&*!\n")
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=8,
)
MANY = settings(max_examples=150, deadline=None, database=None)


def read(text: str) -> Any:
    """Read by both; they must agree, also about types."""
    new, old = YAML(typ="safe", pure=True).load(text), yaml.safe_load(text)
    assert json.dumps(new) == json.dumps(old)
    return new


@pytest.mark.parametrize("text", KEYWORDS)
def test_texts_that_yaml_could_take_for_something_else_round_trip(text: str) -> None:
    written = flow({text: [text, text]})
    assert read(f"key: {written}") == {"key": {text: [text, text]}}
    assert written.isascii() or "😀" in written or "é" in written  # what cannot be seen is escaped


def test_plain_words_need_no_quotes() -> None:
    assert flow(["garage", "not_entailment", "own_tasks/a.csv", "two words"]) == (
        "[garage, not_entailment, own_tasks/a.csv, two words]"
    )
    assert flow({"yes": 1, "k": ["full"], "rate": 1e-5}) == '{"yes": 1, k: [full], rate: 1.0e-5}'


@given(VALUES)
@MANY
@example({"x" * 2000: "y" * 5000})
@example(1e-5)
@example(1e22)
@example(float("-inf"))
def test_every_value_round_trips(value: Any) -> None:
    assert read(f"{{key: {flow(value)}}}") == {"key": value}


@given(TEXTS, st.dictionaries(TEXTS, VALUES, min_size=1, max_size=3), st.booleans())
@MANY
def test_what_is_added_to_a_file_is_read_back(name: str, value: dict[str, Any], in_lines: bool) -> None:
    before = (
        "# before\nlisted: [a]\ngroup:"
        + ("\n  a: {b: 1}  # beside\n" if in_lines else " {}  # beside\n")
        + "after: 1\n"
    )
    after = with_key(before, "group", name, value)
    after = with_list(with_item(after, ["listed"], name), ["listed"], [name, name]) if in_lines else after
    found = read(after)
    assert found["group"][name] == value
    assert found["after"] == 1
    assert found["listed"] == ([name, name] if in_lines else ["a"])
    assert after.startswith("# before\n")
    assert "# beside" in after
