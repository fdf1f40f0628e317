"""The world of one row: a few people and things, and facts about them.

Facts are drawn anew for every row, so answers must be read and cannot be remembered. All rows share the language and
the pairs of words that are new in evaluation: a fifth of all pairs of a subject and a value ("Anna", "doctor") occur in
no training row, and every evaluation row has at least one of them. The two poles of a scale count as one value.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from pemt_core.embedded.draw import Draw
from pemt_core.embedded.lexicon import Words, axis, opposite, ways_to_say
from pemt_core.embedded.relations import Relation

_NEW_PAIRS = 5  # one pair in this many is reserved for evaluation
_NEW_TEMPLATE_SHARE = 0.25  # of an evaluation row's sentences; no training row uses these templates


@dataclass(frozen=True)
class Fact:
    """A relation holds between a subject and a value, or does not, if not `positive`."""

    relation: Relation
    subject: str
    value: str
    positive: bool = True

    @property
    def meaning(self) -> tuple[str, str, str, bool]:
        """A key that is equal for two facts with the same meaning."""
        subject, value, positive = self.subject, self.value, self.positive
        if self.relation.binary and not positive:
            value, positive = opposite(value), True
        if self.relation.symmetric and value < subject:
            subject, value = value, subject
        return self.relation.name, subject, value, positive

    @property
    def denied(self) -> "Fact":
        return replace(self, positive=not self.positive)

    @property
    def swapped(self) -> "Fact":
        """The fact with subject and value exchanged."""
        return replace(self, subject=self.value, value=self.subject)


class DeadEndError(Exception):
    """The draws so far are a dead end; the row starts over."""


class World:
    """Draws people, things and facts for the rows of one split of one dataset."""

    def __init__(self, seed: int, name: str, split: str, *, training: bool, every_template: bool = False) -> None:
        """Without `training`, rows have new pairs and templates; `every_template` treats all templates alike."""
        self.draw = Draw(seed, name, split)
        self.training = training
        self._every_template = every_template
        self.has_new_pair = False
        self._seed = seed
        self._called: dict[str, str] = {}

    def begin_row(self) -> None:
        self.has_new_pair = False
        self._called = {}

    def called(self, thing: str) -> str:
        """Return the word for a thing, which may be a synonym; it is the same throughout a row."""
        if thing not in self._called:
            self._called[thing] = self.draw.pick(ways_to_say(thing))
        return self._called[thing]

    @property
    def row_is_complete(self) -> bool:
        """Whether the row is usable: an evaluation row must have a pair that no training row has."""
        return self.training or self.has_new_pair

    def joins(self, first: str, second: str) -> bool:
        """Whether the two words may occur together in this split; notes a new pair."""
        is_new = is_new_pair(self._seed, *sorted((axis(first), axis(second))))
        if self.training:
            return not is_new
        self.has_new_pair |= is_new
        return True

    def value(self, relation: Relation, subject: str, taken: Sequence[str] = ()) -> str:
        """Draw a value that `subject` may have and that is not in `taken`."""
        return self._joining(subject, relation.values, taken)

    def partner(self, word: str, candidates: Words, taken: Sequence[str] = ()) -> str:
        """Draw a candidate that may occur with `word` and is not in `taken`."""
        return self._joining(word, candidates, taken)

    def fact(self, relation: Relation, subject: str | None = None, taken: Sequence[str] = ()) -> Fact:
        """Draw a positive fact about `subject`, or about anyone, whose value is not in `taken`."""
        subject = subject or self.draw.pick(relation.subjects)
        return Fact(relation, subject, self.value(relation, subject, taken))

    def subjects(self, relations: Sequence[Relation], count: int, taken: Sequence[str] = ()) -> list[str]:
        """Draw different subjects to which all of `relations` apply."""
        fewest = min((relation.subjects for relation in relations), key=len)
        return self.draw.sample([subject for subject in fewest if subject not in taken], count)

    def grid(self, relations: Sequence[Relation], subjects: Sequence[str]) -> list[Fact]:
        """Draw a fact for each relation and subject; subjects share values only of binary relations."""
        facts: list[Fact] = []
        for relation in relations:
            taken = list(subjects) if relation.between_people else []
            for subject in subjects:
                facts.append(self.fact(relation, subject, () if relation.binary else taken))
                taken.append(facts[-1].value)
        return facts

    def phrase(self, templates: Words) -> str:
        """Draw one of the templates; the last is reserved for evaluation."""
        if self._every_template or len(templates) == 1:
            return self.draw.pick(templates)
        if self.training:
            return self.draw.pick(templates[:-1])
        is_new = self.draw.chance(_NEW_TEMPLATE_SHARE)
        return templates[-1] if is_new else self.draw.pick(templates[:-1])

    def require(self, condition: bool) -> None:
        """Start the row over unless the condition holds."""
        if not condition:
            raise DeadEndError

    def _joining(self, word: str, candidates: Words, taken: Sequence[str]) -> str:
        for _ in range(20):
            candidate = self.draw.pick(candidates)
            if candidate != word and candidate not in taken and self.joins(word, candidate):
                return candidate
        raise DeadEndError


@cache
def is_new_pair(seed: int, first: str, second: str) -> bool:
    """Whether the two words, in alphabetical order, occur together in no training row."""
    return zlib.crc32(f"{seed} {first} {second}".encode()) % _NEW_PAIRS == 0
