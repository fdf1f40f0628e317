"""What a metric reads: predictions beside their references, and the rules by which a prediction counts as readable.

A model that generates text can write what is no answer at all. Such a prediction is never mapped to a class by
default (class 0 would be right for every row of that class); each metric says what it makes of it.
"""

from dataclasses import dataclass

from pemt_core.errors import DataError, nearest


@dataclass(frozen=True)
class Scored:
    """The rows of one split after generation; all lists have one entry per row."""

    predictions: list[str]  # as decoded, special tokens removed
    references: list[list[str]]  # every answer that counts as right, the first one first; [target] for labels
    groups: list[str]  # rows with equal values belong together (a MultiRC question); otherwise the row's id
    labels: list[str] | None  # label words in class order; None where the target is free text

    def __post_init__(self) -> None:
        sizes = {len(self.predictions), len(self.references), len(self.groups)}
        if len(sizes) != 1:
            raise ValueError(
                f"predictions, references and groups differ in length: "
                f"{len(self.predictions)}, {len(self.references)}, {len(self.groups)}"
            )
        if not self.predictions:
            raise DataError("there are no rows to score: the split is empty")
        for row, references in enumerate(self.references):
            self._check_references(row, references)

    def _check_references(self, row: int, references: list[str]) -> None:
        if not references:
            raise DataError(f"row {row} (group '{self.groups[row]}') has no reference to be scored against")
        unknown = [word for word in references if self.labels is not None and word not in self.labels]
        if unknown:
            raise DataError(
                f"row {row} (group '{self.groups[row]}'): the reference '{unknown[0]}' is no label word of its task; "
                f"{nearest(unknown[0], self.labels or [])}"
            )


def plain(text: str) -> str:
    """`text` without outer spaces and with single inner ones, which is all that a tokenizer's round trip may change.

    Case is kept: the model was trained to write the label words exactly as they stand, so "true" is not "True".
    """
    return " ".join(text.split())


def always_readable(prediction: str, scored: Scored) -> bool:
    """Free text: every prediction can be compared, the empty one is wrong and no more than that."""
    return True


def readable_as_label(prediction: str, scored: Scored) -> bool:
    """Whether a prediction is one of the task's label words; free text (labels None) is always readable."""
    return scored.labels is None or plain(prediction) in scored.labels
