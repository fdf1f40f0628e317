"""The rule by which rows are answered. Settings name it, so it loads without torch."""

from collections.abc import Sequence
from typing import Literal

AnswerRule = Literal["generate", "score"]


def rule_for(labels: Sequence[str] | None, rule: AnswerRule) -> AnswerRule:
    """The rule for a task if `rule` is asked for: a task without label words always generates."""
    return "generate" if labels is None else rule
