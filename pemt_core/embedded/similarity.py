"""stsb: how much two reports of an event share, from 0 to 5."""

from dataclasses import dataclass, replace
from typing import Any

from pemt_core.embedded.lexicon import DAYS, GOODS, KINDS, PEOPLE, SIGHTS, Words, ways_to_say, with_article
from pemt_core.embedded.relations import templates
from pemt_core.embedded.world import World

Row = dict[str, Any]

SLOTS = ("agent", "action", "thing", "place", "day")  # one point for each that two events share
KIND_SHARED = 0.6  # of a point, if one event has "dog" and the other "animal"

# The first word represents the action.
ACTIONS: tuple[Words, ...] = (
    ("bought", "purchased"),
    ("saw", "noticed"),
    ("found", "discovered"),
    ("lost", "mislaid"),
    ("sold", "traded"),
    ("washed", "cleaned"),
    ("drew", "sketched"),
    ("hid", "concealed"),
)
_WAYS = {words[0]: words for words in ACTIONS}
_REPORTS = templates(
    "{agent} {action} {thing} at the {place} on {day}. | On {day} {agent} {action} {thing} at the {place}. "
    "| At the {place} {agent} {action} {thing} on {day}. | On {day}, at the {place}, {agent} {action} {thing}."
)


@dataclass(frozen=True)
class Event:
    """Someone did something to a thing at a place on a day."""

    agent: str
    action: str
    thing: str
    place: str
    day: str


def stsb(world: World, number: int) -> list[Row]:
    shared = number % (len(SLOTS) + 1)
    first = _event(world)
    second = _sharing(world, first, shared)
    texts = [_report(world, event) for event in (first, second)]
    world.require(texts[0] != texts[1])
    return [{"sentence1": texts[0], "sentence2": texts[1], "label": score(first, second)}]


def report(world: World) -> str:
    """Draw an event and report it."""
    return _report(world, _event(world))


def score(first: Event, second: Event) -> float:
    """Return the points that two events share."""
    points = sum(getattr(first, slot) == getattr(second, slot) for slot in SLOTS)
    related = first.thing != second.thing and (
        KINDS.get(first.thing) == second.thing or KINDS.get(second.thing) == first.thing
    )
    return points + KIND_SHARED * related


def _event(world: World) -> Event:
    draw = world.draw
    agent = draw.pick(PEOPLE)
    return Event(agent, draw.pick(tuple(_WAYS)), world.partner(agent, GOODS), draw.pick(SIGHTS), draw.pick(DAYS))


def _sharing(world: World, event: Event, count: int) -> Event:
    """Draw an event that shares `count` slots with `event`, sometimes with the kind in place of the thing."""
    draw = world.draw
    changed = draw.sample(SLOTS, len(SLOTS) - count)
    other = _event(world)
    while any(getattr(event, slot) == getattr(other, slot) for slot in SLOTS):
        other = _event(world)
    made = replace(event, **{slot: getattr(other, slot) for slot in changed})
    kind = KINDS.get(event.thing)
    if kind and draw.chance(0.25):
        made = replace(made, thing=kind)
    world.require(made.thing not in GOODS or world.joins(made.agent, made.thing))
    return made


def _report(world: World, event: Event) -> str:
    text = world.phrase(_REPORTS).format(
        agent=event.agent,
        action=world.draw.pick(_WAYS[event.action]),
        thing=with_article(world.draw.pick(ways_to_say(event.thing))),
        place=world.draw.pick(ways_to_say(event.place)),
        day=event.day,
    )
    return f"{text[0].upper()}{text[1:]}"
