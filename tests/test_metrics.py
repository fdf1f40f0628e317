"""Metrics against scikit-learn, scipy, SQuAD's published script and values computed by hand."""

import re
import string
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from pemt_core.errors import DataError
from pemt_core.metrics import METRICS, Scored, count_unreadable, get_metric, score

LABELS = ["entailment", "neutral", "contradiction"]


def of(predictions: list[str], truth: list[str], labels: list[str] | None, groups: list[str] | None = None) -> Scored:
    groups = groups or [str(row) for row in range(len(truth))]
    return Scored(predictions, [[text] for text in truth], groups, labels)


def drawn(labels: list[str], seed: int) -> tuple[list[str], list[str]]:
    """200 random (truth, prediction) pairs that agree more often than not."""
    generator = np.random.default_rng(seed)
    truth = generator.choice(labels, 200)
    predictions = np.where(generator.random(200) < 0.6, truth, generator.choice(labels, 200))
    return [str(word) for word in truth], [str(word) for word in predictions]


def test_names_equal_those_in_task_records() -> None:
    classes = {"accuracy", "f1", "macro_f1", "matthews", "multirc_f1", "multirc_em"}
    answers = {"qa_f1", "qa_em", "qa_f1_first", "qa_em_first"}
    assert set(METRICS) == classes | answers | {"pearson", "spearman"}
    assert all(name == metric.name for name, metric in METRICS.items())


@pytest.mark.parametrize("seed", range(3))
def test_readable_classes_equal_scikit_learn(seed: int) -> None:
    truth, predictions = drawn(LABELS, seed)
    scores = score(["accuracy", "macro_f1", "matthews"], of(predictions, truth, LABELS))
    assert scores["accuracy"] == pytest.approx(100 * sklearn.metrics.accuracy_score(truth, predictions))
    assert scores["macro_f1"] == pytest.approx(100 * sklearn.metrics.f1_score(truth, predictions, average="macro"))
    assert scores["matthews"] == pytest.approx(100 * sklearn.metrics.matthews_corrcoef(truth, predictions))


@pytest.mark.parametrize("name", ["f1", "multirc_f1"])
def test_binary_f1_takes_the_second_label_word_as_positive(name: str) -> None:
    truth, predictions = drawn(["False", "True"], 5)
    expected = 100 * sklearn.metrics.f1_score(truth, predictions, pos_label="True")
    assert score([name], of(predictions, truth, ["False", "True"]))[name] == pytest.approx(expected)


def test_unreadable_is_the_opposite_label_for_binary_f1() -> None:
    # positive is "yes"; row 1: hit; row 2: true yes, unreadable -> miss; row 3: true no, unreadable -> false alarm
    scored = of(["yes", "banana", "", "no"], ["yes", "yes", "no", "no"], ["no", "yes"])
    assert score(["f1"], scored)["f1"] == pytest.approx(100 * 2 * 1 / (2 * 1 + 1 + 1))
    assert score(["accuracy"], scored)["accuracy"] == 50.0
    assert count_unreadable(["accuracy", "f1"], scored) == 2


def test_unreadable_is_a_separate_class_for_matthews() -> None:
    truth, predictions = ["a", "a", "b", "b"], ["a", "?", "b", "b"]
    # Gorodkin's R_K by hand: c = 3 right of s = 4; truth (2, 2, 0), predicted (1, 2, 1) per class.
    expected = (3 * 4 - (2 * 1 + 2 * 2)) / np.sqrt((16 - (1 + 4 + 1)) * (16 - (4 + 4)))
    assert score(["matthews"], of(predictions, truth, ["a", "b"]))["matthews"] == pytest.approx(100 * expected)


def test_unreadable_lowers_recall_in_macro_f1_and_adds_no_class() -> None:
    # a: precision 1, recall 1/2 -> 2/3; b: precision 1, recall 1 -> 1. Mean over two words, not three classes.
    scored = of(["a", "?", "b", "b"], ["a", "a", "b", "b"], ["a", "b"])
    assert score(["macro_f1"], scored)["macro_f1"] == pytest.approx(100 * (2 / 3 + 1) / 2)


def test_macro_f1_leaves_out_a_class_that_occurs_nowhere() -> None:
    assert score(["macro_f1"], of(["a", "b"], ["a", "b"], ["a", "b", "c"]))["macro_f1"] == 100.0


@pytest.mark.parametrize("name", ["accuracy", "f1", "macro_f1", "matthews", "multirc_f1", "multirc_em"])
def test_nothing_readable_scores_zero_without_a_warning(name: str) -> None:
    scored = of(["x", "y", "z"], ["no", "yes", "no"], ["no", "yes"])
    assert score([name], scored)[name] == 0.0
    assert count_unreadable([name], scored) == 3


def test_constant_predictions_have_no_matthews_correlation() -> None:
    assert score(["matthews"], of(["no"] * 3, ["no"] * 3, ["no", "yes"])) == {"matthews": 0.0}


def test_label_words_are_exact_but_for_spaces() -> None:
    scored = of([" True ", "true", "not  equivalent"], ["True", "True", "not equivalent"], ["not equivalent", "True"])
    assert score(["accuracy"], scored)["accuracy"] == pytest.approx(200 / 3)
    assert count_unreadable(["accuracy"], scored) == 1


def test_accuracy_of_free_text_has_nothing_unreadable() -> None:
    scored = of(["Sarah", "", "the table"], ["Sarah", "Maria", "the chair"], None)
    assert score(["accuracy"], scored)["accuracy"] == pytest.approx(100 / 3)
    assert count_unreadable(["accuracy"], scored) == 0


def test_multirc_exact_match_is_per_question() -> None:
    scored = of(
        ["True", "False", "True", "True", "?"],
        ["True", "False", "True", "False", "False"],
        ["False", "True"],
        ["q1", "q1", "q2", "q2", "q3"],
    )
    assert score(["multirc_em"], scored)["multirc_em"] == pytest.approx(100 / 3)
    # hits 2, false alarms 2 (row 4 predicted, row 5 unreadable), no miss
    assert score(["multirc_f1"], scored)["multirc_f1"] == pytest.approx(100 * 4 / 6)


def test_correlations_equal_scipy() -> None:
    generator = np.random.default_rng(1)
    truth = np.round(generator.uniform(0, 5, 100) * 5) / 5
    predicted = np.clip(truth + generator.normal(0, 1, 100), 0, 5).round(1)
    scored = of([f"{value:.1f}" for value in predicted], [f"{value:.1f}" for value in truth], None)
    scores = score(["pearson", "spearman"], scored)
    assert scores["pearson"] == pytest.approx(100 * scipy.stats.pearsonr(predicted, truth).statistic)
    assert scores["spearman"] == pytest.approx(100 * scipy.stats.spearmanr(predicted, truth).statistic)
    assert count_unreadable(["pearson", "spearman"], scored) == 0


def test_unreadable_scores_are_minus_one() -> None:
    scored = of(["1.0", "5.2", "nan", "four", "4.0", " 5 "], ["1.0", "5.0", "2.0", "4.0", "4.0", "5.0"], None)
    expected = 100 * np.corrcoef([1, -1, -1, -1, 4, 5], [1, 5, 2, 4, 4, 5])[0, 1]
    assert score(["pearson"], scored)["pearson"] == pytest.approx(expected)
    assert count_unreadable(["pearson", "spearman"], scored) == 3


def test_scores_are_decimal_numbers() -> None:
    for text in ("0_1", "٣", "nan", "inf", "1e", ".", "", "0x1", "5.1", "-1", "1,5", "\u00b2"):
        assert not get_metric("pearson").can_score(text)
    for text in ("0", "+3", "2.", ".5", " 4.25 ", "5e0", "1E-3", "-0.0"):
        assert get_metric("pearson").can_score(text)


@pytest.mark.parametrize("predictions", [["2.0", "2.0", "2.0"], ["", "x", "7"]])
def test_constant_scores_have_no_correlation_and_no_warning(predictions: list[str]) -> None:
    scored = of(predictions, ["1.0", "2.0", "3.0"], None)
    assert score(["pearson", "spearman"], scored) == {"pearson": 0.0, "spearman": 0.0}


def squad_script(prediction: str, truth: str) -> tuple[float, float]:
    """F1 and EM as the SQuAD v1.1 script computes them (punctuation deleted)."""

    def normalised(text: str) -> str:
        kept = "".join(character for character in text.lower() if character not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", kept).split())

    guess, true = normalised(prediction).split(), normalised(truth).split()
    same = sum((Counter(guess) & Counter(true)).values())
    if same == 0:
        return 0.0, float(guess == true)
    precision, recall = same / len(guess), same / len(true)
    return 2 * precision * recall / (precision + recall), float(guess == true)


@pytest.mark.parametrize(
    ("prediction", "truth"),
    [
        ("The Eiffel Tower", "Eiffel Tower"),
        ("U . S .", "the u . s . army"),
        ("1 , 000", "1 , 000 men"),
        ("well - known", "a well - known singer"),
        ("new york new york", "new york"),
        ("Paris", "London"),
        ("", "London"),
    ],
)
def test_question_answering_equals_the_squad_script_on_spaced_text(prediction: str, truth: str) -> None:
    scores = score(["qa_f1", "qa_em"], of([prediction], [truth], None))
    f1, exact = squad_script(prediction, truth)
    assert scores == {"qa_f1": pytest.approx(100 * f1), "qa_em": 100 * exact}


def test_spaces_around_punctuation_do_not_matter() -> None:
    assert score(["qa_em"], of(["well-known"], ["well - known"], None)) == {"qa_em": 100.0}


def test_an_empty_prediction_does_not_match_an_article() -> None:
    scored = of(["", "the", "."], ["The", "The", "The"], None)
    assert score(["qa_em", "qa_f1"], scored) == {"qa_em": pytest.approx(100 / 3), "qa_f1": pytest.approx(100 / 3)}
    assert count_unreadable(["qa_f1", "qa_em"], scored) == 0


def test_the_first_reference_or_the_best_of_all_counts() -> None:
    scored = Scored(["red car", "blue"], [["green", "red car"], ["blue", "azure"]], ["1", "2"], None)
    assert score(["qa_f1", "qa_em"], scored) == {"qa_f1": 100.0, "qa_em": 100.0}
    assert score(["qa_f1_first", "qa_em_first"], scored) == {"qa_f1_first": 50.0, "qa_em_first": 50.0}


def test_unknown_metric_names_the_nearest() -> None:
    with pytest.raises(DataError, match="'acuracy'; did you mean 'accuracy'"):
        get_metric("acuracy")


def test_unscorable_input_is_an_error() -> None:
    with pytest.raises(DataError, match="no rows"):
        of([], [], None)
    with pytest.raises(ValueError, match="differ in length: 2, 1, 1"):
        Scored(["a", "b"], [["a"]], ["1"], None)
    with pytest.raises(DataError, match=r"row 0 .* has no reference"):
        Scored(["a"], [[]], ["1"], None)
    with pytest.raises(DataError, match=r"'entailmen' is not a label word; did you mean 'entailment'"):
        of(["neutral"], ["entailmen"], LABELS)
    with pytest.raises(DataError, match="no label words"):
        score(["matthews"], of(["a"], ["a"], None))
    with pytest.raises(DataError, match="two label words, but this one has 3"):
        score(["f1"], of(["neutral"], ["neutral"], LABELS))
    with pytest.raises(DataError, match=r"'five' is not a number from 0 to 5"):
        score(["pearson"], of(["1.0"], ["five"], None))


def test_import_is_light() -> None:
    code = (
        "import sys, pemt_core.metrics; print([m for m in ('sklearn', 'scipy', 'torch', 'numpy') if m in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"
