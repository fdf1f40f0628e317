"""What an experiment's file says besides differences of settings."""

from typing import Annotated, Any

from pydantic import Field

from pemt_core.schema.group import Group
from pemt_core.schema.numbers import Amount, Count, Distinct, Name, Seed

BASE = "base"  # the variant without differences

Text = Annotated[str, Field(min_length=1, max_length=1000)]


class Variant(Group):
    """A variant of what methods start from: another backbone or other source adapters, and the methods on it."""

    backbone: dict[str, Any] = Field(default_factory=dict)  # differences from the group `backbone`
    train_source: dict[str, Any] = Field(default_factory=dict)  # differences from the group `train_source`
    methods: Annotated[list[Name], Field(min_length=1), Distinct] | None = None  # None: those of the group `transfer`


class Statistics(Group):
    """How results are tested, beside `report.confidence`."""

    margin: Amount  # points: a smaller difference does not matter
    draws: Annotated[Count, Field(ge=2)]  # of the bootstrap
    seed: Seed  # of the bootstrap


class Definition(Group):
    """The keys of an experiment's file that are not groups of settings; `statistics` may be in the shared file."""

    title: Text
    about: Text
    reference: Name  # the column that others are compared with
    family: list[Name] | None = None  # the columns that are tested against it; None: all others
    controls: list[Name] = Field(default_factory=list)  # columns that should be worse; the report warns if one is not
    statistics: Statistics
    variants: Annotated[dict[Name, Variant], Field(min_length=1)] = Field(default_factory=lambda: {BASE: Variant()})
    development: bool = False  # for choosing settings: tests are not read, and the best learning rates are printed

    def has_own_backbone(self, variant: str) -> bool:
        """Whether a variant changes the backbone; the others share one."""
        return bool(self.variants[variant].backbone)

    def column(self, method: str, variant: str) -> str:
        """The name in tables of a method on a variant's source adapters."""
        return method if variant == BASE or len(self.variants) == 1 else f"{method}_{variant}"
