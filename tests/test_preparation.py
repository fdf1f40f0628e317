"""Preparation: split sizes of the public datasets, disjoint splits, order, bad input, statistics and the corpus."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from mirrors import cb_rows, write_repository
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from pemt_core.artifacts.files import sha256_of_file
from pemt_core.data.corpus import CorpusText
from pemt_core.data.prepared import ROW_SCHEMA, PreparedTask
from pemt_core.errors import ArtifactError, DataError
from pemt_core.preparation import TaskReport, prepare_task, token_lengths, write_corpus
from pemt_core.settings import PrepareSettings, TokenizerSettings
from pemt_core.settings.groups import MaxRows
from pemt_core.steps.prepare import prepare as prepare_step
from pemt_core.tasks import HubDataset, Task, get_task

pytestmark = pytest.mark.usefixtures("datasets_cache")

Prepare = Callable[..., tuple[TaskReport, PreparedTask]]


@pytest.fixture
def prepare(tmp_path: Path) -> Prepare:
    """Prepare a task from a folder into a folder named after it; return the report and the loaded result."""

    def run(
        task: str | Task, source: Path, max_rows: dict[str, int | None] | None = None, split_seed: int = 42
    ) -> tuple[TaskReport, PreparedTask]:
        record = get_task(task) if isinstance(task, str) else task
        folder = tmp_path / "prepared" / record.name
        report = prepare_task(
            record,
            source=str(source),
            embedded_seed=0,
            split_seed=split_seed,
            max_rows=max_rows or {},
            output_dir=folder,
        )
        return report, PreparedTask.load(folder)

    return run


def column(prepared: PreparedTask, split: str, name: str) -> list[Any]:
    return list(prepared.rows(split).column(name).to_pylist())


def sizes(report: TaskReport) -> tuple[int, ...]:
    return tuple(split.rows for split in report.splits.values())


def permuted(length: int, seed: int = 42) -> list[int]:
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed)).tolist()


# Test rows as reported in published work, and the validation rows that remain after halving.
COMPLETE = {
    "cola": (521, 522), "stsb": (750, 750), "mrpc": (204, 204), "rte": (138, 139), "boolq": (1635, 1635),
    "wic": (319, 319), "wsc": (52, 52), "cb": (28, 28), "paws": (8000, 8000), "scitail": (652, 652),
}  # fmt: skip


@pytest.mark.mirror
@pytest.mark.parametrize("name", COMPLETE)
def test_sizes_of_public_datasets(mirror: Path, prepare: Prepare, name: str) -> None:
    report, prepared = prepare(name, mirror)
    assert sizes(report)[1:] == COMPLETE[name]
    assert all(split.rows == prepared.rows(role).num_rows for role, split in report.splits.items())
    ids = [row_id for split in report.splits for row_id in column(prepared, split, "id")]
    assert len(set(ids)) == len(ids) == sum(sizes(report))
    assert prepared.rows("test").schema == ROW_SCHEMA


@pytest.mark.mirror
def test_multirc_is_halved_by_question(mirror: Path, prepare: Prepare) -> None:
    report, prepared = prepare("multirc", mirror)
    assert sizes(report)[0] == 27_243
    assert abs(sizes(report)[2] - 2_424) <= 10
    groups = {split: column(prepared, split, "group") for split in ("validation", "test")}
    assert not set(groups["validation"]) & set(groups["test"])
    assert len(set(groups["validation"]) | set(groups["test"])) == 953
    pairs = set(zip(groups["test"], column(prepared, "test", "cluster"), strict=True))
    assert len(pairs) == len(set(groups["test"])) == len(set(column(prepared, "test", "cluster")))
    for found in groups.values():  # the rows of a question stay together
        changes = sum(before != after for before, after in pairwise(found))
        assert changes == len(set(found)) - 1


@pytest.mark.mirror
def test_squad_holds_whole_passages_out(mirror: Path, prepare: Prepare) -> None:
    report, prepared = prepare("squad", mirror)
    train, validation, test = sizes(report)
    assert train + validation == 11_877
    assert 1_000 <= validation < 1_030
    assert test == 10_570
    passages = {
        split: {source.split(" context: ")[1] for source in column(prepared, split, "source")}
        for split in ("train", "validation")
    }
    assert not passages["train"] & passages["validation"]
    assert column(prepared, "test", "id") != sorted(column(prepared, "test", "id"))
    first = [source.split(" context: ")[1] for source in column(prepared, "test", "source")[:100]]
    assert len(set(first)) > 80  # a prefix spans many passages


@pytest.mark.mirror
@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("squad", lambda raw: Counter(row["context"] for row in raw)),
        ("hotpotqa", lambda raw: Counter(row["context"] for row in raw if row["subset"] == "HotpotQA")),
        ("record", lambda raw: Counter(row["idx"]["passage"] for row in raw)),
        ("rte", lambda raw: Counter(range(139))),
    ],
)
def test_rows_of_a_passage_are_a_cluster(
    mirror: Path, prepare: Prepare, name: str, sizes: Callable[[list[dict[str, Any]]], Counter[Any]]
) -> None:
    """Publishers' rows, counted by passage, against the clusters that the bootstrap draws."""
    record = get_task(name)
    _, prepared = prepare(name, mirror)
    folder = mirror / record.dataset.repo / record.dataset.config
    raw = pq.read_table(next(folder.glob("validation-*.parquet"))).to_pylist()
    found = Counter(column(prepared, "test", "cluster"))
    assert sorted(found.values()) == sorted(sizes(raw).values())


@pytest.mark.mirror
def test_mnli_carves_its_absent_validation(mirror: Path, prepare: Prepare, caplog: pytest.LogCaptureFixture) -> None:
    report, prepared = prepare("mnli", mirror)
    assert sizes(report) == (15_201, 1_000, 9_815)
    assert report.carved == {"validation_mismatched": 1_000}
    assert "split 'validation_mismatched' is missing: 1000 rows of train replace it" in caplog.text
    assert set(column(prepared, "validation", "id")) == {f"train-{n}" for n in permuted(16_201)[:1_000]}
    assert set(column(prepared, "train", "id")) == {f"train-{n}" for n in permuted(16_201)[1_000:]}


@pytest.mark.mirror
def test_halves_follow_the_seeded_permutation(mirror: Path, prepare: Prepare) -> None:
    _, prepared = prepare("rte", mirror)
    order = permuted(277)
    raw = pq.read_table(mirror / "nyu-mll/glue/rte/validation-00000-of-00001.parquet").to_pylist()
    assert column(prepared, "validation", "id") == [f"validation-{n}" for n in order[:138]]
    assert column(prepared, "test", "source") == [
        f"sentence1: {raw[n]['sentence1']} sentence2: {raw[n]['sentence2']}" for n in order[138:]
    ]
    words = ("entailment", "not_entailment")
    assert column(prepared, "test", "target") == [words[raw[n]["label"]] for n in order[138:]]


@pytest.mark.mirror
def test_statistics_of_public_datasets(mirror: Path, prepare: Prepare) -> None:
    cola, _ = prepare("cola", mirror)
    assert cola.duplicates["train/validation"] + cola.duplicates["train/test"] == 16
    assert cola.splits["train"].labels == {"unacceptable": 2528, "acceptable": 6023}
    wsc, _ = prepare("wsc", mirror)
    assert sizes(wsc)[0] == 552
    assert sorted((dropped.split, dropped.row) for dropped in wsc.dropped) == [("train", 234), ("train", 380)]
    assert wsc.as_json()["num_dropped"] == 2
    cb, _ = prepare("cb", mirror)
    assert cb.splits["train"].labels == {"entailment": 115, "contradiction": 119, "neutral": 16}


@pytest.mark.mirror
def test_record_trains_on_one_row_per_answer(mirror: Path, prepare: Prepare) -> None:
    report, prepared = prepare("record", mirror)
    raw = pq.read_table(mirror / "aps/super_glue/record/train-00000-of-00001.parquet").to_pylist()
    held_out = {row_id.removeprefix("train-") for row_id in column(prepared, "validation", "id")}
    answers = sum(
        len(set(row["answers"])) for row in raw if f"{row['idx']['passage']}-{row['idx']['query']}" not in held_out
    )
    assert sizes(report) == (answers, len(held_out), 32)
    for row in prepared.rows("test").to_pylist():
        assert row["target"] == row["references"][0]
        assert row["id"] == row["group"]
    assert set(column(prepared, "train", "target")) <= {answer.strip() for row in raw for answer in row["answers"]}


@pytest.mark.mirror
def test_a_missing_subset_is_named_with_the_existing_ones(mirror: Path, prepare: Prepare) -> None:
    with pytest.raises(DataError, match=r"no rows of subset 'SearchQA'.*HotpotQA, NaturalQuestionsShort"):
        prepare("searchqa", mirror)
    report, _ = prepare("hotpotqa", mirror)
    assert sum(sizes(report)[:2]) == 674
    assert sizes(report)[2] == 485


def cb_folder(folder: Path, **splits: list[dict[str, Any]]) -> Path:
    write_repository(folder, "aps/super_glue", {"cb": splits})
    return folder


def test_large_rule_and_caps(tmp_path: Path, prepare: Prepare) -> None:
    rows = [{"text": f"review {n}", "label": n % 2} for n in range(300)]
    source = write_repository(
        tmp_path / "m", "fancyzhx/yelp_polarity", {"plain_text": {"train": rows, "test": rows[:40]}}
    ).parents[1]
    capped = replace(get_task("yelp"), caps={"train": 100})
    report, prepared = prepare(capped, source, {"train": 200, "test": 7, "validation": None})
    assert sizes(report) == (100, 30, 7)
    order = permuted(300)
    assert column(prepared, "validation", "id") == [f"train-{n}" for n in order[:30]]
    assert column(prepared, "train", "id") == [f"train-{n}" for n in order[30:130]]
    assert column(prepared, "test", "source") == [f"sentence: review {n}" for n in permuted(40)[:7]]
    tighter, _ = prepare(capped, source, {"train": 50})
    assert sizes(tighter) == (50, 30, 40)


def test_absent_official_validation_is_carved_then_halved(tmp_path: Path, prepare: Prepare) -> None:
    report, prepared = prepare("cb", cb_folder(tmp_path / "m", train=cb_rows(200)))
    assert sizes(report) == (180, 10, 10)
    assert report.carved == {"validation": 20}
    assert report.splits["test"].official_split == "train"
    ids = [set(column(prepared, split, "id")) for split in report.splits]
    assert set.union(*ids) == {f"train-{n}" for n in range(200)}
    assert sum(map(len, ids)) == 200


def test_same_input_same_bytes_and_the_seed_moves_the_split(tmp_path: Path, prepare: Prepare) -> None:
    source = cb_folder(tmp_path / "m", train=cb_rows(30), validation=cb_rows(20, start=30))
    first, prepared = prepare("cb", source)
    hashes = (prepared.content_hash(), [split.content_hash for split in first.splits.values()])
    again, prepared = prepare("cb", source)
    assert (prepared.content_hash(), [split.content_hash for split in again.splits.values()]) == hashes
    assert again == first
    rows = prepared.rows("test").to_pylist()
    independent = hashlib.sha256("".join(json.dumps(row, sort_keys=True) for row in rows).encode()).hexdigest()
    assert first.splits["test"].content_hash == independent
    other, _ = prepare("cb", source, split_seed=43)
    assert other.splits["test"].content_hash != first.splits["test"].content_hash


def test_one_changed_text_changes_the_hash(tmp_path: Path, prepare: Prepare) -> None:
    rows = cb_rows(30)
    before, _ = prepare("cb", cb_folder(tmp_path / "a", train=rows, validation=cb_rows(20)))
    rows[3]["premise"] += "!"
    after, _ = prepare("cb", cb_folder(tmp_path / "b", train=rows, validation=cb_rows(20)))
    assert before.splits["train"].content_hash != after.splits["train"].content_hash
    assert before.splits["test"].content_hash == after.splits["test"].content_hash


def test_shared_texts_are_counted(tmp_path: Path, prepare: Prepare) -> None:
    repeated = [{**row, "idx": 100 + row["idx"]} for row in cb_rows(4)]
    source = cb_folder(tmp_path / "m", train=cb_rows(20), validation=[*cb_rows(6, start=30), *repeated])
    report, _ = prepare("cb", source)
    shared = report.duplicates
    assert shared["train/validation"] + shared["train/test"] == 4
    assert shared["validation/test"] == 0


BAD_ROWS = {
    "malformed": ({"premise": None}, r"split 'train', row 4: there is no value in column 'premise'"),
    "unknown label": ({"label": 7}, r"row 4: 'label' is 7, expected a label: 0 \(entailment\).*nearest is 2"),
    "repeated id": ({"idx": 3}, r"the id '3' occurs twice"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_are_named_and_nothing_is_written(tmp_path: Path, prepare: Prepare, case: str) -> None:
    change, message = BAD_ROWS[case]
    rows = cb_rows(9)
    rows[4] |= change
    source = cb_folder(tmp_path / "m", train=rows, validation=cb_rows(4))
    with pytest.raises(DataError, match=rf"aps/super_glue \(cb\).*{message}"):
        prepare("cb", source)
    assert list((tmp_path / "prepared").iterdir()) == []


def test_earlier_data_stays_until_all_tasks_are_prepared(tmp_path: Path) -> None:
    """A bad row in the last task and a task that is no longer listed."""
    tokenizer = TokenizerSettings(kind="scratch", name="", revision="", tokenizer="train", vocab_size=400, chat=False)
    cb = cb_folder(tmp_path / "m", train=cb_rows(9), validation=cb_rows(4))
    rte = [{"sentence1": f"{n}", "sentence2": f"{n}", "label": n % 2, "idx": n} for n in range(9)]
    write_repository(tmp_path / "m", "nyu-mll/glue", {"rte": {"train": rte, "validation": rte}})
    no_bounds = MaxRows(train=None, validation=None, test=None)
    settings = PrepareSettings(
        source=str(cb), embedded_seed=0, split_seed=42, max_rows=no_bounds, corpus_rows_per_task=9, plain_texts=0,
        label_words={},
    )  # fmt: skip

    def run(*tasks: str) -> dict[str, bytes]:
        prepare_step([get_task(task) for task in tasks], settings, tokenizer, output_dir=tmp_path / "data")
        return files(tmp_path / "data")

    before = run("cb", "rte")
    rows = cb_rows(9)
    rows[4] |= {"label": 7}
    cb_folder(tmp_path / "m", train=rows, validation=cb_rows(4))
    with pytest.raises(DataError, match=r"aps/super_glue \(cb\)"):
        run("rte", "cb")
    assert files(tmp_path / "data") == before
    assert {Path(name).parts[0] for name in run("rte")} == {"rte", "corpus.parquet", "statistics.json", "tokenizer"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_missing_column(tmp_path: Path, prepare: Prepare) -> None:
    rows = [{"premises" if key == "premise" else key: value for key, value in row.items()} for row in cb_rows(9)]
    with pytest.raises(DataError, match=r"split 'train': there is no column 'premise': did you mean 'premises'\?"):
        prepare("cb", cb_folder(tmp_path / "m", train=rows, validation=rows))


def test_missing_subset_column(tmp_path: Path, prepare: Prepare) -> None:
    rows = [{"sub_set": "HotpotQA", "qid": "a"}]
    write_repository(tmp_path / "m", "mrqa-workshop/mrqa", {"plain_text": {"train": rows, "validation": rows}})
    with pytest.raises(DataError, match=r"no column 'subset': did you mean 'sub_set'\?"):
        prepare("hotpotqa", tmp_path / "m")


def test_empty_half(tmp_path: Path, prepare: Prepare) -> None:
    with pytest.raises(DataError, match=r"\(cb\): validation, read from split 'validation', is empty: .* 1 rows"):
        prepare("cb", cb_folder(tmp_path / "m", train=cb_rows(9), validation=cb_rows(1)))


def test_empty_official_split(tmp_path: Path, prepare: Prepare) -> None:
    source = cb_folder(tmp_path / "m", train=cb_rows(9), validation=cb_rows(4))
    path = source / "aps/super_glue/cb/train-00000-of-00001.parquet"
    pq.write_table(pq.read_table(path).slice(0, 0), path)
    with pytest.raises(DataError, match=r"\(cb\).*files without rows: train-00000-of-00001.parquet"):
        prepare("cb", source)


def test_a_folder_that_is_not_whole_is_named(tmp_path: Path, prepare: Prepare) -> None:
    source = cb_folder(tmp_path / "m", train=cb_rows(9), validation=cb_rows(4))
    repository = source / "aps/super_glue"
    path = repository / "cb/train-00000-of-00001.parquet"
    whole, first = path.read_bytes(), path.with_name("train-00000-of-00003.parquet")
    for content, message in (
        (whole[:-9], r"cb/train-00000-of-00001\.parquet: not readable as parquet"),
        (b"version https://git-lfs.github.com/spec/v1\n", r"00001\.parquet: is a Git LFS pointer.* git lfs pull"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"\(cb\): not readable from .*{message}"):
            prepare("cb", source)
    path.unlink()
    first.write_bytes(whole)
    with pytest.raises(DataError, match=r"train-00001-of-00003\.parquet and 1 others: no such file, but others of 3"):
        prepare("cb", source)


def test_a_folder_needs_the_files_of_its_own_configuration_alone(tmp_path: Path, prepare: Prepare) -> None:
    """The hub's card lists all of them, and a user gets those that a task reads."""
    source = cb_folder(tmp_path / "m", train=cb_rows(9), validation=cb_rows(4))
    listed = "- config_name: {0}\n  data_files:\n  - split: train\n    path: {0}/train-*\n"
    own = listed.format("cb") + "  - split: validation\n    path: cb/validation-*\n"
    card = source / "aps/super_glue/README.md"
    card.write_text(f"---\nconfigs:\n{listed.format('boolq')}{own}---\n")
    prepare("cb", source)
    shutil.copytree(source / "aps/super_glue/cb", source / "aps/super_glue/boolq")
    in_folder = f"{own.replace('cb/', '')}  data_dir: cb\n"  # where patterns then begin
    card.write_text(f"---\nconfigs:\n{listed.format('boolq')}{in_folder}---\n")
    prepare("cb", source)
    card.write_text(f"---\nconfigs:\n{own}---\n")
    (source / "aps/super_glue/cb/validation-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"no file fits 'cb/validation-\*', which README\.md lists for 'cb'"):
        prepare("cb", source)


def test_what_the_library_refuses_in_a_folder_is_said_in_a_line(tmp_path: Path, prepare: Prepare) -> None:
    """Repositories of the hub have programs, which are never run."""
    source = cb_folder(tmp_path / "m", train=cb_rows(9), validation=cb_rows(4))
    repository = source / "aps/super_glue"
    (repository / "super_glue.py").write_text("raise ZeroDivisionError")
    with pytest.raises(DataError, match=r"\(cb\): not readable from .*scripts are no longer supported"):
        prepare("cb", source)
    (repository / "super_glue.py").unlink()
    (repository / "README.md").write_text("---\nconfigs: [\n---\n")
    with pytest.raises(DataError, match=r"\(cb\): not readable from .*ParserError: [^\n]*$"):
        prepare("cb", source)


def test_only_dropped_rows_leave_a_split_empty(tmp_path: Path, prepare: Prepare) -> None:
    row = {"text": "It ran.", "span1_text": "cat", "span1_index": 0, "span2_text": "It", "span2_index": 0, "label": 0}
    rows = [{**row, "idx": n} for n in range(4)]
    write_repository(tmp_path / "m", "aps/super_glue", {"wsc.fixed": {"train": rows, "validation": rows}})
    with pytest.raises(DataError, match="train, read from split 'train', is empty: all 4 rows were dropped"):
        prepare("wsc", tmp_path / "m")


def test_an_edited_folder_is_read_again(tmp_path: Path, prepare: Prepare) -> None:
    source = cb_folder(tmp_path / "m", train=cb_rows(9), validation=cb_rows(4))
    assert sizes(prepare("cb", source)[0]) == (9, 2, 2)
    cb_folder(tmp_path / "m", train=cb_rows(8), validation=cb_rows(4))
    assert sizes(prepare("cb", source)[0]) == (8, 2, 2)


def test_missing_train_split(tmp_path: Path, prepare: Prepare) -> None:
    with pytest.raises(DataError, match=r"no split 'train' in .*; it has validation"):
        prepare("cb", cb_folder(tmp_path / "m", validation=cb_rows(4)))


def test_missing_dataset_configuration_and_folder(tmp_path: Path, prepare: Prepare) -> None:
    source = cb_folder(tmp_path / "m", train=cb_rows(9), validation=cb_rows(4))
    elsewhere = replace(get_task("cb"), dataset=HubDataset("aps/superglue", "cb"))
    with pytest.raises(DataError, match=r"m has no dataset 'aps/superglue'; did you mean 'aps/super_glue'\?"):
        prepare(elsewhere, source)
    with pytest.raises(DataError, match=r"super_glue has no configuration 'rte'"):
        prepare(replace(get_task("cb"), dataset=HubDataset("aps/super_glue", "rte")), source)
    with pytest.raises(DataError, match=r"'.*nowhere' is not a folder; expected 'hub', 'embedded' or"):
        prepare("cb", tmp_path / "nowhere")


def test_unreadable_file(tmp_path: Path, prepare: Prepare) -> None:
    source = cb_folder(tmp_path / "m", train=cb_rows(9), validation=cb_rows(4))
    (source / "aps/super_glue/cb/train-00000-of-00001.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"aps/super_glue \(cb\): not readable"):
        prepare("cb", source)


def test_corpus(tmp_path: Path, prepare: Prepare) -> None:
    source = cb_folder(tmp_path / "m", train=[*cb_rows(12), *cb_rows(3, start=12)], validation=cb_rows(4))
    sentences = [{"sentence": f"sentence {n % 5}", "label": 0, "idx": n} for n in range(20)]
    write_repository(source, "nyu-mll/glue", {"cola": {"train": sentences, "validation": sentences}})
    folders = [prepare(name, source)[1].directory for name in ("cola", "cb")]
    path = tmp_path / "corpus.parquet"
    assert write_corpus(folders, rows_per_task=7, path=path) == 12
    texts = pq.read_table(path).column("text").to_pylist()
    assert texts[:7] == column(PreparedTask.load(folders[1]), "train", "source")[:7]
    assert sorted(texts[7:]) == [f"sentence: sentence {n}" for n in range(5)]
    plain = [CorpusText("Who likes tea? Anna.", ((15, 19),)), CorpusText("Anna likes tea.")]
    assert write_corpus(folders, rows_per_task=7, path=path, plain_text=plain) == 14
    assert pq.read_table(path).column("hidden").to_pylist()[-3:] == [[], [{"start": 15, "end": 19}], []]
    write_corpus(folders, rows_per_task=7, path=path)
    digest = sha256_of_file(path)
    write_corpus(reversed(folders), rows_per_task=7, path=path)
    assert sha256_of_file(path) == digest
    (folders[0] / "train.parquet").write_bytes(b"cut")
    with pytest.raises(ArtifactError, match="not readable as parquet"):
        write_corpus(folders, rows_per_task=7, path=path)
    assert sha256_of_file(path) == digest


def word_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer with one token per word."""
    tokenizer = Tokenizer(models.WordLevel({"?": 0, "</s>": 1}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?", eos_token="</s>")


def test_token_lengths_against_numpy(tmp_path: Path, prepare: Prepare) -> None:
    rows = [{**row, "premise": "word " * (n % 13 + 1)} for n, row in enumerate(cb_rows(60))]
    _, prepared = prepare("cb", cb_folder(tmp_path / "m", train=rows, validation=cb_rows(8)))
    found = token_lengths([prepared.directory], word_tokenizer(), batch_size=7)["cb"]["train"]
    lengths = np.sort([len(source.split()) for source in column(prepared, "train", "source")])
    ranks = {"p50": 30, "p95": 57, "p99": 60, "max": 60}  # ceil(q * 60)
    assert found["source"] == {name: lengths[rank - 1] for name, rank in ranks.items()}
    assert found["target"] == dict.fromkeys(ranks, 2)  # a word, and the EOS with which every answer ends


def test_prepared_parquet_is_written_in_batches(tmp_path: Path, prepare: Prepare) -> None:
    report, prepared = prepare("cb", cb_folder(tmp_path / "m", train=cb_rows(2_500), validation=cb_rows(4)))
    file = pq.ParquetFile(prepared.directory / "train.parquet")
    assert [file.metadata.row_group(n).num_rows for n in range(file.num_row_groups)] == [1000, 1000, 500]
    assert file.schema_arrow == ROW_SCHEMA
    assert isinstance(prepared.rows("train"), pa.Table)
    assert json.loads(json.dumps(report.as_json())) == report.as_json()
