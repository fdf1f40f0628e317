"""The configurations of a cell: the options of its method, each at every learning rate. Validation chooses one."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pemt_core.artifacts.cell import Cell
from pemt_core.artifacts.description import TargetDescription
from pemt_core.methods import Method
from pemt_core.settings.dotted import flatten

FIRST_ROUND = Fraction(1, 3)  # the share of the steps that all configurations of `halving` take


@dataclass(frozen=True)
class Configuration:
    """One option of a method at one learning rate, and the description of the cell if this is the one that is kept."""

    option: Method
    learning_rate: float
    label: str  # among the cell's configurations, such as "0.01" or "mnli, 0.01"
    description: TargetDescription


@dataclass(frozen=True)
class CellTraining:
    """One cell: its method, a description of what it comes from, and its configurations in their order."""

    method: Method
    description: TargetDescription
    configurations: list[Configuration]

    @property
    def cell(self) -> Cell:
        return self.description.cell


@dataclass(frozen=True)
class Trial:
    """A training of one configuration of a cell, to the end or to where a search stops the worse half."""

    training: CellTraining
    place: int  # of the configuration
    to_end: bool

    @property
    def until(self) -> Fraction | None:
        """The share of the steps after which it stops; None: the end."""
        return None if self.to_end else FIRST_ROUND

    @property
    def configuration(self) -> Configuration:
        return self.training.configurations[self.place]


def labels_of(options: Sequence[Method]) -> list[str]:
    """Name each option by the settings in which the options differ; the name of a single option is empty."""
    settings = [flatten(option.model_dump(), _in_words) for option in options]
    keys = dict.fromkeys(key for values in settings for key in values)
    differing = [key for key in keys if len({values.get(key) for values in settings}) > 1]
    return [" ".join(values.get(key, "absent") for key in differing) for values in settings]


def distinct(options: Sequence[Method]) -> list[Method]:
    """The options in their order, without repetitions."""
    return [option for place, option in enumerate(options) if option not in options[:place]]


def _in_words(value: Any) -> str:
    return "+".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
