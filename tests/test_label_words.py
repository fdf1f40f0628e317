"""Other words for the labels of the registry's tasks: rows, messages, prepared data, and what a user sees."""

import json
from pathlib import Path
from typing import Any

import pytest
from mirrors import write_repository
from source_code import REPOSITORY
from test_tasks import EXAMPLES

from components.tasks import describe
from pemt_core.data.prepared import PreparedTask
from pemt_core.errors import DataError, SettingsError
from pemt_core.schema.validation import merged
from pemt_core.settings import PrepareSettings, Settings, TokenizerSettings, parse_settings, read_params
from pemt_core.settings.groups import MaxRows
from pemt_core.steps.plan import make_plan
from pemt_core.steps.prepare import prepare
from pemt_core.tasks import TASKS, get_task, known_tasks

WORDS = {"entailment": "yes", "not_entailment": "no"}
pytestmark = pytest.mark.usefixtures("datasets_cache")


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.labels])
def test_a_row_has_the_word_of_its_label(name: str) -> None:
    task = get_task(name)
    assert task.labels is not None
    words = {label: f"word{number}" for number, label in enumerate(task.labels)}
    renamed = get_task(name, known_tasks({}, Path(), {name: words}))
    before, after = (each.conversion.pair(EXAMPLES[name][0]) for each in (task, renamed))
    assert (after.target, after.references) == (words[before.target], (words[before.target],))
    assert (after.source, after.key, after.group) == (before.source, before.key, before.group)
    assert renamed.labels == tuple(words.values())
    assert dict(renamed.conversion.shown) == {word: label for label, word in words.items()}


def test_labels_can_exchange_words_and_others_keep_theirs() -> None:
    words = {"entailment": "contradiction", "contradiction": "entailment"}
    task = get_task("cb", known_tasks({}, Path(), {"cb": words}))
    assert task.labels == ("contradiction", "entailment", "neutral")
    assert dict(task.conversion.shown) == {"contradiction": "entailment", "entailment": "contradiction"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"rta": WORDS}, r"prepare\.label_words: there is no task 'rta': did you mean 'rte'"),
        ({"joint": WORDS}, r"prepare\.label_words: there is no task 'joint'"),
        ({"rte": {"entailed": "yes"}}, r"label_words\.rte: there is no label 'entailed': did you mean 'entailment'"),
        ({"squad": {"yes": "no"}}, r"label_words\.squad: the task has no labels"),
        ({"stsb": {"0.0": "no"}}, r"label_words\.stsb: the task has no labels"),
        ({"rte": {"entailment": "not_entailment"}}, r"rte: 'not_entailment' is the word of several labels"),
        (
            {"rte": {"entailment": True}},
            r"label_words\.rte\.entailment' is True: .* string, as in 'true'",
        ),
        ({"rte": {"entailment": " yes"}}, r"label_words\.rte\.entailment.*neither begins nor ends with a space"),
        ({"rte": ["yes", "no"]}, r"label_words\.rte"),
    ],
)
def test_mistakes_are_named_before_any_step(words: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        make_plan(settings_with(words), Path())


def test_words_of_own_tasks_have_their_place_in_the_entry() -> None:
    ticket = {
        "files": {"train": "own_tasks/tickets.csv"}, "text": {"ticket": "text"}, "target": "queue",
        "labels": ["garage", "kitchen"], "description": "Sort the ticket.", "metrics": ["accuracy"],
    }  # fmt: skip
    with pytest.raises(SettingsError, match=r"give the words in own_tasks\.tickets\.label_words"):
        make_plan(settings_with({"tickets": {"garage": "car"}}, own_tasks={"tickets": ticket}), Path())


def test_prepared_data_has_words_and_shows_labels(tmp_path: Path) -> None:
    rows = [{"sentence1": f"{n}", "sentence2": f"{n}", "label": n % 2, "idx": n} for n in range(40)]
    write_repository(tmp_path / "m", "nyu-mll/glue", {"rte": {"train": rows, "validation": rows}})
    for name, words in (("as it is", {}), ("words", {"rte": WORDS})):
        tasks = [get_task("rte", known_tasks({}, Path(), words))]
        prepare(tasks, prepare_settings(tmp_path / "m", words), TOKENIZER, output_dir=tmp_path / name)
    before, after = (PreparedTask.load(tmp_path / name / "rte") for name in ("as it is", "words"))
    assert (after.task.labels, after.task.shown) == (["yes", "no"], {"yes": "entailment", "no": "not_entailment"})
    for split in ("train", "validation", "test"):
        for old, new in zip(before.rows(split).to_pylist(), after.rows(split).to_pylist(), strict=True):
            word = WORDS[old["target"]]
            assert new == {**old, "target": word, "references": [word]}
    counts = [json.loads((tmp_path / name / "statistics.json").read_text())["rte"] for name in ("as it is", "words")]
    assert counts[0]["splits"]["train"]["labels"] == counts[1]["splits"]["train"]["labels"]


def test_a_word_that_the_backbone_cannot_write_is_refused_with_the_entry(tmp_path: Path) -> None:
    rows = [{"sentence1": f"{n}", "sentence2": f"{n}", "label": n % 2, "idx": n} for n in range(40)]
    write_repository(tmp_path / "m", "nyu-mll/glue", {"rte": {"train": rows, "validation": rows}})
    words = {"rte": {"entailment": "\u0e01"}}
    tasks = [get_task("rte", known_tasks({}, Path(), words))]
    kept = str(REPOSITORY / "pemt_core" / "embedded" / "backbone")
    tokenizer = TOKENIZER.model_copy(update={"kind": "hub", "name": kept})
    expected = r'cannot write the label "?entailment"? .*label_words: \{rte: \{entailment: \w+\}\}'
    with pytest.raises(DataError, match=expected):
        prepare(tasks, prepare_settings(tmp_path / "m", words), tokenizer, output_dir=tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_the_list_of_tasks_has_the_words() -> None:
    settings = settings_with({"rte": WORDS})
    known = known_tasks({}, Path(), settings.prepare.label_words)
    assert describe(known["rte"], settings)["labels"] == ["yes", "no"]


TOKENIZER = TokenizerSettings(kind="scratch", name="", revision="", tokenizer="train", vocab_size=400, chat=False)


def prepare_settings(mirror: Path, words: dict[str, dict[str, str]]) -> PrepareSettings:
    return PrepareSettings(
        source=str(mirror), embedded_seed=0, split_seed=42, corpus_rows_per_task=9, plain_texts=0, label_words=words,
        max_rows=MaxRows(train=None, validation=None, test=None),
    )  # fmt: skip


def settings_with(words: Any, **differences: Any) -> Settings:
    values = merged(read_params(REPOSITORY / "params.yaml"), {"prepare": {"label_words": words}, **differences})
    return parse_settings(values, "params.yaml")
