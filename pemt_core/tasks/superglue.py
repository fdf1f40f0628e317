"""The tasks of SuperGLUE: one source (ReCoRD) and five targets."""

from pemt_core.tasks.record import ANSWER_TOKENS, LABEL_TOKENS, HubDataset, Task
from pemt_core.tasks.rows import BOOLEAN_WORDS, answer_classification, classification, cloze, marked_spans
from pemt_core.tasks.split_rules import BY_QUESTION, Unit, large, small

_REPO = "aps/super_glue"

RECORD = Task(
    name="record",
    suite="source",
    dataset=HubDataset(_REPO, "record"),
    conversion=cloze(),
    description="Given a news passage, a list of entities and a query with a placeholder, "
    "find the entity that fills the placeholder.",
    metrics=("qa_f1", "qa_em"),
    splits=large(unit=Unit(("idx", "passage"))),
    generation_length=ANSWER_TOKENS,
)

MULTIRC = Task(
    name="multirc",
    suite="SuperGLUE",
    dataset=HubDataset(_REPO, "multirc"),
    conversion=answer_classification(),
    description="Given a paragraph, a question about it and an answer, decide whether the answer is true or false.",
    metrics=("multirc_f1", "multirc_em"),
    splits=small(unit=BY_QUESTION),
    generation_length=LABEL_TOKENS,
)

BOOLQ = Task(
    name="boolq",
    suite="SuperGLUE",
    dataset=HubDataset(_REPO, "boolq"),
    conversion=classification({"question": "question", "passage": "passage"}, labels=BOOLEAN_WORDS),
    description="Given a passage and a yes or no question about it, decide whether the answer is true or false.",
    metrics=("accuracy",),
    splits=small(),
    generation_length=LABEL_TOKENS,
)

WIC = Task(
    name="wic",
    suite="SuperGLUE",
    dataset=HubDataset(_REPO, "wic"),
    conversion=classification(
        {"sentence1": "sentence1", "sentence2": "sentence2", "word": "word"}, labels=BOOLEAN_WORDS
    ),
    description="Given two sentences and a word that occurs in both, "
    "decide whether the word has the same meaning in both sentences.",
    metrics=("accuracy",),
    splits=small(),
    generation_length=LABEL_TOKENS,
)

WSC = Task(
    name="wsc",
    suite="SuperGLUE",
    dataset=HubDataset(_REPO, "wsc.fixed"),
    conversion=marked_spans(),
    description="Given a text with a marked noun and a marked pronoun, decide whether the pronoun refers to the noun.",
    metrics=("accuracy",),
    splits=small(),
    generation_length=LABEL_TOKENS,
)

CB = Task(
    name="cb",
    suite="SuperGLUE",
    dataset=HubDataset(_REPO, "cb"),
    conversion=classification(
        {"premise": "premise", "hypothesis": "hypothesis"}, labels=("entailment", "contradiction", "neutral")
    ),
    description="Given a premise and a hypothesis, decide whether the author of the premise is committed "
    "to the hypothesis, to its opposite, or to neither.",
    metrics=("accuracy", "macro_f1"),
    splits=small(),
    generation_length=LABEL_TOKENS,
)

TASKS = (RECORD, MULTIRC, BOOLQ, WIC, WSC, CB)
