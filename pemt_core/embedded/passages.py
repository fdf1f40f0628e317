"""Passages and questions about them, for all reading tasks."""

from collections.abc import Sequence
from dataclasses import dataclass

from pemt_core.embedded.language import Role, asked_roles, name, question, sentences, spoken
from pemt_core.embedded.relations import BETWEEN_PEOPLE, OF_PEOPLE, OF_THINGS, Relation
from pemt_core.embedded.world import Fact, World

ASKED_OF_PEOPLE = tuple(relation for relation in OF_PEOPLE if relation.asks_value)
ASKED_OF_THINGS = tuple(relation for relation in OF_THINGS if relation.asks_value)
_PEOPLE_SHARE = 0.75
_EXTRA_SHARE = 0.25
_ONE_RELATION_SHARE = 0.5
_THREE_SHARE = 0.4


@dataclass(frozen=True)
class Passage:
    """Facts, each with the sentence that states it."""

    facts: tuple[Fact, ...]
    sentences: tuple[str, ...]

    @property
    def text(self) -> str:
        return " ".join(self.sentences)


@dataclass(frozen=True)
class Asked:
    """A question, its answer in the words of the passage, and the fact that has it."""

    question: str
    answer: str
    fact: Fact
    role: Role


def tell(world: World, facts: Sequence[Fact]) -> Passage:
    return Passage(tuple(facts), tuple(sentences(world, facts)))


def draw_facts(world: World, asked: Sequence[Relation] | None = None) -> list[Fact]:
    """Draw the same relations for two or three people or things, so only reading shows who has what."""
    draw = world.draw
    of_people = draw.chance(_PEOPLE_SHARE) if asked is None else asked is not ASKED_OF_THINGS
    pool = asked or (ASKED_OF_PEOPLE if of_people else ASKED_OF_THINGS)
    relations = draw.sample(pool, 1 if draw.chance(_ONE_RELATION_SHARE) else 2)
    is_three = draw.chance(_THREE_SHARE)
    subjects = world.subjects(relations, 3 if is_three else 2)
    facts = world.grid(relations, subjects)
    facts = draw.sample(facts, min(4, len(facts)))
    if draw.chance(_EXTRA_SHARE):
        facts.append(_extra(world, subjects, of_people))
    return ordered(world, facts)


def ordered(world: World, facts: Sequence[Fact]) -> list[Fact]:
    """Return the facts in random order, half of the time grouped by subject."""
    mixed = world.draw.shuffled(facts)
    if world.draw.chance(0.5):
        return mixed
    subjects = list(dict.fromkeys(fact.subject for fact in mixed))
    return sorted(mixed, key=lambda fact: subjects.index(fact.subject))


def _extra(world: World, subjects: Sequence[str], of_people: bool) -> Fact:
    """Draw one more fact, about something that the others do not mention."""
    if of_people and world.draw.chance(0.5):
        first, second = subjects[:2]
        world.require(world.joins(first, second))
        return Fact(world.draw.pick(BETWEEN_PEOPLE), first, second)
    scales = [relation for relation in (OF_PEOPLE if of_people else OF_THINGS) if relation.binary]
    relation = world.draw.pick([relation for relation in scales if subjects[0] in relation.subjects])
    return world.fact(relation, subjects[0])


def ask(world: World, passage: Passage, roles: Sequence[Role] | None = None, but: Sequence[Fact] = ()) -> Asked:
    """Ask a question that one of the passage's facts answers, except those in `but`."""
    at = world.draw.below(len(passage.facts))
    fact = passage.facts[at]
    world.require(fact not in but)
    role = world.draw.pick(roles or asked_roles(fact.relation))
    answer = spoken(fact.value, passage.sentences[at]) if role is Role.VALUE else name(world, fact.subject)
    if fact.relation.symmetric and role is Role.SUBJECT:
        world.require(fact.value != answer)
    return Asked(question(world, fact, role), answer, fact, role)
