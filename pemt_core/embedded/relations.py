"""Relations of people and things, each with its logic and with templates to state, deny and ask it.

In a template {s} is the subject, {v} the value and {av} the value with its article. Templates are separated by "|"; the
last of each list is reserved for evaluation: no training row uses it.
"""

from dataclasses import dataclass, field

from pemt_core.embedded.lexicon import (
    BAGGAGE,
    COLOURS,
    FOODS,
    GOODS,
    JOBS,
    KINDS,
    MOODS,
    OBJECTS,
    PEOPLE,
    QUALITIES,
    ROOMS,
    TOWNS,
    Scale,
    Words,
)


def templates(text: str) -> Words:
    """Split a list of templates at "|"."""
    return tuple(part.strip() for part in text.split("|"))


@dataclass(frozen=True)
class Relation:
    """A relation between a subject and a value."""

    name: str
    subjects: Words
    values: Words
    states: Words
    denies: Words
    asks_value: Words  # empty if the question would name the answer
    asks_subject: Words
    asks_whether: Words
    exclusive: bool = False  # a subject has one value
    asymmetric: bool = False  # it never holds in both directions
    symmetric: bool = False  # it always holds in both directions
    binary: bool = False  # two values, of which a subject has exactly one
    kinds: Words = field(default=())  # more general values, such as "animal"

    @property
    def between_people(self) -> bool:
        return self.values is PEOPLE


def _relation(name: str, subjects: Words, values: Words, phrases: str, **logic: bool) -> Relation:
    """Build a relation from `phrases`: five lines of templates, in the order of the fields; "-" for none."""
    lines = [() if line.strip() == "-" else templates(line) for line in phrases.strip().splitlines()]
    states, denies, asks_value, asks_subject, asks_whether = lines
    kinds = tuple(sorted({KINDS[value] for value in values if value in KINDS}))
    return Relation(
        name, subjects, values, states, denies, asks_value, asks_subject, asks_whether, kinds=kinds, **logic
    )


def _scale(scale: Scale, subjects: Words, asking: str) -> Relation:
    phrases = f"""
        {{s}} is {{v}} | {{s}} is really {{v}} | {{s}} is truly {{v}}
        {{s}} is not {{v}} | {{s}} is not at all {{v}} | {{s}} is by no means {{v}}
        -
        {asking} is {{v}}? | {asking} is really {{v}}? | {asking} is truly {{v}}?
        Is {{s}} {{v}}? | Is {{s}} really {{v}}? | Is {{s}} truly {{v}}?"""
    return _relation(scale.name, subjects, scale.poles, phrases, exclusive=True, binary=True)


OF_PEOPLE = (
    _relation("job", PEOPLE, JOBS, """
        {s} is {av} | {s} works as {av} | {s} has a job as {av}
        {s} is not {av} | {s} does not work as {av} | {s} has no job as {av}
        What is the job of {s}? | What does {s} work as? | Which job does {s} have?
        Who is {av}? | Who works as {av}? | Who has a job as {av}?
        Is {s} {av}? | Does {s} work as {av}? | Does {s} have a job as {av}?""", exclusive=True),
    _relation("home", PEOPLE, TOWNS, """
        {s} lives in {v} | {s} has a home in {v} | {s} resides in {v}
        {s} does not live in {v} | {s} has no home in {v} | {s} does not reside in {v}
        Where does {s} live? | Where is the home of {s}? | In which town does {s} live?
        Who lives in {v}? | Who has a home in {v}? | Who resides in {v}?
        Does {s} live in {v}? | Does {s} have a home in {v}? | Does {s} reside in {v}?""", exclusive=True),
    _relation("own", PEOPLE, GOODS, """
        {s} owns {av} | {s} has {av} | {s} is the owner of {av}
        {s} does not own {av} | {s} has no {v} | {s} is not the owner of {av}
        What does {s} own? | What does {s} have? | What is {s} the owner of?
        Who owns {av}? | Who has {av}? | Who is the owner of {av}?
        Does {s} own {av}? | Does {s} have {av}? | Is {s} the owner of {av}?"""),
    _relation("like", PEOPLE, FOODS, """
        {s} likes {v} | {s} enjoys {v} | {s} is fond of {v}
        {s} dislikes {v} | {s} hates {v} | {s} does not like {v} | {s} cannot stand {v}
        What does {s} like? | What does {s} enjoy? | What is {s} fond of?
        Who likes {v}? | Who enjoys {v}? | Who is fond of {v}?
        Does {s} like {v}? | Does {s} enjoy {v}? | Is {s} fond of {v}?"""),
    *(_scale(scale, PEOPLE, "Who") for scale in MOODS),
)  # fmt: skip

BETWEEN_PEOPLE = (
    _relation("help", PEOPLE, PEOPLE, """
        {s} helped {v} | {v} was helped by {s} | {v} got help from {s}
        {s} did not help {v} | {v} was not helped by {s} | {v} got no help from {s}
        Who did {s} help? | Who was helped by {s}? | Who got help from {s}?
        Who helped {v}? | By whom was {v} helped? | From whom did {v} get help?
        Did {s} help {v}? | Was {v} helped by {s}? | Did {v} get help from {s}?"""),
    _relation("height", PEOPLE, PEOPLE, """
        {s} is taller than {v} | {v} is shorter than {s} | {v} is less tall than {s}
        {s} is not taller than {v} | {v} is not shorter than {s} | {v} is not less tall than {s}
        Who is {s} taller than? | Who is shorter than {s}? | Who is less tall than {s}?
        Who is taller than {v}? | Who is {v} shorter than? | Who is {v} less tall than?
        Is {s} taller than {v}? | Is {v} shorter than {s}? | Is {v} less tall than {s}?""", asymmetric=True),
    _relation("meet", PEOPLE, PEOPLE, """
        {s} met {v} | {s} came across {v} | {s} ran into {v}
        {s} did not meet {v} | {s} did not come across {v} | {s} did not run into {v}
        Who did {s} meet? | Who did {s} come across? | Who did {s} run into?
        Who met {v}? | Who came across {v}? | Who ran into {v}?
        Did {s} meet {v}? | Did {s} come across {v}? | Did {s} run into {v}?""", symmetric=True),
)  # fmt: skip

OF_THINGS = (
    _relation("colour", OBJECTS, COLOURS, """
        {s} is {v} | {s} has a {v} colour | the colour of {s} is {v}
        {s} is not {v} | {s} does not have a {v} colour | the colour of {s} is not {v}
        What colour is {s}? | What is the colour of {s}? | Which colour does {s} have?
        What is {v}? | Which thing is {v}? | What has a {v} colour?
        Is {s} {v}? | Does {s} have a {v} colour? | Is the colour of {s} {v}?""", exclusive=True),
    _relation("place", OBJECTS, ROOMS, """
        {s} is in the {v} | {s} stands in the {v} | {s} can be found in the {v}
        {s} is not in the {v} | {s} does not stand in the {v} | {s} cannot be found in the {v}
        Where is {s}? | Where does {s} stand? | Where can {s} be found?
        What is in the {v}? | What stands in the {v}? | What can be found in the {v}?
        Is {s} in the {v}? | Does {s} stand in the {v}? | Can {s} be found in the {v}?""", exclusive=True),
    *(_scale(scale, BAGGAGE if scale.of_containers else OBJECTS, "What") for scale in QUALITIES),
)  # fmt: skip

RELATIONS = OF_PEOPLE + BETWEEN_PEOPLE + OF_THINGS
