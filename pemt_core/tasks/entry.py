"""An entry of `own_tasks` in params.yaml: a user's task, with rows in the user's files.

`pemt_core.tasks.known_tasks` checks that its name is free, its metrics exist and its files have a known format.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from pemt_core.schema.group import Group
from pemt_core.schema.visible import is_blank

LONGEST_DESCRIPTION = 1_000  # characters; each token of it is one of the prompt, which every layer reads
REFERENCE = "${"  # DVC replaces what follows it in params.yaml


def _without_reference(text: str) -> str:
    if REFERENCE in text:
        raise ValueError(f"expected text without {REFERENCE}, which DVC would replace")
    return text


def _stripped(text: str) -> str:
    if not text.strip():
        raise ValueError("expected text that is not empty")
    if text != text.strip():
        raise ValueError("expected text that neither begins nor ends with a space")
    return text


def _sentence(text: str) -> str:
    if is_blank(text):
        raise ValueError("expected a sentence")
    if len(text) > LONGEST_DESCRIPTION:
        found = f"at most {LONGEST_DESCRIPTION:,} characters, found {len(text):,}"
        raise ValueError(f"expected a sentence of {found}, since its tokens start the prompt")
    return text


Filled = Annotated[str, AfterValidator(_stripped), AfterValidator(_without_reference)]
Description = Annotated[Filled, AfterValidator(_sentence)]  # of a task; its tokens start the task prompt
Column = Annotated[str, Field(min_length=1), AfterValidator(_without_reference)]


class TaskFiles(Group):
    """A file for each split; a relative path starts at the folder of params.yaml."""

    train: Filled
    validation: Filled | None = None
    test: Filled | None = None

    @property
    def by_split(self) -> dict[str, str]:
        """The files that the entry has, by split."""
        return {split: file for split, file in self if file is not None}


class OwnTask(Group):
    """A task as files and columns; an optional key that is absent is None."""

    files: TaskFiles
    text: Annotated[dict[Filled, Column], Field(min_length=1)]  # name in the text: column
    target: Column  # column of the answer
    labels: Annotated[list[Filled], Field(min_length=2)] | None  # all values of the column; None: free text
    label_words: dict[Filled, Filled] | None = None  # what the model writes for a label; absent labels: themselves
    description: Description
    metrics: Annotated[list[Filled], Field(min_length=1)]  # the main one first
    chance: Annotated[float, Field(ge=0, le=100)] | None = (
        None  # points that a guess scores, if a constant answer scores less
    )
    id: Column | None = None  # column that identifies a row; None: its position does

    @property
    def words(self) -> list[str] | None:
        """The words that the model writes, in the order of the labels; None for free text."""
        return None if self.labels is None else [(self.label_words or {}).get(label, label) for label in self.labels]

    @model_validator(mode="after")
    def _agree(self) -> "OwnTask":
        if self.target in self.text.values():
            raise ValueError(f"target is '{self.target}', also a column of text: the text would contain the answer")
        for label in self.label_words or {}:
            if label not in (self.labels or []):
                raise ValueError(f"label_words has '{label}', which is not one of labels")
        for name, words in (("labels", self.labels), ("label_words", self.words), ("metrics", self.metrics)):
            repeated = _repeated(words or [])
            if repeated:
                raise ValueError(f"{name} lists {repeated} more than once")
        return self


def _repeated(words: Sequence[str]) -> list[str]:
    return sorted(word for word, count in Counter(words).items() if count > 1)
