"""wsc and winogrande: common sense decides who or what a pronoun or a gap refers to.

If a thing does not fit into another, either the first is too big or the second is too small.
"""

from dataclasses import dataclass
from typing import Any

from pemt_core.embedded.language import pronoun
from pemt_core.embedded.lexicon import BAGGAGE, FURNITURE, INSTRUMENTS, MEN, TOOLS, VEHICLES, WOMEN, Words, words
from pemt_core.embedded.relations import templates
from pemt_core.embedded.world import World

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """What {a} did to {b}, and properties of {a} or of {b} that explain it."""

    event: str
    of_first: Words
    of_second: Words
    pairs: tuple[Words, Words] | None = None  # kinds of things for {a} and {b}; None for people

    def properties(self, of_first: bool) -> Words:
        return self.of_first if of_first else self.of_second


def _case(event: str, of_first: str, of_second: str, pairs: tuple[Words, Words] | None = None) -> Case:
    return Case(event, words(of_first), words(of_second), pairs)


_THINGS = FURNITURE + INSTRUMENTS + TOOLS
CASES = (
    _case("the {a} did not fit in the {b}", "big large wide long", "small little narrow short", (_THINGS, BAGGAGE)),
    _case("the {a} broke the {b}", "heavy hard strong sturdy", "weak fragile thin old", (VEHICLES + TOOLS, FURNITURE)),
    _case("the {a} sank in the {b}", "heavy full old", "deep wild cold", (VEHICLES + BAGGAGE, words("river lake sea"))),
    _case("{a} could not lift {b}", "weak tired small thin", "heavy fat big large"),
    _case("{a} carried {b}", "strong sturdy fresh", "tired weary sick ill"),
    _case("{a} gave some bread to {b}", "generous full kind", "hungry poor needy thin"),
    _case("{a} thanked {b}", "thankful glad happy", "kind generous good"),
    _case("{a} ran past {b}", "fast quick fresh", "slow tired old"),
    _case("{a} asked {b} for help", "lost weak helpless", "wise clever strong"),
    _case("{a} lent {b} some money", "rich wealthy generous", "poor needy hungry"),
    _case("{a} was afraid of {b}", "timid fearful young", "angry furious wild"),
    _case("{a} called a doctor for {b}", "kind clever healthy", "sick ill weak"),
)  # fmt: skip
_PRONOUN = templates(
    "{event} because {it} was {property}. | {event} because {it} was so {property}. | {event}, as {it} was {property}."
)
_GAP = templates(
    "{event} because {the}_ was {property}. | {cause} was {property}, so {event}. "
    "| Since {the}_ was {property}, {event}."
)


def wsc(world: World, number: int) -> list[Row]:
    """Does the marked pronoun refer to the marked noun?"""
    label = number % 2
    draw = world.draw
    case = draw.pick(CASES)
    of_first = draw.chance(0.5)
    first, second = _actors(world, case)
    it = pronoun(first) if case.pairs is None else "it"
    text = _capital(_fill(world, world.phrase(_PRONOUN), case, (first, second), of_first, it=it))
    asked = first if of_first == bool(label) else second
    return [
        {
            "text": text,
            "span1_index": _word_index(text, asked),
            "span2_index": _word_index(text, it),
            "span1_text": asked,
            "span2_text": it,
            "label": label,
        }
    ]


def winogrande(world: World, number: int) -> list[Row]:
    """Which of two options fills the gap?"""
    answer = number % 2
    draw = world.draw
    case = draw.pick(CASES)
    of_first = draw.chance(0.5)
    actors = _actors(world, case)
    the = "" if case.pairs is None else "the "
    text = _capital(_fill(world, world.phrase(_GAP), case, actors, of_first, the=the, cause=f"{the}_"))
    options = list(actors) if (answer == 0) == of_first else [actors[1], actors[0]]
    return [{"sentence": text, "option1": options[0], "option2": options[1], "answer": str(answer + 1)}]


def _actors(world: World, case: Case) -> tuple[str, str]:
    """Draw two people of one sex, so that the pronoun alone does not decide, or two things."""
    if case.pairs is None:
        people = world.draw.pick((WOMEN, MEN))
        first = world.draw.pick(people)
        return first, world.partner(first, people)
    first = world.draw.pick(case.pairs[0])
    return first, world.partner(first, case.pairs[1])


def _fill(world: World, template: str, case: Case, actors: tuple[str, str], of_first: bool, **rest: str) -> str:
    event = case.event.format(a=actors[0], b=actors[1])
    return template.format(event=event, property=world.draw.pick(case.properties(of_first)), **rest)


def explanation(world: World) -> str:
    """Draw an event and its cause, without a pronoun or gap to resolve."""
    case = world.draw.pick(CASES)
    of_first = world.draw.chance(0.5)
    actors = _actors(world, case)
    the = "" if case.pairs is None else "the "
    it = f"{the}{actors[0] if of_first else actors[1]}"
    text = _fill(world, world.phrase(_PRONOUN + _GAP), case, actors, of_first, it=it, the="", cause="_")
    return _capital(text.replace("_", it))


def _word_index(text: str, word: str) -> int:
    return [each.strip(".,") for each in text.split()].index(word)


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"
