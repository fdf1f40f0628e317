"""sst2 and yelp: opinions about films and places.

A negation flips an opinion word ("not dull"). If two opinions meet, grammar decides which one counts: the clause after
"but", the main clause next to "although", the clause with "overall".
"""

from typing import Any

from pemt_core.embedded.language import sentence
from pemt_core.embedded.lexicon import DAYS, PEOPLE, TOWNS, Words, words
from pemt_core.embedded.relations import templates
from pemt_core.embedded.world import World

Row = dict[str, Any]

GOOD = words("good great excellent lovely charming brilliant")
BAD = words("bad poor awful boring dull dreadful")
FILM = words("film plot acting music ending cast")
PLACE = words("food service room staff view garden")
VENUES = words("hotel restaurant bar shop inn theatre")

_PLAIN = templates(
    "the {noun} is {word} | the {noun} is very {word} | the {noun} is quite {word} | the {noun} is truly {word}"
)
_NEGATED = templates(
    "the {noun} is not {word} | the {noun} is far from {word} | the {noun} is never {word} "
    "| the {noun} is anything but {word}"
)
_NEGATED_SHARE = 0.25
_SINGLE_SHARE = 0.5
_AGREEING_SHARE = 0.15
_AGREEING_WITH_VERDICT = 0.75

# {main} decides; {other} says the opposite.
_CONTRASTS = templates(
    "{other}, but {main} | although {other}, {main} | {main}, although {other} | {other}, yet {main}"
)
_SUMMED_UP = templates("{other}, overall {main} | overall {main}, still {other} | all in all {main}, still {other}")
_BOTH = templates("{main} and {other} | {main}; {other} | {main}, and also {other}")
_VERDICTS = templates("Overall {main}. | All in all {main}. | In the end {main}. | To sum up, {main}.")
_VISITS = templates(
    "I came here on {day}. | We were in {town} on {day}. | {name} took me to this {venue}. "
    "| I stayed in {town} with {name}."
)


def opinion(world: World, nouns: Words, positive: bool) -> str:
    """Draw a clause with a good or bad opinion, sometimes as a negation of the opposite."""
    negated = world.draw.chance(_NEGATED_SHARE)
    noun = world.draw.pick(nouns)
    word = world.partner(noun, GOOD if positive != negated else BAD)
    return world.phrase(_NEGATED if negated else _PLAIN).format(noun=noun, word=word)


def review(world: World, nouns: Words, of_parts: Words, positive: bool, contrasts: Words) -> str:
    """Draw a text of one or two opinions, `positive` overall; a second one is about one of `of_parts`."""
    main = opinion(world, nouns, positive)
    if world.draw.chance(_SINGLE_SHARE):
        return main
    agrees = world.draw.chance(_AGREEING_SHARE)
    other = opinion(world, of_parts, positive == agrees)
    return world.phrase(_BOTH if agrees else contrasts).format(main=main, other=other)


def judged_review(world: World) -> tuple[str, str]:
    """Draw a review of a film or a place, and its verdict as a word."""
    nouns = world.draw.pick((FILM, PLACE))
    positive = world.draw.chance(0.5)
    return sentence(review(world, nouns, nouns, positive, _CONTRASTS)), (GOOD if positive else BAD)[0]


def sst2(world: World, number: int) -> list[Row]:
    label = number % 2
    contrasts = world.draw.pick((_CONTRASTS, _CONTRASTS, _SUMMED_UP))
    return [{"sentence": sentence(review(world, FILM, FILM, bool(label), contrasts)), "label": label}]


def yelp(world: World, number: int) -> list[Row]:
    """A visit, opinions that mostly agree with the verdict, and the verdict, which decides."""
    label = number % 2
    draw = world.draw
    venue = draw.pick(VENUES)
    visit = world.phrase(_VISITS).format(
        day=draw.pick(DAYS), town=draw.pick(TOWNS), name=draw.pick(PEOPLE), venue=venue
    )
    agree = [draw.chance(_AGREEING_WITH_VERDICT) for _ in range(1 + draw.below(2))]
    mixed = [sentence(opinion(world, PLACE, bool(label) == agrees)) for agrees in agree]
    judgement = review(world, (venue, "place"), PLACE, bool(label), _CONTRASTS)
    verdict = world.phrase(_VERDICTS).format(main=judgement)
    texts = [visit, *mixed, verdict] if draw.chance(0.6) else [visit, verdict, *mixed]
    return [{"text": " ".join(texts), "label": label}]
