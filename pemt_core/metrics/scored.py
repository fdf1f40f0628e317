"""The input of metrics: predictions with their references, and the rules for which predictions are readable.

A model that generates text can write something that is not an answer. Such a prediction is never mapped to a default
class (class 0 would be right for every row of that class); each metric defines how it counts.
"""

from dataclasses import dataclass

from pemt_core.errors import DataError, nearest


@dataclass(frozen=True)
class Scored:
    """The rows of one split after generation; all lists have one entry per row."""

    predictions: list[str]  # as decoded, special tokens removed
    references: list[list[str]]  # every right answer, in the dataset's order; [target] for labels
    groups: list[str]  # equal for rows that belong together (a MultiRC question); otherwise the row's id
    labels: list[str] | None  # label words in class order; None for free text

    def __post_init__(self) -> None:
        sizes = {len(self.predictions), len(self.references), len(self.groups)}
        if len(sizes) != 1:
            raise ValueError(
                f"predictions, references and groups differ in length: "
                f"{len(self.predictions)}, {len(self.references)}, {len(self.groups)}"
            )
        if not self.predictions:
            raise DataError("the split is empty: no rows to score")
        for row, references in enumerate(self.references):
            self._check_references(row, references)

    def _check_references(self, row: int, references: list[str]) -> None:
        if not references:
            raise DataError(f"row {row} (group '{self.groups[row]}') has no reference to score against")
        unknown = [word for word in references if self.labels is not None and word not in self.labels]
        if unknown:
            raise DataError(
                f"row {row} (group '{self.groups[row]}'): the reference '{unknown[0]}' is not a label word; "
                f"{nearest(unknown[0], self.labels or [])}"
            )


def plain(text: str) -> str:
    """Collapse the spaces of `text`, the only part that a tokenizer's round trip may change.

    Case is kept: the model was trained to write the label words exactly, so "true" is not "True".
    """
    return " ".join(text.split())


ANY_REFERENCE = "any text"


def any_reference(reference: str) -> bool:
    """True for every reference."""
    return True


def always_readable(prediction: str, scored: Scored) -> bool:
    """True for every prediction: free text can always be compared, and the empty prediction is merely wrong."""
    return True


def readable_as_label(prediction: str, scored: Scored) -> bool:
    """Whether a prediction is one of the task's label words; free text (labels None) is always readable."""
    return scored.labels is None or plain(prediction) in scored.labels
