"""Plain text of the world, without a task: what a small backbone is pretrained on.

It says the same thing twice, in other words and another order, draws conclusions, asks and answers, as people do: what
a span hides can mostly be found elsewhere in its text. It uses every way to say something and every pair of words,
those that tasks keep for evaluation included: it is the language that a model knows before any task.
"""

from collections.abc import Callable, Sequence

from pemt_core.embedded.acceptability import acceptable
from pemt_core.embedded.answering import qnli
from pemt_core.embedded.inference import CONTRADICTION, ENTAILMENT, NEUTRAL, draw_pair
from pemt_core.embedded.inference_rows import reported, rte, scitail
from pemt_core.embedded.language import Role, asked_roles, clause, question, sentence, sentences, state
from pemt_core.embedded.paraphrase import qqp, two_facts
from pemt_core.embedded.passages import ask, draw_facts, tell
from pemt_core.embedded.reading import as_typed
from pemt_core.embedded.reference import explanation
from pemt_core.embedded.relations import RELATIONS
from pemt_core.embedded.sentiment import opinion_twice, yelp
from pemt_core.embedded.similarity import report
from pemt_core.embedded.word_sense import wic
from pemt_core.embedded.world import DeadEndError, Fact, World


def plain_text(seed: int, num_texts: int) -> list[str]:
    """Texts of one to eight sentences, of all kinds in turn, the same for the same seed."""
    world = World(seed, "plain text", "train", training=False, every_template=True)
    texts: list[str] = []
    while len(texts) < num_texts:
        world.begin_row()
        try:
            texts.append(_KINDS[len(texts) % len(_KINDS)](world))
        except DeadEndError:
            continue
    return texts


def _told_twice(world: World, facts: Sequence[Fact]) -> str:
    again = [state(world, fact) for fact in world.draw.shuffled(facts)]
    return " ".join([*(state(world, fact) for fact in facts), *again])


def _alike(world: World) -> list[Fact]:
    """The same relation of two people or things."""
    relation = world.draw.pick(RELATIONS)
    facts = world.grid([relation], world.subjects([relation], 2))
    return [fact.denied if world.draw.chance(0.15) else fact for fact in facts]


def _alike_twice(world: World) -> str:
    return _told_twice(world, _alike(world))


def _two_twice(world: World) -> str:
    return _told_twice(world, world.draw.sample(draw_facts(world), 2))


def _story_twice(world: World) -> str:
    """A story, with its pronouns, and all of it in other words."""
    facts = draw_facts(world)[:4]
    again = [state(world, fact) for fact in world.draw.shuffled(facts)]
    return " ".join([*sentences(world, facts), *again])


def _answered(world: World) -> str:
    """Two facts, a question, and the one that answers it."""
    facts = [fact for fact in _alike(world) if fact.positive]
    world.require(len(facts) == 2)
    fact = world.draw.pick(facts)
    asked = question(world, fact, world.draw.pick(asked_roles(fact.relation)))
    return f"{state(world, facts[0])} {state(world, facts[1])} {asked} {state(world, fact)}"


def _dialogue(world: World) -> str:
    """A story, a question, and the fact that answers it; or the question as one types it, the story, and the answer."""
    passage = tell(world, draw_facts(world))
    asked = ask(world, passage)
    if world.draw.chance(0.5):
        return f"{passage.text} {asked.question} {state(world, asked.fact)}"
    return f"{as_typed(asked.question)} {passage.text} {sentence(asked.answer)}"


def _asked_whether(world: World) -> str:
    """What is told, a question whether something is so, and what can be said to that."""
    label, told, asked = _told_and_asked(world)
    world.require(asked.positive)
    return f"{told} {question(world, asked, Role.WHETHER)} {_REPLIES[label]}"


def _claimed(world: World) -> str:
    """What is told, what someone makes of it, and what can be said to that."""
    label, told, claim = _told_and_asked(world)
    return f"{told} {state(world, claim)} {_REPLIES[label]}"


def _told_and_asked(world: World) -> tuple[str, str, Fact]:
    label = world.draw.pick(tuple(_REPLIES))
    fact, asked, others = draw_pair(world, label, world.draw.pick(RELATIONS))
    return label, " ".join(state(world, each) for each in world.draw.shuffled([fact, *others])), asked


def _asked_twice(world: World) -> str:
    """Two questions, and whether they ask for the same."""
    same = world.draw.below(2)
    row = qqp(world, same)[0]
    reply = "That is the same question." if same else "That is another question."
    return f"{row['question1']} {row['question2']} {reply}"


def _replied(world: World) -> str:
    """A question, a reply, and whether it answers the question."""
    other = world.draw.below(2)
    row = qnli(world, other)[0]
    return f"{row['question']} {row['sentence']} {'That is no answer.' if other else 'That is an answer.'}"


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


def _report_of_others(world: World) -> str:
    """What people know, think or get wrong, and what follows."""
    premise, hypothesis = reported(world, ENTAILMENT, world.draw.pick(RELATIONS))
    return f"{premise} So {clause(world, hypothesis)}."


def _news(world: World) -> str:
    return str(rte(world, 0)[0]["sentence1"])


def _findings(world: World) -> str:
    return str(scitail(world, 0)[0]["sentence1"])


def _place_review(world: World) -> str:
    return str(yelp(world, world.draw.below(2))[0]["text"])


def _word_in_use(world: World) -> str:
    return str(wic(world, 0)[0]["sentence1"])


_REPLIES = {ENTAILMENT: "Yes, it is so.", CONTRADICTION: "No, it is not so.", NEUTRAL: "Nobody knows that."}

_KINDS: tuple[Callable[[World], str], ...] = (
    _alike_twice,
    _claimed,
    _answered,
    _asked_twice,
    opinion_twice,
    _asked_whether,
    _two_twice,
    _replied,
    _dialogue,
    _claimed,
    _replied,
    _correction,
    _answered,
    _asked_twice,
    opinion_twice,
    _report_of_others,
    _claimed,
    _asked_whether,
    _replied,
    _conclusion,
    _story_twice,
    _asked_twice,
    _dialogue,
    _claimed,
    _replied,
    two_facts,
    _dialogue,
    _news,
    _findings,
    _place_review,
    _word_in_use,
    explanation,
    report,
    acceptable,
)
