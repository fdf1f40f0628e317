"""squad and the four parts of MRQA: answers that occur in a passage."""

from collections.abc import Iterable
from typing import Any

from pemt_core.embedded.language import Role, clause, find_word, question, spoken
from pemt_core.embedded.lexicon import DAYS, PEOPLE, TOWNS
from pemt_core.embedded.passages import ASKED_OF_PEOPLE, Asked, ask, draw_facts, ordered, tell
from pemt_core.embedded.relations import BETWEEN_PEOPLE, templates
from pemt_core.embedded.world import Fact, World

Row = dict[str, Any]

_QUESTIONS_PER_PASSAGE = 2

_NEWS = templates(
    "{town}, {day} - {text} | News of {day} from {town}: {text} | {town} - The paper of {day} says: {text}"
)
_SOURCES = templates("according to {name} | said {name} | {name} told us | says {name}")
_NOISE = templates(
    "click here for more | all results for {town} | home page of {name} | news of {day} | page of {town} and {name}"
)


def squad(world: World, number: int) -> list[Row]:
    passage = tell(world, draw_facts(world))
    asked: list[Asked] = []
    while len(asked) < _QUESTIONS_PER_PASSAGE:
        asked.append(ask(world, passage, but=[each.fact for each in asked]))
    title = passage.facts[0].subject.capitalize()
    return [
        {
            "title": title,
            "context": passage.text,
            "question": each.question,
            "answers": {"text": [each.answer], "answer_start": [find_word(passage.text, each.answer)]},
        }
        for each in asked
    ]


def natural_questions(world: World, number: int) -> list[Row]:
    """A question as typed into a search box."""
    passage = tell(world, draw_facts(world))
    asked = ask(world, passage)
    return [_mrqa("NaturalQuestionsShort", as_typed(asked.question), passage.text, asked.answer)]


def as_typed(question: str) -> str:
    return f"{question[0].lower()}{question.rstrip('?')[1:]}"


def newsqa(world: World, number: int) -> list[Row]:
    """A report that names its sources."""
    draw = world.draw
    passage = tell(world, draw_facts(world, ASKED_OF_PEOPLE))
    asked = ask(world, passage)
    strangers = [person for person in PEOPLE if person not in _named_in(passage.facts)]
    told = [
        f"{text[:-1]}, {world.phrase(_SOURCES).format(name=draw.pick(strangers))}." if draw.chance(0.4) else text
        for text in passage.sentences
    ]
    towns = [town for town in TOWNS if town not in _named_in(passage.facts)]
    context = world.phrase(_NEWS).format(town=draw.pick(towns), day=draw.pick(DAYS), text=" ".join(told))
    return [_mrqa("NewsQA", asked.question, context, asked.answer)]


def searchqa(world: World, number: int) -> list[Row]:
    """A quiz clue of two facts, and search results: a snippet per fact, and noise."""
    draw = world.draw
    relations = draw.sample(ASKED_OF_PEOPLE, 2)
    subjects = world.subjects(relations, 2 + draw.below(2))
    facts = world.grid(relations, subjects)
    clues = [clause(world, fact, "this person") for fact in facts if fact.subject == subjects[0]]
    strangers = [person for person in PEOPLE if person not in subjects]
    towns = [town for town in TOWNS if town not in _named_in(facts)]
    noise = [
        world.phrase(_NOISE).format(town=draw.pick(towns), name=draw.pick(strangers), day=draw.pick(DAYS))
        for _ in range(1 + draw.below(2))
    ]
    snippets = draw.shuffled([*(clause(world, fact) for fact in draw.shuffled(facts)[:5]), *noise])
    context = " ".join(f"[DOC] {snippet}" for snippet in snippets)
    world.require(subjects[0] in context)
    return [_mrqa("SearchQA", " and ".join(clues), context, subjects[0])]


def hotpotqa(world: World, number: int) -> list[Row]:
    """Two hops: one sentence identifies the person, another has the answer."""
    draw = world.draw
    told, asked_for = draw.sample(ASKED_OF_PEOPLE, 2)
    subjects = world.subjects([told, asked_for], 2)
    facts = world.grid([told, asked_for], subjects)
    if draw.chance(0.3):
        described, facts = _described_by_another(world, subjects[0], facts)
    else:
        described = clause(world, facts[0], "the person who")
    target = next(fact for fact in facts if fact.relation is asked_for and fact.subject == subjects[0])
    paragraphs = [
        tell(world, ordered(world, [f for f in facts if f.subject == s]))
        for s in dict.fromkeys(fact.subject for fact in facts)
    ]
    context = " ".join(f"[PAR] {paragraph.text}" for paragraph in draw.shuffled(paragraphs))
    answer = spoken(target.value, context)
    return [_mrqa("HotpotQA", question(world, target, Role.VALUE, subject=described), context, answer)]


def _described_by_another(world: World, subject: str, facts: list[Fact]) -> tuple[str, list[Fact]]:
    """Describe the subject, as in "the person whom Vera helped", and add the fact that identifies them."""
    relation = world.draw.pick([each for each in BETWEEN_PEOPLE if not each.asymmetric])
    other = world.partner(subject, PEOPLE, [fact.subject for fact in facts])
    described = f"the person whom {relation.states[0].format(s=other, v='').strip()}"
    return described, [*facts, Fact(relation, other, subject)]


def _named_in(facts: Iterable[Fact]) -> set[str]:
    return {word for fact in facts for word in (fact.subject, fact.value)}


def _mrqa(subset: str, question: str, context: str, answer: str) -> Row:
    start = find_word(context, answer)
    spans = [{"start": [start], "end": [start + len(answer) - 1]}]  # the end is the last character, as in MRQA
    return {
        "subset": subset,
        "context": context,
        "question": question,
        "answers": [answer],
        "detected_answers": {"text": [answer], "char_spans": spans},
    }
