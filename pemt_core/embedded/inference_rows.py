"""mnli, rte, cb and scitail: one relation between a premise and a hypothesis, in four surface forms."""

from typing import Any

from pemt_core.embedded.inference import CONTRADICTION, ENTAILMENT, NEUTRAL, draw_pair, judge
from pemt_core.embedded.language import clause, joined, sentence, sentences, state
from pemt_core.embedded.lexicon import DAYS, PEOPLE, TOWNS
from pemt_core.embedded.relations import OF_PEOPLE, OF_THINGS, RELATIONS, Relation, templates
from pemt_core.embedded.world import Fact, World

Row = dict[str, Any]

_MNLI = (ENTAILMENT, NEUTRAL, CONTRADICTION)
_CB = (ENTAILMENT, CONTRADICTION, NEUTRAL)
_REPORTED_IN_MNLI = 0.15
_OPEN_AND_NEUTRAL = 0.35  # share of neutral rows whose premise mentions the hypothesis but leaves it open

# What the author of "<someone> <verb> that ..." asserts: that it is true, that it is false, or neither.
COMMITMENTS: dict[bool | None, tuple[str, ...]] = {
    True: templates("knows that | saw that | forgot that | found out that"),
    False: templates("lied that | only dreamed that | is wrong to think that | falsely claims that"),
    None: templates("thinks that | hopes that | heard that | believes that"),
}
_NEWS = templates(
    "{town}, {day}: {first} {rest} | On {day} a paper in {town} wrote: {first} {rest} "
    "| News from {town}: {first} {rest}"
)
_FINDINGS = templates(
    "A study shows that {first}. {rest} | It is well known that {first}. {rest} | Scholars found that {first}. {rest}"
)


def mnli(world: World, number: int) -> list[Row]:
    label = number % len(_MNLI)
    relation = world.draw.pick(RELATIONS)
    if world.draw.chance(_REPORTED_IN_MNLI):
        premise, hypothesis = reported(world, _MNLI[label], relation)
    else:
        fact, hypothesis, others = draw_pair(world, _MNLI[label], relation)
        premise = joined(world, world.draw.shuffled([fact, *others]))
    return [{"premise": premise, "hypothesis": state(world, hypothesis), "label": label}]


def cb(world: World, number: int) -> list[Row]:
    label = number % len(_CB)
    premise, hypothesis = reported(world, _CB[label], world.draw.pick(RELATIONS))
    return [{"premise": premise, "hypothesis": clause(world, hypothesis), "label": label}]


def rte(world: World, number: int) -> list[Row]:
    label = number % 2
    verdict = world.draw.pick((NEUTRAL, CONTRADICTION)) if label else ENTAILMENT
    relation = world.draw.pick(RELATIONS)
    fact, hypothesis, others = draw_pair(world, verdict, relation)
    bystander = _about_someone_else(world, relation, [fact, hypothesis, *others])
    first, *rest = sentences(world, world.draw.shuffled([fact, *others, bystander]))
    news = world.phrase(_NEWS)
    premise = news.format(
        town=world.draw.pick(TOWNS), day=world.draw.pick(DAYS), first=first, rest=" ".join(rest)
    ).strip()
    return [{"sentence1": premise, "sentence2": state(world, hypothesis), "label": label}]


def scitail(world: World, number: int) -> list[Row]:
    verdict = (ENTAILMENT, NEUTRAL)[number % 2]
    relation = world.draw.pick(OF_THINGS)
    fact, hypothesis, others = draw_pair(world, verdict, relation)
    bystander = _about_someone_else(world, relation, [fact, hypothesis, *others])
    first, *rest = world.draw.shuffled([fact, *others, bystander])
    finding = world.phrase(_FINDINGS)
    premise = finding.format(first=clause(world, first), rest=" ".join(sentences(world, rest))).strip()
    return [{"gold_label": verdict, "sentence1": premise, "sentence2": state(world, hypothesis)}]


def reported(world: World, label: str, relation: Relation) -> tuple[str, Fact]:
    """Draw a premise of two reports, and a hypothesis about one of them.

    The verb of a report shows whether its author asserts it; a report that its author denies states the opposite.
    """
    draw = world.draw
    is_open = label == NEUTRAL and draw.chance(_OPEN_AND_NEUTRAL)
    commitment = None if is_open else draw.pick((True, False))
    verdict = draw.pick((ENTAILMENT, CONTRADICTION)) if is_open else label
    fact, hypothesis, others = draw_pair(world, verdict, relation)
    other = others[0] if others else _about_someone_else(world, relation, [fact, hypothesis])
    other_commitment = draw.pick((True, False, None))
    held = [each for each, how in ((fact, commitment), (other, other_commitment)) if how is not None]
    world.require(judge(held, hypothesis) == label)
    speakers = draw.sample([name for name in PEOPLE if name not in _named([fact, hypothesis, other])], 2)
    reports = [
        f"{speaker} {world.phrase(COMMITMENTS[how])} {clause(world, each.denied if how is False else each)}"
        for speaker, each, how in zip(speakers, (fact, other), (commitment, other_commitment), strict=True)
    ]
    return sentence(", and ".join(draw.shuffled(reports))), hypothesis


def _about_someone_else(world: World, relation: Relation, facts: list[Fact]) -> Fact:
    """Draw a fact about a person or thing that `facts` do not name."""
    family = OF_PEOPLE if facts[0].subject in PEOPLE else OF_THINGS
    other = world.draw.pick([other for other in family if other is not relation])
    (subject,) = world.subjects([other], 1, _named(facts))
    return world.fact(other, subject)


def _named(facts: list[Fact]) -> list[str]:
    return [word for fact in facts for word in (fact.subject, fact.value)]
