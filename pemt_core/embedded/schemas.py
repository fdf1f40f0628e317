"""The columns and types of the real datasets, as their repositories on the hub declare them."""

from datasets import ClassLabel, Features, List, Value

_TEXT = Value("string")
_INT = Value("int32")
_BOOLEAN = ClassLabel(names=["False", "True"])


def _labelled(texts: tuple[str, ...], *names: str) -> Features:
    """Return a schema in GLUE's form: texts, a label and a number."""
    return Features({**dict.fromkeys(texts, _TEXT), "label": ClassLabel(names=list(names)), "idx": _INT})


MNLI = _labelled(("premise", "hypothesis"), "entailment", "neutral", "contradiction")
QNLI = _labelled(("question", "sentence"), "entailment", "not_entailment")
QQP = _labelled(("question1", "question2"), "not_duplicate", "duplicate")
SST2 = _labelled(("sentence",), "negative", "positive")
COLA = _labelled(("sentence",), "unacceptable", "acceptable")
MRPC = _labelled(("sentence1", "sentence2"), "not_equivalent", "equivalent")
RTE = _labelled(("sentence1", "sentence2"), "entailment", "not_entailment")
CB = _labelled(("premise", "hypothesis"), "entailment", "contradiction", "neutral")
BOOLQ = _labelled(("question", "passage"), "False", "True")
STSB = Features({"sentence1": _TEXT, "sentence2": _TEXT, "label": Value("float32"), "idx": _INT})
MULTIRC = Features(
    {
        "paragraph": _TEXT,
        "question": _TEXT,
        "answer": _TEXT,
        "idx": {"paragraph": _INT, "question": _INT, "answer": _INT},
        "label": _BOOLEAN,
    }
)
WIC = Features(
    {
        "word": _TEXT,
        "sentence1": _TEXT,
        "sentence2": _TEXT,
        **dict.fromkeys(("start1", "start2", "end1", "end2", "idx"), _INT),
        "label": _BOOLEAN,
    }
)
WSC = Features(
    {
        "text": _TEXT,
        "span1_index": _INT,
        "span2_index": _INT,
        "span1_text": _TEXT,
        "span2_text": _TEXT,
        "idx": _INT,
        "label": _BOOLEAN,
    }
)
RECORD = Features(
    {
        "passage": _TEXT,
        "query": _TEXT,
        "entities": List(_TEXT),
        "entity_spans": {"text": List(_TEXT), "start": List(_INT), "end": List(_INT)},
        "answers": List(_TEXT),
        "idx": {"passage": _INT, "query": _INT},
    }
)
SQUAD = Features(
    {
        "id": _TEXT,
        "title": _TEXT,
        "context": _TEXT,
        "question": _TEXT,
        "answers": {"text": List(_TEXT), "answer_start": List(_INT)},
    }
)
MRQA = Features(
    {
        "subset": _TEXT,
        "context": _TEXT,
        "qid": _TEXT,
        "question": _TEXT,
        "answers": List(_TEXT),
        "detected_answers": {
            "text": List(_TEXT),
            "char_spans": List({"start": List(_INT), "end": List(_INT)}),
        },
    }
)
WINOGRANDE = Features(dict.fromkeys(("sentence", "option1", "option2", "answer"), _TEXT))
YELP = Features({"text": _TEXT, "label": ClassLabel(names=["1", "2"])})
SCITAIL = Features(dict.fromkeys(("gold_label", "sentence1", "sentence2"), _TEXT))
PAWS = Features({"sentence1": _TEXT, "sentence2": _TEXT, "label": ClassLabel(names=["0", "1"]), "id": _INT})
