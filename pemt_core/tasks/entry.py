"""An entry of `own_tasks` in params.yaml: a user's task, with rows in the user's files.

`pemt_core.tasks.known_tasks` checks that its name is free, its metrics exist and its files have a known format.
"""

from collections import Counter
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from pemt_core.schema.group import Group


def _stripped(text: str) -> str:
    if not text or text != text.strip():
        raise ValueError("expected text that neither begins nor ends with a space")
    return text


Filled = Annotated[str, AfterValidator(_stripped)]
Column = Annotated[str, Field(min_length=1)]


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
    description: Filled  # one sentence; its tokens start the task prompt
    metrics: Annotated[list[Filled], Field(min_length=1)]  # the main one first
    id: Column | None = None  # column that identifies a row; None: its position does

    @model_validator(mode="after")
    def _agree(self) -> "OwnTask":
        if self.target in self.text.values():
            raise ValueError(f"target is '{self.target}', also a column of text: the text would contain the answer")
        for name, words in (("labels", self.labels or []), ("metrics", self.metrics)):
            repeated = sorted(word for word, count in Counter(words).items() if count > 1)
            if repeated:
                raise ValueError(f"{name} lists {repeated} more than once")
        return self
