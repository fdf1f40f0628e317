"""The world as one row sees it: a few people and things, and facts about them.

Every row has a little world of its own, so that an answer must be read and cannot be remembered. What stays the same
is the language, and which pairs of words are new in evaluation: a fifth of all pairs of a subject and a value
("Anna", "doctor") occur in no training row, and every evaluation row holds at least one of them. The two poles of a
scale count as one value.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from pemt_core.embedded.draw import Draw
from pemt_core.embedded.lexicon import Words, axis, opposite, ways_to_say
from pemt_core.embedded.relations import Relation

_NEW_PAIRS = 5  # one pair of so many is kept for evaluation
_NEW_TEMPLATE_SHARE = 0.25  # of an evaluation row's sentences, which say it in a way that no training row uses


@dataclass(frozen=True)
class Fact:
    """A relation holds between a subject and a value, or, where not `positive`, does not."""

    relation: Relation
    subject: str
    value: str
    positive: bool = True

    @property
    def meaning(self) -> tuple[str, str, str, bool]:
        """Equal for two facts that say the same."""
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
        """Subject and value changed over."""
        return replace(self, subject=self.value, value=self.subject)


class DeadEndError(Exception):
    """The draws so far leave no way to go on; the row is begun anew."""


class World:
    """Draws people, things and facts for the rows of one split of one dataset."""

    def __init__(self, seed: int, name: str, split: str, *, training: bool, every_template: bool = False) -> None:
        """Without `training`, rows hold new pairs and templates; `every_template` gives training those as well."""
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
        """The name of a thing, one of its synonyms, the same throughout a row."""
        if thing not in self._called:
            self._called[thing] = self.draw.pick(ways_to_say(thing))
        return self._called[thing]

    @property
    def row_is_complete(self) -> bool:
        """Whether the row may serve: in evaluation it must hold a pair that training does not."""
        return self.training or self.has_new_pair

    def joins(self, first: str, second: str) -> bool:
        """Whether the two words may stand together here, whichever comes first."""
        is_new = is_new_pair(self._seed, *sorted((axis(first), axis(second))))
        if self.training:
            return not is_new
        self.has_new_pair |= is_new
        return True

    def value(self, relation: Relation, subject: str, taken: Sequence[str] = ()) -> str:
        """A value that `subject` may have, none of `taken`."""
        return self._joining(subject, relation.values, taken)

    def partner(self, word: str, candidates: Words, taken: Sequence[str] = ()) -> str:
        """A candidate that may stand with `word`, none of `taken`."""
        return self._joining(word, candidates, taken)

    def fact(self, relation: Relation, subject: str | None = None, taken: Sequence[str] = ()) -> Fact:
        """A positive fact about `subject`, or about anyone, whose value is none of `taken`."""
        subject = subject or self.draw.pick(relation.subjects)
        return Fact(relation, subject, self.value(relation, subject, taken))

    def subjects(self, relations: Sequence[Relation], count: int, taken: Sequence[str] = ()) -> list[str]:
        """Different subjects of whom all of `relations` can be said."""
        fewest = min((relation.subjects for relation in relations), key=len)
        return self.draw.sample([subject for subject in fewest if subject not in taken], count)

    def grid(self, relations: Sequence[Relation], subjects: Sequence[str]) -> list[Fact]:
        """A fact for each relation and subject; no two subjects share a value where there are values enough."""
        facts: list[Fact] = []
        for relation in relations:
            taken = list(subjects) if relation.between_people else []
            for subject in subjects:
                facts.append(self.fact(relation, subject, () if relation.binary else taken))
                taken.append(facts[-1].value)
        return facts

    def phrase(self, templates: Words) -> str:
        """One of the templates; the last is kept for evaluation."""
        if self._every_template or len(templates) == 1:
            return self.draw.pick(templates)
        if self.training:
            return self.draw.pick(templates[:-1])
        is_new = self.draw.chance(_NEW_TEMPLATE_SHARE)
        return templates[-1] if is_new else self.draw.pick(templates[:-1])

    def require(self, condition: bool) -> None:
        """Begin the row anew unless the condition holds."""
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
    """Whether training rows never join the two words, which come in alphabetical order."""
    return zlib.crc32(f"{seed} {first} {second}".encode()) % _NEW_PAIRS == 0
