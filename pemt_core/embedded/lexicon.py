"""The words of the world by kind, and how they relate: synonyms, opposites, kinds of things."""

from collections.abc import Mapping
from dataclasses import dataclass

Words = tuple[str, ...]


def words(text: str) -> Words:
    """Split a text into words."""
    return tuple(text.split())


WOMEN = words("Anna Clara Emma Julia Maria Nora")
MEN = words("Adam David Felix Leo Martin Paul")
PEOPLE = WOMEN + MEN
TOWNS = words("Athens Berlin Cairo London Paris Rome")
JOBS = words("doctor teacher lawyer cook singer painter")
ROOMS = words("kitchen garden hall cellar attic")
SIGHTS = words("museum market park school church")
FOODS = words("tea coffee bread cheese soup rice")
ANIMALS = words("dog cat horse")
VEHICLES = words("car boat bicycle")
FLOWERS = words("rose tulip")
TOOLS = words("hammer spade")
INSTRUMENTS = words("guitar piano")
FURNITURE = words("chair table")
BAGGAGE = words("box bag chest basket")
OBJECTS = VEHICLES + TOOLS + INSTRUMENTS + FURNITURE + BAGGAGE  # things with a colour, a material and a place
GOODS = ANIMALS + VEHICLES + FLOWERS + TOOLS + INSTRUMENTS + FURNITURE  # things that people own and buy
COLOURS = words("red blue green black white")
DAYS = words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")

SYNONYMS: Mapping[str, Words] = {
    "doctor": ("physician",),
    "teacher": ("instructor",),
    "cook": ("chef",),
    "car": ("automobile",),
    "bicycle": ("bike",),
}

# From a thing to its kind: "Anna owns a dog" implies that she owns an animal.
KINDS: Mapping[str, str] = {
    **dict.fromkeys(ANIMALS, "animal"),
    **dict.fromkeys(VEHICLES, "vehicle"),
    **dict.fromkeys(FLOWERS, "flower"),
    **dict.fromkeys(TOOLS, "tool"),
    **dict.fromkeys(INSTRUMENTS, "instrument"),
}


@dataclass(frozen=True)
class Scale:
    """A property with two poles; everything has exactly one. The first word of a pole represents it."""

    name: str
    high: Words
    low: Words
    of_containers: bool = False

    @property
    def poles(self) -> Words:
        return self.high[0], self.low[0]


def _scales(of_containers: bool = False, **poles: str) -> tuple[Scale, ...]:
    """Build scales from name="high words / low words"."""
    sides = {name: [words(side) for side in text.split("/")] for name, text in poles.items()}
    return tuple(Scale(name, high, low, of_containers) for name, (high, low) in sides.items())


MOODS = _scales(
    joy="happy glad / sad unhappy",
    temper="calm relaxed / angry furious",
    wealth="rich wealthy / poor needy",
)
QUALITIES = _scales(
    size="big large / small little",
    age="old ancient / new modern",
) + _scales(
    of_containers=True,
    access="open unlocked / closed shut",
)

_POLES = {scale.poles[n]: scale.poles[1 - n] for scale in MOODS + QUALITIES for n in range(2)}
_FORMS: dict[str, Words] = {
    **{word: (word, *others) for word, others in SYNONYMS.items()},
    **{side[0]: side for scale in MOODS + QUALITIES for side in (scale.high, scale.low)},
}


def opposite(pole: str) -> str:
    """Return the other pole of a scale."""
    return _POLES[pole]


def axis(word: str) -> str:
    """Return the same word for both poles of a scale, and any other word as it is."""
    return min(word, _POLES.get(word, word))


def ways_to_say(word: str) -> Words:
    """Return the word and its synonyms."""
    return _FORMS.get(word) or (word,)


def is_kind_of(word: str, kind: str) -> bool:
    """Whether `word` is `kind` or belongs to it."""
    return word == kind or KINDS.get(word) == kind


def with_article(noun: str) -> str:
    """Add the article: "an office", "a car"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
