"""Split rules as values: from which official split, and from which share of it, each role takes its rows.

No suite has public test labels for all its tasks, so the official validation split, or half of it, serves as the test
split. `pemt_core.preparation.splits` applies the rules.
"""

from dataclasses import dataclass
from enum import Enum


class Share(Enum):
    """The part of an official split that a role takes, counted along the split's permutation."""

    ALL = "all"
    FIRST_HALF = "first half"
    SECOND_HALF = "second half"
    HELD_OUT = "held out"  # the first min(1,000, 10 %)
    REMAINDER = "remainder"  # all but HELD_OUT


@dataclass(frozen=True)
class Portion:
    """A share of one official split."""

    split: str
    share: Share = Share.ALL


@dataclass(frozen=True)
class Unit:
    """Rows with the same value at `path`, a column or a field in it; no two splits may share a unit."""

    path: tuple[str, ...]
    contiguous: bool = False  # keep a unit's rows together within a split, for a metric per unit


@dataclass(frozen=True)
class SplitRule:
    """Where the rows of the three roles come from. Portions of one official split never overlap."""

    name: str
    train: Portion
    validation: Portion
    test: Portion
    unit: Unit | None = None  # None: single rows

    @property
    def roles(self) -> dict[str, Portion]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def official_splits(self) -> tuple[str, ...]:
        """The official splits that the rule uses, train first."""
        return tuple(dict.fromkeys(portion.split for portion in self.roles.values()))


def small(unit: Unit | None = None) -> SplitRule:
    """Halve the official validation split: one half selects the model, the other is the test split."""
    return SplitRule(
        "small",
        train=Portion("train"),
        validation=Portion("validation", Share.FIRST_HALF),
        test=Portion("validation", Share.SECOND_HALF),
        unit=unit,
    )


def large(test: str = "validation", unit: Unit | None = None) -> SplitRule:
    """Hold out a part of train for validation; the official split `test` stays whole."""
    return SplitRule(
        "large",
        train=Portion("train", Share.REMAINDER),
        validation=Portion("train", Share.HELD_OUT),
        test=Portion(test),
        unit=unit,
    )


def own(validation: str, test: str) -> SplitRule:
    """Use three official splits as they are."""
    return SplitRule("own", train=Portion("train"), validation=Portion(validation), test=Portion(test))


BY_PASSAGE = Unit(("context",))
BY_QUESTION = Unit(("idx", "question"), contiguous=True)
