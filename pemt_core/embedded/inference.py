"""What follows from facts, and pairs of facts with a given label.

Whether a hypothesis is a denial is drawn independently of the label, so the hypothesis alone does not reveal the label.
"""

from collections.abc import Sequence
from dataclasses import replace

from pemt_core.embedded.lexicon import KINDS, PEOPLE, is_kind_of, opposite
from pemt_core.embedded.relations import BETWEEN_PEOPLE, OF_PEOPLE, OF_THINGS, Relation
from pemt_core.embedded.world import Fact, World

ENTAILMENT, NEUTRAL, CONTRADICTION = "entailment", "neutral", "contradiction"
_DENIED_HYPOTHESES = 0.25
_DENIED_OTHERS = 0.2
_SINGLE_PREMISES = 0.6


def judge(premises: Sequence[Fact], hypothesis: Fact) -> str:
    """Return the label of the hypothesis, given consistent premises."""
    verdicts = {_judge_one(premise, hypothesis) for premise in premises}
    return next((verdict for verdict in (ENTAILMENT, CONTRADICTION) if verdict in verdicts), NEUTRAL)


def _judge_one(premise: Fact, hypothesis: Fact) -> str:
    relation, subject, value, positive = premise.meaning
    relation_too, subject_too, value_too, positive_too = hypothesis.meaning
    if relation != relation_too:
        return NEUTRAL
    if premise.relation.asymmetric and positive and (subject, value) == (value_too, subject_too):
        return CONTRADICTION if positive_too else ENTAILMENT
    if subject != subject_too:
        return NEUTRAL
    if is_kind_of(value, value_too) if positive else is_kind_of(value_too, value):
        if positive != positive_too:  # a dog is an animal: having no animal excludes having a dog
            return CONTRADICTION
        return ENTAILMENT
    if positive and premise.relation.exclusive:
        return CONTRADICTION if positive_too else ENTAILMENT
    return NEUTRAL


def draw_pair(world: World, label: str, relation: Relation) -> tuple[Fact, Fact, list[Fact]]:
    """Draw a premise, a hypothesis with this label, and other facts that do not change the label."""
    draw = world.draw
    premise = world.fact(relation)
    positive = not draw.chance(_DENIED_HYPOTHESES)
    if label == NEUTRAL:
        hypothesis = _unrelated(world, premise)
    else:
        premise, hypothesis = _related(world, premise, entailed=(label == ENTAILMENT) == positive)
    hypothesis = hypothesis if positive else hypothesis.denied
    others = [other.denied if draw.chance(_DENIED_OTHERS) else other for other in _others(world, premise, hypothesis)]
    world.require(judge([premise, *others], hypothesis) == label)
    return premise, hypothesis, others


def _related(world: World, premise: Fact, entailed: bool) -> tuple[Fact, Fact]:
    """Return a premise and a positive hypothesis that it entails, or contradicts if not `entailed`."""
    relation = premise.relation
    same = replace(premise, value=_kind_or_same(world, premise))
    if entailed:
        if relation.binary and world.draw.chance(0.5):
            return replace(premise, value=opposite(premise.value), positive=False), premise
        return premise, _turned(world, same)
    if relation.asymmetric and world.draw.chance(0.5):
        return premise, premise.swapped
    if relation.exclusive and world.draw.chance(0.5):
        other = world.value(relation, premise.subject, [premise.value])
        return premise, replace(premise, value=other)
    return same.denied, _turned(world, premise)


def _kind_or_same(world: World, fact: Fact) -> str:
    kind = KINDS.get(fact.value)
    return kind if kind and kind in fact.relation.kinds and world.draw.chance(0.4) else fact.value


def _turned(world: World, fact: Fact) -> Fact:
    """Return the fact; a symmetric one is swapped half of the time."""
    return fact.swapped if fact.relation.symmetric and world.draw.chance(0.5) else fact


def _unrelated(world: World, premise: Fact) -> Fact:
    """Draw a positive fact that the premise leaves open: with another subject, value or relation, or reversed."""
    relation, draw = premise.relation, world.draw
    which = draw.below(3)
    if which == 0 and not relation.between_people:
        subject = world.partner(premise.value, relation.subjects, [premise.subject])
        return replace(premise, subject=subject)
    if which == 1 and relation.between_people and not relation.asymmetric and not relation.symmetric:
        return premise.swapped
    if which == 1 and not relation.exclusive:
        return world.fact(relation, premise.subject, [premise.value])
    family = next(family for family in (OF_PEOPLE, BETWEEN_PEOPLE, OF_THINGS) if relation in family)
    other = draw.pick([other for other in family if other is not relation and premise.subject in other.subjects])
    return world.fact(other, premise.subject)


def _others(world: World, premise: Fact, hypothesis: Fact) -> list[Fact]:
    """Draw nothing, or a distracting fact, such as the premise's relation of someone else."""
    relation = premise.relation
    if world.draw.chance(_SINGLE_PREMISES):
        return []
    if hypothesis.subject != premise.subject and hypothesis.subject != premise.value:
        family = OF_PEOPLE if hypothesis.subject in PEOPLE else OF_THINGS
        other = world.draw.pick([other for other in family if other is not relation])
        world.require(hypothesis.subject in other.subjects)
        return [world.fact(other, hypothesis.subject)]
    people = [premise.subject, premise.value] if relation.between_people else [premise.subject]
    subject = world.draw.pick([subject for subject in relation.subjects if subject not in people])
    if hypothesis.relation is relation and hypothesis.value not in (premise.value, *people, *relation.kinds):
        world.require(world.joins(subject, hypothesis.value))
        return [Fact(relation, subject, hypothesis.value)]
    return [world.fact(relation, subject, [premise.value])]
