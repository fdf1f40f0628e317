"""Apply split rules: which rows of which official split each role gets, and in which order.

Every official split is permuted once, by torch.randperm with a generator seeded by the split seed; shares are counted
along that permutation. Rows are written in this order too, so the first n rows of any prepared split are a random
sample of it.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass

import datasets
import numpy as np
import torch
from numpy.typing import NDArray

from pemt_core.tasks.split_rules import Share, SplitRule, Unit
from pemt_core.tasks.values import RawRow, value_at

MOST_HELD_OUT = 1_000
HELD_OUT_DIVISOR = 10  # at most 10 % of train

Indices = NDArray[np.int64]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RowSelection:
    """Rows of one official split, in the order in which they are written."""

    split: str  # where the rows are read
    indices: Indices


@dataclass(frozen=True)
class SplitAssignment:
    """The rows of each role, and how many rows of train replace missing official splits: {split: rows}."""

    roles: Mapping[str, RowSelection]
    carved: Mapping[str, int]


@dataclass(frozen=True)
class _Pool:
    """The permuted rows of an official split, or of its replacement; `units` numbers their units in the same order."""

    split: str
    indices: Indices
    units: Indices | None

    def cut(self, num_rows: int) -> tuple["_Pool", "_Pool"]:
        """Return the first `num_rows` rows, extended to the end of a unit that the cut would split, and the rest."""
        at = num_rows
        if self.units is not None:
            while 0 < at < len(self.units) and self.units[at] == self.units[at - 1]:
                at += 1
        return self._slice(slice(None, at)), self._slice(slice(at, None))

    def _slice(self, part: slice) -> "_Pool":
        return _Pool(self.split, self.indices[part], None if self.units is None else self.units[part])


def assign_rows(rule: SplitRule, splits: Mapping[str, datasets.Dataset], split_seed: int) -> SplitAssignment:
    """Distribute the rows of the official `splits` over train, validation and test as `rule` says.

    An official split that the rule uses and the dataset lacks is carved from train by the large rule.
    """
    pools = {name: _permuted_pool(name, rows, rule.unit, split_seed) for name, rows in splits.items()}
    carved = {}
    for name in rule.official_splits:
        if name not in pools:
            pools[name], pools["train"] = pools["train"].cut(held_out_rows(len(pools["train"].indices)))
            carved[name] = len(pools[name].indices)
            logger.warning("split '%s' is missing: %d rows of train replace it", name, carved[name])
    roles = {}
    for role, portion in rule.roles.items():
        pool = _share(pools[portion.split], portion.share)
        roles[role] = RowSelection(pool.split, _in_written_order(pool, rule.unit, split_seed))
    return SplitAssignment(roles, carved)


def held_out_rows(num_rows: int) -> int:
    """Return how many of `num_rows` training rows the large rule holds out."""
    return min(MOST_HELD_OUT, num_rows // HELD_OUT_DIVISOR)


def unit_of(row: RawRow, unit: Unit | None) -> str | None:
    """Return a digest that rows of the same unit share, None if the units are single rows."""
    return None if unit is None else _digest(row, unit)


def permutation(length: int, seed: int) -> Indices:
    """Return a permutation of 0 .. length - 1 that depends on the seed alone."""
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed)).numpy()


def _share(pool: _Pool, share: Share) -> _Pool:
    num_rows = len(pool.indices)
    match share:
        case Share.ALL:
            return pool
        case Share.FIRST_HALF:
            return pool.cut(num_rows // 2)[0]
        case Share.SECOND_HALF:
            return pool.cut(num_rows // 2)[1]
        case Share.HELD_OUT:
            return pool.cut(held_out_rows(num_rows))[0]
        case Share.REMAINDER:
            return pool.cut(held_out_rows(num_rows))[1]


def _permuted_pool(split: str, rows: datasets.Dataset, unit: Unit | None, seed: int) -> _Pool:
    """Permute a split's rows, or its units, whose rows then stay together in their original order."""
    if unit is None:
        return _Pool(split, permutation(len(rows), seed), None)
    units = _unit_numbers(rows, unit)
    rank = permutation(int(units.max(initial=-1)) + 1, seed)
    position_of_unit = np.empty_like(rank)
    position_of_unit[rank] = np.arange(len(rank))
    order = np.argsort(position_of_unit[units], kind="stable")
    return _Pool(split, order, units[order])


def _unit_numbers(rows: datasets.Dataset, unit: Unit) -> Indices:
    """Number each row's unit in order of first appearance. Keeps digests, not texts."""
    numbers: dict[str, int] = {}
    found = np.empty(len(rows), dtype=np.int64)
    column = unit.path[0]
    at = 0
    for batch in rows.select_columns([column]).iter(batch_size=1_000):
        for value in batch[column]:
            found[at] = numbers.setdefault(_digest({column: value}, unit), len(numbers))
            at += 1
    return found


def _in_written_order(pool: _Pool, unit: Unit | None, seed: int) -> Indices:
    """Scatter the rows of each unit, so that a prefix has many units, unless a metric needs them together."""
    if unit is None or unit.contiguous:
        return pool.indices
    return pool.indices[permutation(len(pool.indices), seed)]


def _digest(row: RawRow, unit: Unit) -> str:
    return hashlib.blake2b(str(value_at(row, unit.path)).encode(), digest_size=16).hexdigest()
