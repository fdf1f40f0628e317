"""The rule by which a row is answered. Loads without torch: settings name it."""

from collections.abc import Sequence
from typing import Literal

AnswerRule = Literal["generate", "score"]


def rule_for(labels: Sequence[str] | None, rule: AnswerRule) -> AnswerRule:
    """The rule that a task is answered by where `rule` is asked for: without label words its text is generated."""
    return "generate" if labels is None else rule
