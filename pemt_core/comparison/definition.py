"""What an experiment's file says besides differences of settings."""

from typing import Annotated, Any

from pydantic import Field

from pemt_core.schema.group import Group
from pemt_core.schema.numbers import Name

BASE = "base"  # the variant of stage 1 without differences

Text = Annotated[str, Field(min_length=1, max_length=1000)]


class Variant(Group):
    """A variant of stage 1, and the methods that are compared on its source adapters."""

    train_source: dict[str, Any] = Field(default_factory=dict)  # differences from the group `train_source`
    methods: Annotated[list[Name], Field(min_length=1)] | None = None  # None: those of the group `transfer`


class Definition(Group):
    """The keys of an experiment's file that are not groups of settings."""

    title: Text
    about: Text
    reference: Name  # the column that others are compared with
    family: list[Name] | None = None  # the columns that are tested against it; None: all others
    variants: Annotated[dict[Name, Variant], Field(min_length=1)] = Field(default_factory=lambda: {BASE: Variant()})
    development: bool = False  # for choosing settings: tests are not read, and the best learning rates are printed

    def column(self, method: str, variant: str) -> str:
        """The name in tables of a method on a variant's source adapters."""
        return method if variant == BASE or len(self.variants) == 1 else f"{method}_{variant}"
