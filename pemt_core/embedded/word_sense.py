"""wic: an ambiguous word in two sentences, whose other words show the meaning."""

from dataclasses import dataclass
from typing import Any

from pemt_core.embedded.language import find_word
from pemt_core.embedded.lexicon import PEOPLE, Words
from pemt_core.embedded.relations import templates
from pemt_core.embedded.world import World

Row = dict[str, Any]


@dataclass(frozen=True)
class Ambiguous:
    """A word and, for each of its meanings, sentences that fit only this meaning."""

    word: str
    senses: tuple[Words, Words]


def _ambiguous(word: str, first: str, second: str) -> Ambiguous:
    return Ambiguous(word, (templates(first), templates(second)))


AMBIGUOUS = (
    _ambiguous(
        "bank",
        "{s} put the money in the bank. | The bank lent {s} some money. | {s} took the money from the bank.",
        "{s} sat on the bank of the river. | The boat of {s} lies at the bank. | {s} left the boat at the bank.",
    ),
    _ambiguous(
        "bat",
        "{s} hit the ball with a bat. | The bat of {s} is made of wood. | {s} lost the ball and the bat.",
        "{s} saw a bat fly at night. | A bat slept in the cave, said {s}. | At night {s} found a bat in the cave.",
    ),
    _ambiguous(
        "light",
        "{s} turned on the light. | The light woke {s} at night. | At night {s} turned off the light.",
        "{s} carried a light bag. | The box of {s} is light and small. | {s} likes a small and light bag.",
    ),
    _ambiguous(
        "ring",
        "{s} wears a ring of gold. | The ring of {s} was expensive. | {s} bought an expensive ring of gold.",
        "{s} heard the phone ring. | The bells ring for {s}. | {s} let the bells ring.",
    ),
    _ambiguous(
        "spring",
        "{s} plants flowers in spring. | {s} likes the warm days of spring. | In spring {s} buys flowers.",
        "{s} drank water from the spring. | The spring gives {s} fresh water. | {s} found fresh water in the spring.",
    ),
    _ambiguous(
        "letter",
        "{s} wrote a letter to a friend. | A letter came for {s} on Monday. | {s} got a letter from a friend.",
        "{s} can read each letter. | The word of {s} begins with that letter. | {s} saw a letter in the word.",
    ),
    _ambiguous(
        "match",
        "{s} won the match on Sunday. | Our team lost the match to {s}. | {s} won the match for our team.",
        "{s} lit the fire with a match. | A match burned the hand of {s}. | {s} held a match to the fire.",
    ),
    _ambiguous(
        "park",
        "{s} walked the dog in the park. | The park has old trees, said {s}. | {s} sat under the trees of the park.",
        "{s} can park the car in the garage. | Where did {s} park the truck? | {s} had to park the car in town.",
    ),
    _ambiguous(
        "train",
        "{s} took the train to Berlin. | The train of {s} left the station. | {s} waits at the station for the train.",
        "{s} has to train for the game. | Our team must train with {s}. | {s} wants to train our team.",
    ),
    _ambiguous(
        "watch",
        "{s} wears a watch of gold. | The watch of {s} shows the hour. | {s} lost a watch of gold.",
        "{s} will watch the film. | We watch the game with {s}. | {s} wants to watch the game.",
    ),
    _ambiguous(
        "plant",
        "{s} gave the plant some water. | The plant of {s} has green leaves. | {s} sees the green leaves of the plant.",
        "{s} works in a plant that builds cars. | The plant paid {s} for the work. | {s} left the work in the plant.",
    ),
    _ambiguous(
        "nail",
        "{s} hit the nail with a hammer. | The nail of {s} holds two boards. | {s} put a nail in the boards.",
        "{s} painted each nail red. | A nail on the hand of {s} broke. | {s} has a red nail on each hand.",
    ),
    _ambiguous(
        "story",
        "{s} told the children a story. | The story of {s} has a sad ending. | {s} told a story with a sad ending.",
        "{s} lives on the top story. | The house of {s} has one story. | {s} has a room on the top story of the house.",
    ),
    _ambiguous(
        "trunk",
        "{s} put the coat in the trunk. | The trunk of {s} is full of clothes. | {s} found clothes in the trunk.",
        "{s} sat against the trunk of a tree. | The trunk grew high, said {s}. | {s} cut the trunk of a high tree.",
    ),
)


def wic(world: World, number: int) -> list[Row]:
    """Does the word have the same meaning in both sentences?"""
    label = number % 2
    draw = world.draw
    entry = draw.pick(AMBIGUOUS)
    sense = draw.below(2)
    told = [world.phrase(entry.senses[which]) for which in (sense, sense if label else 1 - sense)]
    world.require(told[0] != told[1])
    people = [world.partner(template, PEOPLE) for template in told]
    first, second = (template.format(s=person) for template, person in zip(told, people, strict=True))
    starts = [find_word(text, entry.word) for text in (first, second)]
    return [
        {
            "word": entry.word,
            "sentence1": first,
            "sentence2": second,
            "start1": starts[0],
            "start2": starts[1],
            "end1": starts[0] + len(entry.word),
            "end2": starts[1] + len(entry.word),
            "label": label,
        }
    ]
