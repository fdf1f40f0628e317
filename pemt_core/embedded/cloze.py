"""record: a report with highlights, and a sentence with an entity missing."""

import re
from dataclasses import replace
from typing import Any

from pemt_core.embedded.language import clause, sentence
from pemt_core.embedded.lexicon import PEOPLE, TOWNS
from pemt_core.embedded.passages import ASKED_OF_PEOPLE, ordered, tell
from pemt_core.embedded.relations import BETWEEN_PEOPLE
from pemt_core.embedded.world import Fact, World

Row = dict[str, Any]

HIGHLIGHT = "\n@highlight\n"
PLACEHOLDER = "@placeholder"
_ENTITIES = frozenset(PEOPLE + TOWNS)
_ENTITY = re.compile(r"[A-Z][a-z]+")


def record(world: World, number: int) -> list[Row]:
    draw = world.draw
    relations = draw.sample(ASKED_OF_PEOPLE, 2)
    subjects = world.subjects(relations, 2)
    facts = world.grid(relations, subjects)
    third = world.partner(subjects[0], PEOPLE, subjects)
    first, second = draw.shuffled([subjects[0], third])
    facts.append(Fact(draw.pick(BETWEEN_PEOPLE), first, second))
    told = ordered(world, facts)
    highlighted = 1 + draw.below(2)
    body, highlights = told[:-highlighted], told[-highlighted:]
    passage = HIGHLIGHT.join([tell(world, body).text, *(sentence(clause(world, fact))[:-1] for fact in highlights)])
    query, answer = _cloze(world, draw.pick(told))
    spans = [match for match in _ENTITY.finditer(passage) if match[0] in _ENTITIES]
    return [
        {
            "passage": passage,
            "query": query,
            "entities": sorted({span[0] for span in spans}),
            "entity_spans": {
                "text": [span[0] for span in spans],
                "start": [span.start() for span in spans],
                "end": [span.end() for span in spans],
            },
            "answers": [answer],
            "idx": {"passage": number, "query": number},
        }
    ]


def _cloze(world: World, fact: Fact) -> tuple[str, str]:
    """Return the fact as a sentence with one entity missing, and that entity."""
    if fact.value in _ENTITIES and world.draw.chance(0.5):
        return sentence(clause(world, replace(fact, value=PLACEHOLDER))), fact.value
    text = clause(world, fact, PLACEHOLDER)
    return f"{text[0].upper()}{text[1:]}.", fact.subject
