"""qqp, mrpc and paws: do two texts say or ask the same?"""

from dataclasses import replace
from typing import Any

from pemt_core.embedded.language import Role, asked_roles, clause, joined, question
from pemt_core.embedded.relations import BETWEEN_PEOPLE, OF_PEOPLE, OF_THINGS, RELATIONS, Relation, templates
from pemt_core.embedded.world import Fact, World

Row = dict[str, Any]

_WHETHER_SHARE = 0.3
_TOLD = templates(
    "{a}, and {b}. | {a}; {b}. | It is known that {a} and that {b}. | The paper says that {a}, and {b}. "
    "| {a}, while {b}."
)
_FAMILIES = (OF_PEOPLE, BETWEEN_PEOPLE, OF_THINGS)


def qqp(world: World, number: int) -> list[Row]:
    """Two questions; duplicates ask for the same side of the same fact in different words."""
    label = number % 2
    relation = world.draw.pick(RELATIONS)
    role = Role.WHETHER if world.draw.chance(_WHETHER_SHARE) else world.draw.pick(asked_roles(relation))
    fact = _asked(world, relation, role)
    other, other_role = (fact, role) if label else _other_question(world, fact, role)
    first = question(world, fact, role)
    second = question(world, other, other_role, avoiding=first)
    if fact.relation.symmetric and label and role is not Role.WHETHER and world.draw.chance(0.5):
        # "Who met Ben?" and "Who did Ben meet?" ask the same
        second = question(world, fact.swapped, _turned(role), avoiding=first)
    return [{"question1": first, "question2": second, "label": label}]


def _asked(world: World, relation: Relation, role: Role) -> Fact:
    """Draw a fact to ask for. The word that the question names is paired with the relation; the other is free."""
    if role is Role.WHETHER:
        return world.fact(relation)
    if role is Role.VALUE:
        subject = world.partner(relation.name, relation.subjects)
        return Fact(relation, subject, world.draw.pick([value for value in relation.values if value != subject]))
    value = world.partner(relation.name, relation.values)
    return Fact(relation, world.draw.pick([subject for subject in relation.subjects if subject != value]), value)


def _other_question(world: World, fact: Fact, role: Role) -> tuple[Fact, Role]:
    """Draw a question that shares words with the given one but asks something else."""
    relation, draw = fact.relation, world.draw
    which = draw.below(3)
    if which == 0 and relation.between_people and not relation.symmetric:
        return (fact.swapped, role) if role is Role.WHETHER else (fact.swapped, _turned(role))
    if which == 1 and role is not Role.SUBJECT:
        family = next(family for family in _FAMILIES if relation in family)
        others = [other for other in family if other is not relation and fact.subject in other.subjects]
        other = draw.pick([other for other in others if other.asks_value or role is Role.WHETHER])
        return replace(fact, relation=other, value=world.value(other, fact.subject)), role
    if role is Role.VALUE or (role is Role.WHETHER and draw.chance(0.5)):
        known = fact.value if role is Role.WHETHER else relation.name
        return replace(fact, subject=world.partner(known, relation.subjects, [fact.subject, fact.value])), role
    known = fact.subject if role is Role.WHETHER else relation.name
    return replace(fact, value=world.partner(known, relation.values, [fact.subject, fact.value])), role


def _turned(role: Role) -> Role:
    return Role.SUBJECT if role is Role.VALUE else Role.VALUE


def mrpc(world: World, number: int) -> list[Row]:
    """Two texts of two facts each; equivalent if both state the same facts, in any order and words."""
    label = number % 2
    facts = _two_facts(world)
    others = facts if label else _one_changed(world, facts)
    texts = [_tell(world, each) for each in (facts, others)]
    world.require(texts[0] != texts[1])
    return [{"sentence1": texts[0], "sentence2": texts[1], "label": label}]


def two_facts(world: World) -> str:
    """Draw a text of two facts."""
    return _tell(world, _two_facts(world))


def _tell(world: World, facts: list[Fact]) -> str:
    first, second = (clause(world, fact) for fact in world.draw.shuffled(facts))
    text = world.phrase(_TOLD).format(a=first, b=second)
    return f"{text[0].upper()}{text[1:]}"


def _two_facts(world: World) -> list[Fact]:
    """Draw facts about two people or things, half of the time with the same relation."""
    draw = world.draw
    family = draw.pick(_FAMILIES)
    relations = [draw.pick(family)] * 2 if draw.chance(0.5) else draw.sample(family, 2)
    subjects = world.subjects(relations, 2)
    facts = [world.fact(relation, subject) for relation, subject in zip(relations, subjects, strict=True)]
    return [fact.denied if draw.chance(0.2) else fact for fact in facts]


def _one_changed(world: World, facts: list[Fact]) -> list[Fact]:
    """Return the facts with one change: exchanged values, a denial, a swapped fact or another value."""
    draw = world.draw
    first, second = draw.shuffled(facts)
    which = draw.below(4)
    if which == 0 and first.relation is second.relation and not first.relation.between_people:
        changed = [replace(first, value=second.value), replace(second, value=first.value)]
        world.require(world.joins(first.subject, second.value) and world.joins(second.subject, first.value))
    elif which == 1:
        changed = [first.denied, second]
    elif which == 2 and first.relation.between_people and not first.relation.symmetric:
        changed = [first.swapped, second]
    else:
        changed = [replace(first, value=world.value(first.relation, first.subject, [first.value])), second]
    world.require({fact.meaning for fact in changed} != {fact.meaning for fact in facts})
    return changed


def paws(world: World, number: int) -> list[Row]:
    """The same words in another order: paraphrases reorder facts, other rows exchange who goes with what."""
    label = number % 2
    draw = world.draw
    first, second = _crossable(world)
    if first.relation.between_people:
        other = first if label else first.swapped
        texts = [joined(world, [first]), joined(world, [other])]
    else:
        crossed = [replace(first, value=second.value), replace(second, value=first.value)]
        if world.training or not label:  # in evaluation, a new pair counts only if the text has it
            world.require(all(world.joins(fact.subject, fact.value) for fact in crossed))
        pair = [first, second] if label else crossed
        texts = [joined(world, draw.shuffled(each)) for each in ([first, second], pair)]
    world.require(texts[0] != texts[1])
    return [{"sentence1": texts[0], "sentence2": texts[1], "label": label}]


def _crossable(world: World) -> tuple[Fact, Fact]:
    """Draw two facts of one relation with different subjects and values."""
    relation = world.draw.pick([relation for relation in RELATIONS if not relation.symmetric])
    first, second = world.grid([relation], world.subjects([relation], 2))
    world.require(first.value != second.value)
    return first, second
