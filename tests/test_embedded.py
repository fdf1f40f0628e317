"""The embedded suite: real schemas, preparation of every task, determinism, and what only evaluation holds."""

import hashlib
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
from embedded_rows import SEED, TRAIN, Row, all_rows, splits, texts_in

from pemt_core.data.prepared import PreparedTask
from pemt_core.embedded.language import words_of
from pemt_core.embedded.lexicon import PEOPLE, TOWNS, ways_to_say
from pemt_core.embedded.relations import RELATIONS
from pemt_core.embedded.suite import DATASETS, load_embedded, rows_of
from pemt_core.embedded.text import plain_text
from pemt_core.embedded.world import is_new_pair
from pemt_core.errors import DataError
from pemt_core.preparation import prepare_task
from pemt_core.tasks import SOURCES, TASKS, HubDataset, get_task

# The same form as the real datasets


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_prepared(name: str, tmp_path: Path) -> None:
    task = get_task(name)
    options: dict[str, Any] = {"source": "embedded", "embedded_seed": SEED, "split_seed": 42, "max_rows": {}}
    report = prepare_task(task, **options, output_dir=tmp_path / name)
    prepared = PreparedTask.load(tmp_path / name)
    sizes = {role: prepared.rows(role).num_rows for role in ("train", "validation", "test")}
    assert sizes == {role: split.rows for role, split in report.splits.items()}
    assert sizes["train"] >= (4_000 if name in SOURCES else 1_000)
    assert min(sizes.values()) >= 140
    assert sizes["test"] >= 390
    assert report.dropped == []
    assert report.carved == {}
    assert max(report.duplicates.values()) <= 2
    assert report.revision == ""


@pytest.mark.mirror
@pytest.mark.parametrize("name", TASKS)
def test_schema_of_the_real_dataset(name: str, mirror: Path) -> None:
    dataset = get_task(name).dataset
    files = sorted((mirror / dataset.repo / dataset.config).glob("*.parquet"))
    assert files
    embedded = load_embedded(dataset, SEED)
    for file in files:
        real = datasets.Features.from_arrow_schema(pq.read_schema(file))
        assert all(rows.features == real for rows in embedded.values())
        split = file.name.split("-")[0]
        assert split in embedded or not get_task(name).splits.official_splits.count(split)


@pytest.mark.mirror
def test_words_of_labels_that_are_text(mirror: Path) -> None:
    real = pq.read_table(mirror / "allenai/scitail/snli_format/validation-00000-of-00001.parquet")
    assert {row["gold_label"] for row in all_rows("scitail")} == set(real.column("gold_label").to_pylist())
    assert {row["answer"] for row in all_rows("winogrande")} == {"1", "2"}


def test_an_unknown_dataset_names_the_nearest() -> None:
    with pytest.raises(DataError, match=r"no dataset 'nyu-mll/glue \(qnlii\)': did you mean 'nyu-mll/glue \(qnli\)'"):
        load_embedded(HubDataset("nyu-mll/glue", "qnlii"), SEED)


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.labels])
def test_labels_are_balanced(name: str) -> None:
    task = get_task(name)
    for rows in splits(name).values():
        counts = Counter(task.conversion.pair(row).target for row in rows)
        assert set(counts) == set(task.labels or ())
        tolerance = 0.05 if "answer" in rows[0] else 0.01  # two of three or of four of multirc's candidates are right
        assert all(abs(count / len(rows) - 1 / len(counts)) < tolerance for count in counts.values())


# Determinism


def digest(rows: list[Row]) -> str:
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def test_the_same_seed_gives_the_same_rows_in_another_process() -> None:
    names = ("cb", "multirc", "stsb", "newsqa")
    program = (
        "import hashlib, json, sys\n"
        "from pemt_core.embedded.suite import load_embedded\n"
        "from pemt_core.tasks import get_task\n"
        "for name in sys.argv[2:]:\n"
        "    rows = load_embedded(get_task(name).dataset, int(sys.argv[1]))['validation'].to_list()\n"
        "    print(hashlib.sha256(json.dumps(rows).encode()).hexdigest())\n"
    )
    command = [sys.executable, "-c", program, str(SEED), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent)
    assert done.stdout.split() == [digest(splits(name)["validation"]) for name in names]


def test_seeds_and_splits_are_independent_streams() -> None:
    (cb,) = (each for each in DATASETS if each.dataset == get_task("cb").dataset)
    alone = rows_of(cb, "validation", SEED)
    assert [row["premise"] for row in alone] == [row["premise"] for row in splits("cb")["validation"]]
    assert digest(rows_of(cb, "validation", SEED + 1)) != digest(alone)


# New in evaluation


def literal_parts(template: str) -> set[str]:
    return {part.strip(" ?") for part in re.split(r"\{\w+\}", template)} - {""}


def new_wordings() -> set[str]:
    """Fragments that occur only in templates reserved for evaluation."""
    lists = [
        getattr(relation, kind)
        for relation in RELATIONS
        for kind in ("states", "denies", "asks_value", "asks_subject", "asks_whether")
        if getattr(relation, kind)
    ]
    known = " | ".join(template for templates in lists for template in templates[:-1])
    candidates = {part for templates in lists for part in literal_parts(templates[-1])}
    return {part for part in candidates if part.lower() not in known.lower() and " " in part}


@pytest.mark.parametrize(
    "name", ["mnli", "qnli", "qqp", "squad", "record", "rte", "paws", "boolq", "hotpotqa", "newsqa"]
)
def test_evaluation_has_wordings_that_training_lacks(name: str) -> None:
    wordings = new_wordings()
    assert len(wordings) > 20

    def share(rows: list[Row]) -> float:
        texts = (" ".join(texts_in(row)).lower() for row in rows)
        return sum(any(part.lower() in text for part in wordings) for text in texts) / len(rows)

    assert share(splits(name)[TRAIN]) == 0
    assert min(share(rows) for split, rows in splits(name).items() if split != TRAIN) > 0.2


LIVES = re.compile(r"(?!He |She |Who )\b([A-Z]\w+) (?:lives in|has a home in|resides in) ([A-Z]\w+)")


def homes_told(name: str, training: bool) -> set[tuple[str, str]]:
    rows = [row for split, found in splits(name).items() if (split == TRAIN) == training for row in found]
    return {pair for row in rows for text in texts_in(row) for pair in LIVES.findall(text)}


def test_a_fifth_of_the_pairs_is_new_in_evaluation() -> None:
    names = ("mnli", "rte", "squad", "nq", "hotpotqa", "newsqa", "searchqa", "paws", "mrpc", "record")
    known = set.union(*(homes_told(name, training=True) for name in names))
    tested = set.union(*(homes_told(name, training=False) for name in names))
    assert not any(is_new_pair(SEED, *sorted(pair)) for pair in known)
    pairs = len(PEOPLE) * len(TOWNS)
    assert 0.7 < len(known) / pairs < 0.9
    assert len(tested - known) > 0.1 * pairs


@pytest.mark.parametrize(
    "name", [name for name in TASKS if name != "qqp"]
)  # a question alone joins no subject with a value
def test_every_evaluation_row_has_a_sentence_that_training_lacks(name: str) -> None:
    def sentences(row: Row) -> Iterator[str]:
        for text in texts_in(row):
            yield from re.split(r"(?<=[.?!:;]) | and | \[\w+\] |\n@highlight\n", text)

    known = {sentence for row in splits(name)[TRAIN] for sentence in sentences(row)}
    rows = [row for split, found in splits(name).items() if split != TRAIN for row in found]
    fresh = [any(sentence not in known for sentence in sentences(row)) for row in rows]
    assert sum(fresh) / len(fresh) > 0.92


def test_plain_text_knows_every_word_and_pair() -> None:
    drawn = plain_text(SEED, 24_000)
    assert drawn[:50] == plain_text(SEED, 50)
    texts = [each.text for each in drawn]
    told = {pair for text in texts for pair in LIVES.findall(text)}
    assert len(told) == len(PEOPLE) * len(TOWNS)
    known = {word.lower() for text in texts for word in words_of(text)}
    for name in TASKS:
        known |= {word.lower() for row in splits(name)[TRAIN] for text in texts_in(row) for word in words_of(text)}
    for name in TASKS:
        assert {word.lower() for row in all_rows(name) for text in texts_in(row) for word in words_of(text)} <= known
    assert 400 <= len(known) <= 700


def synonyms_of(word: str) -> tuple[str, ...]:
    """The word and its synonyms; `word` may be any of them."""
    values = {value for relation in RELATIONS for value in (*relation.values, *relation.subjects)}
    return next((ways_to_say(value) for value in values if word in ways_to_say(value)), (word,))


def test_plain_text_hides_words_that_the_rest_implies() -> None:
    """Hidden parts are whole words; a hidden word of a story, or a synonym, occurs elsewhere in its text."""
    drawn = plain_text(SEED, 4_000)
    assert sum(bool(each.hidden) for each in drawn) / len(drawn) > 0.8
    assert not any("{" in each.text or "}" in each.text for each in drawn)
    replies = {"Yes.", "No.", "Perhaps.", "The same.", "Another.", "An answer.", "No answer.", "good", "bad"}
    for each in drawn:
        for start, end in each.hidden:
            part, rest = each.text[start:end], {word.lower() for word in words_of(each.text[:start] + each.text[end:])}
            assert f" {each.text} "[start] == " "
            assert not f" {each.text} "[end + 1].isalnum()
            assert part in replies or any(word.lower() in rest for word in synonyms_of(part)), each.text
