"""The groups of methods that figures tell apart by colour and marker, since there are more methods than colours."""

from collections.abc import Sequence
from dataclasses import dataclass

from pemt_core.artifacts.result import CellResult
from pemt_core.comparison.compared import Compared
from pemt_core.report.palette import COLOURS, MARKERS, SHAPES


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
CONTROL = GroupStyle("control", 3, hollow=True)
GROUPS = (REFERENCE, WITH_SOURCES, WITHOUT_SOURCES, CONTROL)


def group_of(compared: Compared, column: str, results: Sequence[CellResult]) -> GroupStyle:
    """The group of a column of results."""
    if column == compared.reference:
        return REFERENCE
    if column in compared.definition.controls:
        return CONTROL
    return WITH_SOURCES if any(result.sources for result in results) else WITHOUT_SOURCES
