"""The groups of methods that figures tell apart by colour and marker, since there are more methods than colours."""

from collections.abc import Sequence
from dataclasses import dataclass

from pemt_core.artifacts.result import CellResult
from pemt_core.comparison.compared import Compared
from pemt_core.report.palette import COLOURS, MARKERS, SHAPES

CONTROLS = ("permuted", "random_bank", "shuffled_prompts")  # without the knowledge that the method claims to use
EQUAL = "uniform"  # without the choice that the method claims to make


@dataclass(frozen=True)
class GroupStyle:
    """The look of a group. `place` is that in COLOURS, MARKERS and SHAPES."""

    title: str
    place: int
    hollow: bool = False

    @property
    def colour(self) -> str:
        return COLOURS[self.place]

    @property
    def marker(self) -> str:
        return MARKERS[self.place]

    @property
    def shape(self) -> str:
        return SHAPES[self.place]


REFERENCE = GroupStyle("reference", 0)
WITH_SOURCES = GroupStyle("draws on sources", 2)
WITHOUT_SOURCES = GroupStyle("without sources", 1)
CONTROL = GroupStyle("negative control", 3, hollow=True)
GROUPS = (REFERENCE, WITH_SOURCES, WITHOUT_SOURCES, CONTROL)


def group_of(compared: Compared, column: str, results: Sequence[CellResult]) -> GroupStyle:
    """The group of a column of results."""
    if column == compared.reference:
        return REFERENCE
    if is_control(compared, column):
        return CONTROL
    return WITH_SOURCES if any(result.sources for result in results) else WITHOUT_SOURCES


def is_control(compared: Compared, column: str) -> bool:
    """Whether a column is a negative control."""
    return _method(compared, column) in CONTROLS


def is_equal_weights(compared: Compared, column: str) -> bool:
    """Whether a column mixes all sources equally."""
    return _method(compared, column) == EQUAL


def _method(compared: Compared, column: str) -> str:
    """The name of a column's method."""
    return column.removesuffix(f"_{compared.variants[column]}")
