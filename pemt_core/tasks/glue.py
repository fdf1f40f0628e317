"""The tasks of GLUE: four sources and four targets."""

from pemt_core.tasks.record import LABEL_TOKENS, HubDataset, Task
from pemt_core.tasks.rows import classification, similarity
from pemt_core.tasks.split_rules import large, own, small

_REPO = "nyu-mll/glue"

MNLI = Task(
    name="mnli",
    suite="source",
    dataset=HubDataset(_REPO, "mnli"),
    conversion=classification(
        {"premise": "premise", "hypothesis": "hypothesis"}, labels=("entailment", "neutral", "contradiction")
    ),
    description="Given a premise and a hypothesis, decide whether the premise entails the hypothesis, "
    "contradicts it, or is neutral towards it.",
    metrics=("accuracy",),
    splits=own(validation="validation_mismatched", test="validation_matched"),
    generation_length=LABEL_TOKENS,
)

QNLI = Task(
    name="qnli",
    suite="source",
    dataset=HubDataset(_REPO, "qnli"),
    conversion=classification(
        {"question": "question", "sentence": "sentence"}, labels=("entailment", "not_entailment")
    ),
    description="Given a question and a sentence, decide whether the sentence contains the answer to the question.",
    metrics=("accuracy",),
    splits=large(),
    generation_length=LABEL_TOKENS,
)

QQP = Task(
    name="qqp",
    suite="source",
    dataset=HubDataset(_REPO, "qqp"),
    conversion=classification(
        {"question1": "question1", "question2": "question2"}, labels=("not_duplicate", "duplicate")
    ),
    description="Given two questions, decide whether they ask the same thing and are duplicates of each other.",
    metrics=("accuracy", "f1"),
    splits=large(),
    generation_length=LABEL_TOKENS,
)

SST2 = Task(
    name="sst2",
    suite="source",
    dataset=HubDataset(_REPO, "sst2"),
    conversion=classification({"sentence": "sentence"}, labels=("negative", "positive")),
    description="Given a sentence from a film review, decide whether its sentiment is positive or negative.",
    metrics=("accuracy",),
    splits=large(),
    generation_length=LABEL_TOKENS,
)

COLA = Task(
    name="cola",
    suite="GLUE",
    dataset=HubDataset(_REPO, "cola"),
    conversion=classification({"sentence": "sentence"}, labels=("unacceptable", "acceptable")),
    description="Given an English sentence, decide whether it is grammatically acceptable or unacceptable.",
    metrics=("matthews",),
    splits=small(),
    generation_length=LABEL_TOKENS,
)

STSB = Task(
    name="stsb",
    suite="GLUE",
    dataset=HubDataset(_REPO, "stsb"),
    conversion=similarity("sentence1", "sentence2"),
    description="Given two sentences, rate how similar their meanings are on a scale from 0 to 5.",
    metrics=("pearson", "spearman"),
    splits=small(),
    generation_length=LABEL_TOKENS,
)

MRPC = Task(
    name="mrpc",
    suite="GLUE",
    dataset=HubDataset(_REPO, "mrpc"),
    conversion=classification(
        {"sentence1": "sentence1", "sentence2": "sentence2"}, labels=("not_equivalent", "equivalent")
    ),
    description="Given two sentences from the news, decide whether they are equivalent in meaning.",
    metrics=("accuracy", "f1"),
    splits=small(),
    generation_length=LABEL_TOKENS,
)

RTE = Task(
    name="rte",
    suite="GLUE",
    dataset=HubDataset(_REPO, "rte"),
    conversion=classification(
        {"sentence1": "sentence1", "sentence2": "sentence2"}, labels=("entailment", "not_entailment")
    ),
    description="Given two sentences, decide whether the first one entails the second one.",
    metrics=("accuracy",),
    splits=small(),
    generation_length=LABEL_TOKENS,
)

TASKS = (MNLI, QNLI, QQP, SST2, COLA, STSB, MRPC, RTE)
