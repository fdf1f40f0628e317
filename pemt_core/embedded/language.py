"""From facts to English: statements, denials, questions, passages."""

from collections.abc import Iterable, Sequence
from enum import Enum

from pemt_core.embedded.lexicon import PEOPLE, WOMEN, Words, ways_to_say, with_article
from pemt_core.embedded.relations import OF_PEOPLE, Relation
from pemt_core.embedded.world import Fact, World

_PRONOUN_SHARE = 0.25


class Role(Enum):
    """What a question asks for."""

    VALUE = "value"
    SUBJECT = "subject"
    WHETHER = "whether"


def clause(world: World, fact: Fact, subject: str | None = None) -> str:
    """State the fact as a clause, without a capital or full stop. `subject` replaces its subject, such as "she"."""
    templates = fact.relation.states if fact.positive else fact.relation.denies
    return _fill(world, world.phrase(templates), fact, subject)


def question(world: World, fact: Fact, role: Role, *, avoiding: str = "", subject: str | None = None) -> str:
    """Ask a question about the fact that differs from `avoiding`; `subject` replaces its subject."""
    templates = {
        Role.VALUE: fact.relation.asks_value,
        Role.SUBJECT: fact.relation.asks_subject,
        Role.WHETHER: fact.relation.asks_whether,
    }[role]
    for _ in range(8):
        text = _fill(world, world.phrase(templates), fact, subject)
        if text != avoiding:
            return text
    world.require(False)
    return ""


def asked_roles(relation: Relation) -> list[Role]:
    """Return what a question with a short answer can ask for."""
    return [Role.VALUE, Role.SUBJECT] if relation.asks_value else [Role.SUBJECT]


def sentence(text: str) -> str:
    """Turn a clause into a sentence."""
    return f"{text[0].upper()}{text[1:]}."


def state(world: World, fact: Fact) -> str:
    """State the fact as a sentence."""
    return sentence(clause(world, fact))


def sentences(world: World, facts: Iterable[Fact]) -> list[str]:
    """State each fact as a sentence; a person who is also the previous subject may become "he" or "she"."""
    told = []
    before = None
    for fact in facts:
        known = before == fact.subject and fact.relation in OF_PEOPLE and world.draw.chance(_PRONOUN_SHARE)
        told.append(sentence(clause(world, fact, pronoun(fact.subject) if known else None)))
        before = None if fact.relation.between_people else fact.subject
    return told


def joined(world: World, facts: Sequence[Fact]) -> str:
    """State the facts as one sentence."""
    return sentence(" and ".join(clause(world, fact) for fact in facts))


def pronoun(person: str) -> str:
    return "she" if person in WOMEN else "he"


def name(world: World, subject: str) -> str:
    """Return a person's name, or the row's word for a thing."""
    return subject if subject in PEOPLE else world.called(subject)


def spoken(word: str, text: str) -> str:
    """Return the form of `word` in a text: itself or a synonym."""
    found = set(words_of(text))
    return next(form for form in ways_to_say(word) if form in found)


def words_of(text: str) -> Words:
    """Return the words of a text without punctuation."""
    return tuple(text.translate(_MARKS).split())


def find_word(text: str, word: str) -> int:
    """Return where `word` first occurs as a whole word."""
    padded = f" {text.translate(_MARKS)} "
    return padded.index(f" {word} ")


_MARKS = str.maketrans(dict.fromkeys(".,:;?!\"'-()[]\n", " "))


def _fill(world: World, template: str, fact: Fact, subject: str | None) -> str:
    value = world.draw.pick(ways_to_say(fact.value))
    subject = subject or (fact.subject if fact.subject in PEOPLE else f"the {world.called(fact.subject)}")
    return template.format(s=subject, v=value, av=with_article(value))
