"""qnli, boolq and multirc: does a text answer a question, is the answer yes, which answers are right?"""

from dataclasses import replace
from typing import Any

from pemt_core.embedded.inference import CONTRADICTION, ENTAILMENT, draw_pair
from pemt_core.embedded.language import Role, asked_roles, joined, question
from pemt_core.embedded.lexicon import PEOPLE, ways_to_say
from pemt_core.embedded.passages import ASKED_OF_PEOPLE, ordered, tell
from pemt_core.embedded.reading import as_typed
from pemt_core.embedded.relations import BETWEEN_PEOPLE, OF_PEOPLE, OF_THINGS, RELATIONS, Relation
from pemt_core.embedded.world import Fact, World

Row = dict[str, Any]

_TWO_FACTS_SHARE = 0.4
_ABSENT_SHARE = 0.4
_LISTED = tuple(relation for relation in ASKED_OF_PEOPLE if not relation.exclusive)  # people may own two things


def qnli(world: World, number: int) -> list[Row]:
    label = number % 2  # 1: not_entailment
    draw = world.draw
    fact = world.fact(draw.pick(RELATIONS))
    role = draw.pick(asked_roles(fact.relation))
    facts = [_beside(world, fact, role) if label else fact]
    if draw.chance(_TWO_FACTS_SHARE):
        facts.append(_decoy(world, fact, facts[0], role))
    world.require(any(answers(each, fact, role) for each in facts) == (label == 0))
    return [{"question": question(world, fact, role), "sentence": joined(world, draw.shuffled(facts)), "label": label}]


def answers(told: Fact, asked: Fact, role: Role) -> bool:
    """Whether `told` answers the question for the value or the subject of `asked`."""
    if told.relation is not asked.relation:
        return False
    turns = (told, told.swapped) if told.relation.symmetric else (told,)
    if role is Role.VALUE:
        return any(turn.subject == asked.subject for turn in turns)
    return any(turn.value == asked.value for turn in turns)


def _beside(world: World, fact: Fact, role: Role) -> Fact:
    """Draw a fact that shares words with `fact` but does not answer the question for it."""
    relation, draw = fact.relation, world.draw
    if relation.between_people and not relation.symmetric and draw.chance(0.4):
        return fact.swapped
    if draw.chance(0.5):
        if role is Role.VALUE:
            return _of_another(world, fact)
        return world.fact(relation, fact.subject, [fact.value])
    return _otherwise_of_same(world, fact, role)


def _of_another(world: World, fact: Fact) -> Fact:
    return replace(fact, subject=world.partner(fact.value, fact.relation.subjects, [fact.subject, fact.value]))


def _otherwise_of_same(world: World, fact: Fact, role: Role) -> Fact:
    """Draw another relation of the person or thing that the question names, or of anyone if it names nobody."""
    named_person = role is Role.VALUE or fact.relation.between_people
    subject = fact.subject if role is Role.VALUE else fact.value if named_person else None
    family = OF_PEOPLE + BETWEEN_PEOPLE if fact.subject in PEOPLE else OF_THINGS
    others = [each for each in family if each is not fact.relation and (not subject or subject in each.subjects)]
    return world.fact(world.draw.pick(others), subject)


def _decoy(world: World, asked: Fact, told: Fact, role: Role) -> Fact:
    """Draw a distracting second fact for the sentence: the same relation of others, or another relation."""
    draw = world.draw
    if draw.chance(0.5):
        relation = told.relation
        subjects = [each for each in relation.subjects if each not in (told.subject, told.value, asked.subject)]
        return world.fact(relation, draw.pick(subjects), [asked.value, told.value])
    return _otherwise_of_same(world, asked, role)


def boolq(world: World, number: int) -> list[Row]:
    """A yes or no question as typed into a search box, and a passage that answers it."""
    label = number % 2
    relation = world.draw.pick(RELATIONS)
    fact, hypothesis, others = draw_pair(world, ENTAILMENT if label else CONTRADICTION, relation)
    world.require(hypothesis.positive)
    family = OF_PEOPLE if fact.subject in PEOPLE else OF_THINGS
    other = world.draw.pick([each for each in family if each is not relation])
    (stranger,) = world.subjects([other], 1, [word for each in (fact, *others) for word in (each.subject, each.value)])
    told = tell(world, ordered(world, [fact, *others, world.fact(other, stranger)]))
    return [{"question": as_typed(question(world, hypothesis, Role.WHETHER)), "passage": told.text, "label": label}]


def multirc(world: World, number: int) -> list[Row]:
    """A question with several right answers; each candidate is a row."""
    facts, asked, role, candidates = _several_of_one(world) if world.draw.chance(0.5) else _several_who(world)
    other = world.draw.pick([each for each in OF_PEOPLE if each.binary])
    facts = ordered(world, [*facts, world.fact(other, facts[0].subject)])
    paragraph = tell(world, facts).text
    text = question(world, asked, role)
    return [
        {
            "paragraph": paragraph,
            "question": text,
            "answer": world.draw.pick(ways_to_say(candidate)),
            "idx": {"paragraph": number, "question": number, "answer": position},
            "label": int(any(is_right(fact, asked, role, candidate) for fact in facts)),
        }
        for position, candidate in enumerate(world.draw.shuffled(candidates))
    ]


def is_right(fact: Fact, asked: Fact, role: Role, candidate: str) -> bool:
    """Whether `fact` makes `candidate` a right answer."""
    found = fact.value if role is Role.VALUE else fact.subject
    return fact.positive and answers(fact, asked, role) and found == candidate


def _several_of_one(world: World) -> tuple[list[Fact], Fact, Role, list[str]]:
    """Two people with two things each: "What does Anna own?"."""
    relation = world.draw.pick(_LISTED)
    first, second = world.subjects([relation], 2)
    facts: list[Fact] = []
    for subject in (first, first, second, second):
        facts.append(world.fact(relation, subject, [fact.value for fact in facts]))
    return facts, facts[0], Role.VALUE, [fact.value for fact in facts]


def _several_who(world: World) -> tuple[list[Fact], Fact, Role, list[str]]:
    """Three people, two of them right, and sometimes one whom no fact mentions: "Who lives in Oslo?"."""
    relation: Relation = world.draw.pick(ASKED_OF_PEOPLE)
    people = world.subjects([relation], 4)
    fact = world.fact(relation, people[0])
    world.require(world.joins(people[1], fact.value))
    facts = [fact, replace(fact, subject=people[1]), world.fact(relation, people[2], [fact.value])]
    candidates = people if world.draw.chance(_ABSENT_SHARE) else people[:3]
    return facts, fact, Role.SUBJECT, candidates
