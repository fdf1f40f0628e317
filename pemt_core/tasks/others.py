"""Four targets from other collections."""

from pemt_core.tasks.record import ANSWER_TOKENS, LABEL_TOKENS, HubDataset, Task
from pemt_core.tasks.rows import classification, option_choice, word_classification
from pemt_core.tasks.split_rules import large, own, small

WINOGRANDE = Task(
    name="winogrande",
    suite="Others",
    dataset=HubDataset("allenai/winogrande", "winogrande_xl"),
    conversion=option_choice(),
    description="Given a sentence with a gap and two options, choose the option that fills the gap.",
    metrics=("accuracy",),
    splits=large(),
    generation_length=ANSWER_TOKENS,
    chance=50.0,
)

YELP = Task(
    name="yelp",
    suite="Others",
    dataset=HubDataset("fancyzhx/yelp_polarity", "plain_text"),
    conversion=classification({"sentence": "text"}, labels=("negative", "positive"), key=None),
    description="Given a customer review of a business, decide whether its sentiment is positive or negative.",
    metrics=("accuracy",),
    splits=large(test="test"),
    generation_length=LABEL_TOKENS,
    caps={"train": 100_000},
)

SCITAIL = Task(
    name="scitail",
    suite="Others",
    dataset=HubDataset("allenai/scitail", "snli_format"),
    conversion=word_classification(
        {"premise": "sentence1", "hypothesis": "sentence2"}, labels=("entailment", "neutral"), label="gold_label"
    ),
    description="Given a premise and a hypothesis about science, "
    "decide whether the premise entails the hypothesis or is neutral towards it.",
    metrics=("accuracy",),
    splits=small(),
    generation_length=LABEL_TOKENS,
)

PAWS = Task(
    name="paws",
    suite="Others",
    dataset=HubDataset("google-research-datasets/paws", "labeled_final"),
    conversion=classification(
        {"sentence1": "sentence1", "sentence2": "sentence2"}, labels=("not_paraphrase", "paraphrase"), key="id"
    ),
    description="Given two sentences with many words in common, decide whether they are paraphrases of each other.",
    metrics=("accuracy",),
    splits=own(validation="validation", test="test"),
    generation_length=LABEL_TOKENS,
)

TASKS = (WINOGRANDE, YELP, SCITAIL, PAWS)
