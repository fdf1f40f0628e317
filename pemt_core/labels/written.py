"""Label words that a tokenizer takes apart and puts together again."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pemt_core.backbone.text_ids import answer_ids
from pemt_core.data.prepared import TaskDescription
from pemt_core.labels.distinct import check_labels
from pemt_core.labels.error import LabelError
from pemt_core.labels.proposals import proposed_words
from pemt_core.schema.flow import quoted

_SHOWN = 3  # labels in a message


def check_label_words(task: TaskDescription, tokenizer: Any) -> None:
    """Check the label words of a task, if it has any. Raises LabelError if a model cannot write or distinguish them."""
    check_labels(task)
    check_written(task, tokenizer)


def check_written(task: TaskDescription, tokenizer: Any) -> None:
    """Check that a model with this tokenizer can write each label word of a task. Raises LabelError if it cannot."""
    words, writer = task.labels or [], _Writer(tokenizer)
    broken = [word for word in words if not writer.can_write(word)]
    same = _with_equal_tokens([word for word in words if word not in broken], writer)
    if not broken and not same:
        return
    changed = broken or same[1:]
    listed = ", ".join(
        f"{quoted(task.shown_as(word))} ({writer.explained(word)})" for word in (broken or same)[:_SHOWN]
    )
    more = f" and {len(broken) - _SHOWN} more" if len(broken) > _SHOWN else ""
    problem = "the backbone cannot write" if broken else "the backbone writes the same for"
    proposed = proposed_words(changed, words, writer.can_write, writer.normalised)
    raise LabelError(task, f"{problem} the {'label' if len(changed) == 1 else 'labels'} {listed}{more}", proposed)


def _with_equal_tokens(words: Sequence[str], writer: "_Writer") -> list[str]:
    """The first words that share their tokens; empty if there are none."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for word in words:
        groups.setdefault(tuple(writer.ids(word)), []).append(word)
    return next((group for group in groups.values() if len(group) > 1), [])


@dataclass(frozen=True)
class _Writer:
    """What a model with this tokenizer writes; the tokenizer itself stays as it is, without truncation in its state."""

    tokenizer: Any

    def ids(self, word: str) -> list[int]:
        """The tokens of a word, of which the last one closes it."""
        return answer_ids(self.tokenizer, [word])[0]

    def read_back(self, word: str) -> str:
        text: str = self.tokenizer.batch_decode([self.ids(word)], skip_special_tokens=True)[0]
        return text.strip()

    def normalised(self, word: str) -> str:
        """What the tokenizer makes of a word; empty if it lacks a part of it."""
        text = self.ids(word)[:-1]  # in some tokenizers, the unknown token is the one that closes
        return "" if self.tokenizer.unk_token_id in text else self.read_back(word)

    def can_write(self, word: str) -> bool:
        """Whether an answer of these tokens is this word; blanks count as metrics count them."""
        return " ".join(self.normalised(word).split()) == word

    def explained(self, word: str) -> str:
        tokens = " ".join(self.tokenizer.convert_ids_to_tokens(self.ids(word)))
        return f"tokens {tokens}, read back as {quoted(self.read_back(word))}"
