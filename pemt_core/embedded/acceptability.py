"""cola: grammatical sentences, and sentences that break one rule of grammar."""

from dataclasses import dataclass
from typing import Any

from pemt_core.embedded.language import sentence
from pemt_core.embedded.lexicon import (
    FOODS,
    GOODS,
    INSTRUMENTS,
    JOBS,
    OBJECTS,
    PEOPLE,
    ROOMS,
    SIGHTS,
    TOWNS,
    Words,
    with_article,
    words,
)
from pemt_core.embedded.world import World

Row = dict[str, Any]


@dataclass(frozen=True)
class Frame:
    """A verb in both numbers, its complement, and prepositions that it cannot take."""

    singular: str
    plural: str
    preposition: str  # empty if the verb takes a direct object
    wrong: Words
    nouns: Words
    article: str = ""  # the, a, or empty


def _frame(verbs: str, preposition: str, wrong: str, nouns: Words, article: str = "") -> Frame:
    singular, plural = verbs.split("/")
    return Frame(singular, plural, preposition, words(wrong), nouns, article)


FRAMES = (
    _frame("lives/live", "in", "to of with", TOWNS),
    _frame("comes/come", "from", "of at for", TOWNS),
    _frame("goes/go", "to", "of at with", SIGHTS, "the"),
    _frame("waits/wait", "for", "to in from", PEOPLE),
    _frame("talks/talk", "to", "in from", PEOPLE),
    _frame("looks/look", "at", "of to", OBJECTS, "the"),
    _frame("sits/sit", "in", "of to for", ROOMS, "the"),
    _frame("listens/listen", "to", "at in of", INSTRUMENTS, "the"),
    _frame("agrees/agree", "with", "in from at", PEOPLE),
    _frame("thinks/think", "of", "to from with", PEOPLE),
    _frame("likes/like", "", "to at for", FOODS),
    _frame("owns/own", "", "with in from", GOODS, "a"),
    _frame("needs/need", "", "at with from", OBJECTS, "a"),
    _frame("sees/see", "", "of for with", SIGHTS, "the"),
    _frame("knows/know", "", "in for at", JOBS, "the"),
)
_ADVERBS = words("often always never sometimes")
_DENIED_SHARE = 0.3


@dataclass(frozen=True)
class Parts:
    """The parts of a sentence, so that one of them can be broken."""

    subject: tuple[str, ...]
    auxiliary: tuple[str, ...]  # "does not", an adverb, or nothing
    verb: str
    preposition: tuple[str, ...]
    article: tuple[str, ...]
    noun: str

    @property
    def object(self) -> tuple[str, ...]:
        return (*self.preposition, *self.article, self.noun)


def cola(world: World, number: int) -> list[Row]:
    label = number % 2
    if label:
        return [{"sentence": acceptable(world), "label": label}]
    return [{"sentence": sentence(" ".join(_broken(world, *_parts(world)))), "label": label}]


def acceptable(world: World) -> str:
    """Draw a grammatical sentence."""
    _, parts, _ = _parts(world)
    return sentence(" ".join((*parts.subject, *parts.auxiliary, parts.verb, *parts.object)))


def _parts(world: World) -> tuple[Frame, Parts, str]:
    """Draw a frame and the parts of its sentence, and return them with the verb in the wrong number."""
    draw = world.draw
    frame = draw.pick(FRAMES)
    first, second = draw.sample(PEOPLE, 2)
    is_plural = draw.chance(0.5)
    noun = world.partner(first, frame.nouns, [second])
    article = with_article(noun).split()[:1] if frame.article == "a" else [frame.article] if frame.article else []
    denied = draw.chance(_DENIED_SHARE)
    auxiliary = ("do" if is_plural else "does", "not") if denied else ()
    adverb = () if denied or draw.chance(0.5) else (draw.pick(_ADVERBS),)
    right, wrong = (frame.plural, frame.singular) if is_plural or denied else (frame.singular, frame.plural)
    parts = Parts(
        (first, "and", second) if is_plural else (first,),
        auxiliary or adverb,
        right,
        (frame.preposition,) if frame.preposition else (),
        tuple(article),
        noun,
    )
    return frame, parts, wrong


def _broken(world: World, frame: Frame, parts: Parts, other_verb: str) -> tuple[str, ...]:
    """Return the words with a wrong number, a wrong or missing preposition, or a wrong order."""
    draw = world.draw
    subject, auxiliary, verb, objects = parts.subject, parts.auxiliary, parts.verb, parts.object
    which = draw.below(5)
    if which == 0 and len(auxiliary) == 2 and draw.chance(0.5):
        return (*subject, "do" if auxiliary[0] == "does" else "does", "not", verb, *objects)
    if which == 0:
        return (*subject, *auxiliary, other_verb, *objects)
    if which == 1:
        return (*subject, *auxiliary, verb, draw.pick(frame.wrong), *parts.article, parts.noun)
    if which == 2 and parts.preposition:
        return (*subject, *auxiliary, verb, *parts.article, parts.noun)
    if which == 3 and parts.article:
        return (*subject, *auxiliary, verb, *parts.preposition, parts.noun, *parts.article)
    orders = (
        (*subject, *auxiliary, *objects, verb),
        (*subject, verb, *auxiliary, *objects) if len(auxiliary) == 2 else (verb, *subject, *auxiliary, *objects),
    )
    return draw.pick(orders)
