"""Plain text of the world, which belongs to no task, for pretraining a small backbone.

The texts say things twice in other words and another order, draw conclusions, ask and answer. Spans that the rest of a
text determines are marked as hidden: a model of a million parameters learns to read from such spans, and hardly from
random ones. The texts use all templates and all pairs of words, including those that tasks reserve for evaluation: they
represent the language that a model knows before any task.
"""

import re
from collections.abc import Callable, Sequence

from pemt_core.data.corpus import CorpusText
from pemt_core.embedded.acceptability import acceptable
from pemt_core.embedded.answering import qnli
from pemt_core.embedded.inference import CONTRADICTION, ENTAILMENT, NEUTRAL, draw_pair
from pemt_core.embedded.inference_rows import reported, rte, scitail
from pemt_core.embedded.language import Role, clause, joined, name, question, sentence, spoken, state
from pemt_core.embedded.paraphrase import qqp, two_facts
from pemt_core.embedded.passages import Passage, ask, draw_facts, tell
from pemt_core.embedded.reading import as_typed
from pemt_core.embedded.reference import explanation
from pemt_core.embedded.relations import RELATIONS
from pemt_core.embedded.sentiment import judged_review, yelp
from pemt_core.embedded.similarity import report
from pemt_core.embedded.word_sense import wic
from pemt_core.embedded.world import DeadEndError, Fact, World

_HIDDEN = re.compile(r"\{(.+?)\}")  # the mark of a hidden span in the texts below
_MOST_QUESTIONS = 4
_REPLIES = {ENTAILMENT: "Yes.", CONTRADICTION: "No.", NEUTRAL: "Perhaps."}


def plain_text(seed: int, num_texts: int) -> list[CorpusText]:
    """Generate texts of one to thirteen sentences, of all kinds in turn; the same seed gives the same texts."""
    world = World(seed, "plain text", "train", training=False, every_template=True)
    texts: list[CorpusText] = []
    while len(texts) < num_texts:
        world.begin_row()
        try:
            texts.append(_unmarked(_KINDS[len(texts) % len(_KINDS)](world)))
        except DeadEndError:
            continue
    return texts


def _unmarked(marked: str) -> CorpusText:
    """Return the text without marks, and the positions of its hidden spans."""
    hidden = [
        (match.start(1) - 2 * n - 1, match.end(1) - 2 * n - 1) for n, match in enumerate(_HIDDEN.finditer(marked))
    ]
    return CorpusText(_HIDDEN.sub(r"\1", marked), tuple(hidden))


def _in_any_order(world: World, story: str, others: Sequence[str]) -> str:
    """Put the story before or after the others."""
    return " ".join([story, *others] if world.draw.chance(0.5) else [*others, story])


def _retold(world: World) -> str:
    """A story, and all of it in other words with a hidden word in each sentence."""
    facts = draw_facts(world)
    again = [_with_a_gap(world, fact) for fact in world.draw.shuffled(facts)]
    return _in_any_order(world, tell(world, facts).text, again)


def _alike_retold(world: World) -> str:
    """The same with any relation of two people or things, sometimes denied."""
    relation = world.draw.pick(RELATIONS)
    facts = world.grid([relation], world.subjects([relation], 2))
    facts = [fact.denied if world.draw.chance(0.15) else fact for fact in facts]
    again = [_with_a_gap(world, fact) for fact in world.draw.shuffled(facts)]
    return _in_any_order(world, " ".join(state(world, fact) for fact in facts), again)


def _with_a_gap(world: World, fact: Fact) -> str:
    text = state(world, fact)
    word = name(world, fact.subject) if world.draw.chance(0.5) else spoken(fact.value, text)
    return re.sub(rf"\b{word}\b", f"{{{word}}}", text, count=1)


def _interview(world: World) -> str:
    """A story, and questions about it with short answers."""
    passage = tell(world, draw_facts(world))
    exchanges = dict.fromkeys(_asked_and_answered(world, passage) for _ in range(_MOST_QUESTIONS))
    return _in_any_order(world, passage.text, list(exchanges))


def _asked_and_answered(world: World, passage: Passage) -> str:
    asked = ask(world, passage)
    return f"{asked.question} {{{asked.answer}}}."


def _dialogue(world: World) -> str:
    """A story with a spoken or typed question before or after it, and the answer."""
    passage = tell(world, draw_facts(world))
    asked = ask(world, passage)
    asking = asked.question if world.draw.chance(0.5) else as_typed(asked.question)
    return f"{_in_any_order(world, passage.text, [asking])} {{{asked.answer}}}"


def _claimed(world: World) -> str:
    """A text, a claim about it, and a reply: yes, no or perhaps."""
    label, told, claim = _told_and_asked(world)
    return f"{told} {state(world, claim)} {{{_REPLIES[label]}}}"


def _asked_whether(world: World) -> str:
    """A text, a question whether something is true, and a reply."""
    label, told, asked = _told_and_asked(world)
    world.require(asked.positive)
    return f"{told} {question(world, asked, Role.WHETHER)} {{{_REPLIES[label]}}}"


def _told_and_asked(world: World) -> tuple[str, str, Fact]:
    label = world.draw.pick(tuple(_REPLIES))
    fact, asked, others = draw_pair(world, label, world.draw.pick(RELATIONS))
    facts = world.draw.shuffled([fact, *others])
    told = joined(world, facts) if world.draw.chance(0.5) else " ".join(state(world, each) for each in facts)
    return label, told, asked


def _reports_weighed(world: World) -> str:
    """What people know, think or get wrong, a claim about it, and a reply."""
    label = world.draw.pick(tuple(_REPLIES))
    premise, hypothesis = reported(world, label, world.draw.pick(RELATIONS))
    return f"{premise} {state(world, hypothesis)} {{{_REPLIES[label]}}}"


def _asked_twice(world: World) -> str:
    """Two questions, and whether they ask for the same thing."""
    same = world.draw.below(2)
    row = qqp(world, same)[0]
    return f"{row['question1']} {row['question2']} {{{'The same.' if same else 'Another.'}}}"


def _replied(world: World) -> str:
    """A question, a reply, and whether it answers the question."""
    other = world.draw.below(2)
    row = qnli(world, other)[0]
    return f"{row['question']} {row['sentence']} {{{'No answer.' if other else 'An answer.'}}}"


def _reviewed(world: World) -> str:
    """A review, and its verdict in a word."""
    review, verdict = judged_review(world)
    return f"{review} In short: {{{verdict}}}"


def _conclusion(world: World) -> str:
    """A fact and what follows from it."""
    return _linked(world, ENTAILMENT, ("{told}, so {said}", "it follows from this that {said}: {told}"))


def _correction(world: World) -> str:
    """A fact and what it rules out."""
    return _linked(world, CONTRADICTION, ("{told}, so it is not true that {said}", "it is false that {said}: {told}"))


def _linked(world: World, label: str, links: tuple[str, str]) -> str:
    fact, hypothesis, _ = draw_pair(world, label, world.draw.pick(RELATIONS))
    told, said = clause(world, fact), clause(world, hypothesis)
    world.require(told != said)
    return sentence(world.draw.pick(links).format(told=told, said=said))


def _news(world: World) -> str:
    return str(rte(world, 0)[0]["sentence1"])


def _findings(world: World) -> str:
    return str(scitail(world, 0)[0]["sentence1"])


def _place_review(world: World) -> str:
    return str(yelp(world, world.draw.below(2))[0]["text"])


def _word_in_use(world: World) -> str:
    return str(wic(world, 0)[0]["sentence1"])


_SHARES: dict[Callable[[World], str], int] = {
    _interview: 8,
    _claimed: 8,
    _retold: 5,
    _replied: 8,
    _asked_twice: 7,
    _dialogue: 8,
    _alike_retold: 4,
    _reviewed: 5,
    _asked_whether: 3,
    _reports_weighed: 4,
    _conclusion: 1,
    _correction: 1,
    _findings: 1,
    two_facts: 1,
    _news: 1,
    _place_review: 1,
    _word_in_use: 1,
    explanation: 1,
    report: 1,
    acceptable: 1,
}
_KINDS = tuple(kind for turn in range(max(_SHARES.values())) for kind, share in _SHARES.items() if turn < share)
