"""Plain text of the world, without a task: what a small backbone is pretrained on.

It uses every way to say something, those that tasks keep for evaluation included, so that a model knows the language.
The pairs of words that are new in evaluation occur in it no more than in training rows.
"""

from collections.abc import Callable

from pemt_core.embedded.acceptability import acceptable
from pemt_core.embedded.inference import CONTRADICTION, ENTAILMENT, draw_pair
from pemt_core.embedded.inference_rows import reported, rte, scitail
from pemt_core.embedded.language import clause, sentence, sentences, state
from pemt_core.embedded.paraphrase import two_facts
from pemt_core.embedded.passages import ask, draw_facts, tell
from pemt_core.embedded.reference import explanation
from pemt_core.embedded.relations import RELATIONS
from pemt_core.embedded.sentiment import sst2, yelp
from pemt_core.embedded.similarity import report
from pemt_core.embedded.word_sense import wic
from pemt_core.embedded.world import DeadEndError, World


def plain_text(seed: int, num_texts: int) -> list[str]:
    """Texts of one to six sentences, of all kinds in turn, the same for the same seed."""
    world = World(seed, "plain text", "train", training=True, every_template=True)
    texts: list[str] = []
    while len(texts) < num_texts:
        world.begin_row()
        try:
            texts.append(_KINDS[len(texts) % len(_KINDS)](world))
        except DeadEndError:
            continue
    return texts


def _story(world: World) -> str:
    return tell(world, draw_facts(world)).text


def _retelling(world: World) -> str:
    """A story, and some of it in other words."""
    facts = draw_facts(world)
    again = world.draw.sample(facts, 2)
    return " ".join([*sentences(world, facts), f"In other words, {clause(world, again[0])}.", state(world, again[1])])


def _dialogue(world: World) -> str:
    """A story, a question, and the fact that answers it."""
    passage = tell(world, draw_facts(world))
    asked = ask(world, passage)
    return f"{passage.text} {asked.question} {state(world, asked.fact)}"


def _conclusion(world: World) -> str:
    """A fact and what follows from it."""
    fact, hypothesis, _ = draw_pair(world, ENTAILMENT, world.draw.pick(RELATIONS))
    told, concluded = clause(world, fact), clause(world, hypothesis)
    world.require(told != concluded)
    return sentence(f"{told}, so {concluded}")


def _correction(world: World) -> str:
    """A fact and what it rules out."""
    fact, hypothesis, _ = draw_pair(world, CONTRADICTION, world.draw.pick(RELATIONS))
    return sentence(f"{clause(world, fact)}, so it is not true that {clause(world, hypothesis)}")


def _report_of_others(world: World) -> str:
    """What people know, think or get wrong, and what follows."""
    premise, hypothesis = reported(world, ENTAILMENT, world.draw.pick(RELATIONS))
    return f"{premise} So {clause(world, hypothesis)}."


def _news(world: World) -> str:
    return str(rte(world, 0)[0]["sentence1"])


def _findings(world: World) -> str:
    return str(scitail(world, 0)[0]["sentence1"])


def _film_review(world: World) -> str:
    return str(sst2(world, world.draw.below(2))[0]["sentence"]).strip()


def _place_review(world: World) -> str:
    return str(yelp(world, world.draw.below(2))[0]["text"])


def _word_in_use(world: World) -> str:
    return str(wic(world, 0)[0]["sentence1"])


_KINDS: tuple[Callable[[World], str], ...] = (
    _story,
    _retelling,
    _dialogue,
    _conclusion,
    _correction,
    _report_of_others,
    two_facts,
    _news,
    _findings,
    _film_review,
    _dialogue,
    _place_review,
    _conclusion,
    _word_in_use,
    explanation,
    report,
    acceptable,
)
