"""Extractive question answering: SQuAD as a source and four parts of MRQA as targets."""

from pemt_core.tasks.record import ANSWER_TOKENS, HubDataset, Task
from pemt_core.tasks.rows import question_answering
from pemt_core.tasks.split_rules import BY_PASSAGE, large

# The best score over all answers, then the score with the first answer alone, as in published results.
_METRICS = ("qa_f1", "qa_em", "qa_f1_first", "qa_em_first")
_MRQA = "mrqa-workshop/mrqa"
_MRQA_ROWS = question_answering(answers=("answers",), key="qid")

SQUAD = Task(
    name="squad",
    suite="source",
    dataset=HubDataset("rajpurkar/squad", "plain_text"),
    conversion=question_answering(answers=("answers", "text"), key="id"),
    description="Given a question and a passage from an encyclopedia, answer with words taken from the passage.",
    metrics=_METRICS,
    splits=large(unit=BY_PASSAGE),
    generation_length=ANSWER_TOKENS,
)

NQ = Task(
    name="nq",
    suite="MRQA",
    dataset=HubDataset(_MRQA, "plain_text", subset="NaturalQuestionsShort"),
    conversion=_MRQA_ROWS,
    description="Given a question that someone asked a search engine and a passage from an encyclopedia, "
    "answer with words taken from the passage.",
    metrics=_METRICS,
    splits=large(unit=BY_PASSAGE),
    generation_length=ANSWER_TOKENS,
)

HOTPOTQA = Task(
    name="hotpotqa",
    suite="MRQA",
    dataset=HubDataset(_MRQA, "plain_text", subset="HotpotQA"),
    conversion=_MRQA_ROWS,
    description="Given a question and several paragraphs that must be combined, answer with words taken from them.",
    metrics=_METRICS,
    splits=large(unit=BY_PASSAGE),
    generation_length=ANSWER_TOKENS,
)

SEARCHQA = Task(
    name="searchqa",
    suite="MRQA",
    dataset=HubDataset(_MRQA, "plain_text", subset="SearchQA"),
    conversion=_MRQA_ROWS,
    description="Given a quiz question and snippets from a web search, answer with words taken from the snippets.",
    metrics=_METRICS,
    splits=large(unit=BY_PASSAGE),
    generation_length=ANSWER_TOKENS,
)

NEWSQA = Task(
    name="newsqa",
    suite="MRQA",
    dataset=HubDataset(_MRQA, "plain_text", subset="NewsQA"),
    conversion=_MRQA_ROWS,
    description="Given a question and a news article, answer with words taken from the article.",
    metrics=_METRICS,
    splits=large(unit=BY_PASSAGE),
    generation_length=ANSWER_TOKENS,
)

TASKS = (SQUAD, NQ, HOTPOTQA, SEARCHQA, NEWSQA)
