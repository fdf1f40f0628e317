"""What training reads of prepared rows: batches, few-shot samples, token ids, the folder itself."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
import torch
from numpy.typing import NDArray
from tiny import FILLERS, WORDS, World, change_rows, tiny_tokenizer, transfer_settings, write_task

from pemt_core.artifacts.files import read_record, write_record
from pemt_core.data.batches import epoch_batches, length_batches
from pemt_core.data.few_shot import few_shot_rows
from pemt_core.data.prepared import SPLITS, PreparedTask, load_task_description, write_description
from pemt_core.data.tokenized import Ragged, TokenizedSplit, tokenize
from pemt_core.errors import ArtifactError, DataError
from pemt_core.training.task_data import TaskData


@pytest.fixture(scope="module")
def tokenizer(world: World) -> Any:
    return tiny_tokenizer(world.folder / "test_data")


# --- batches

LENGTHS = np.random.default_rng(0).lognormal(3.5, 0.8, size=3001).astype(np.int64) + 2


def padding_share(batches: list[NDArray[np.int64]]) -> float:
    padded = sum(int(LENGTHS[batch].max()) * len(batch) for batch in batches)
    return 1 - int(LENGTHS.sum()) / padded


@pytest.mark.parametrize("batch_size", [1, 7, 32, 5000])
def test_an_epoch_holds_every_row_once(batch_size: int) -> None:
    batches = epoch_batches(LENGTHS, batch_size, seed=1, epoch=0)
    assert sorted(np.concatenate(batches).tolist()) == list(range(3001))
    sizes = sorted(len(batch) for batch in batches)
    assert len(batches) == -(-3001 // batch_size)
    assert set(sizes[1:]) <= {min(batch_size, 3001)}


def test_little_of_a_batch_is_padding() -> None:
    """Compared with batches of a plain shuffle, most of the padding is gone."""
    order = np.random.default_rng(1).permutation(len(LENGTHS))
    plain = [order[start : start + 32] for start in range(0, len(order), 32)]
    assert padding_share(plain) > 0.5
    assert padding_share(epoch_batches(LENGTHS, 32, seed=1, epoch=0)) < 0.1


def test_batches_depend_on_seed_and_epoch_and_are_shuffled() -> None:
    def flat(seed: int, epoch: int) -> list[int]:
        return [int(row) for row in np.concatenate(epoch_batches(LENGTHS, 32, seed, epoch))]

    assert flat(1, 0) == flat(1, 0)
    assert len({tuple(flat(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4
    means = [LENGTHS[batch].mean() for batch in epoch_batches(LENGTHS, 32, 1, 0)]
    assert abs(np.corrcoef(means, range(len(means)))[0, 1]) < 0.3  # long batches are spread over the epoch


def test_generation_takes_the_longest_rows_first() -> None:
    batches = length_batches(LENGTHS, 32)
    ordered = LENGTHS[np.concatenate(batches)]
    assert (np.diff(ordered) <= 0).all()
    assert sorted(np.concatenate(batches).tolist()) == list(range(3001))


# --- few-shot samples

LABELS = ["entailment", "contradiction", "neutral"]
TARGETS = [LABELS[int(label)] for label in np.random.default_rng(0).choice(3, size=250, p=[0.46, 0.48, 0.06])]


def sample(k: int, seed: int, labels: list[str] | None = LABELS, rare: Literal["error", "all"] = "error") -> list[int]:
    return few_shot_rows(TARGETS, labels, k, seed, rare_class=rare, task="cb").tolist()


def test_k_rows_of_every_class() -> None:
    for k in (1, 4, 8):
        rows = sample(k, seed=0)
        assert len(set(rows)) == 3 * k
        assert {label: sum(TARGETS[row] == label for row in rows) for label in LABELS} == dict.fromkeys(LABELS, k)


def test_k_rows_in_total_for_free_text() -> None:
    rows = sample(16, seed=0, labels=None)
    assert len(set(rows)) == 16


def test_a_sample_depends_on_its_seed() -> None:
    assert sample(8, seed=5) == sample(8, seed=5)
    samples = [tuple(sample(8, seed)) for seed in range(20)]
    assert len(set(samples)) == 20
    for label in LABELS:  # every class is resampled, not only one
        assert len({tuple(row for row in rows if TARGETS[row] == label) for rows in samples}) > 15


def test_every_row_is_drawn_equally_often() -> None:
    counts = np.bincount([row for seed in range(2000) for row in sample(5, seed, labels=None)], minlength=len(TARGETS))
    expected = 2000 * 5 / len(TARGETS)
    assert ((counts - expected) ** 2 / expected).sum() < 350  # chi-square with 249 degrees of freedom: p below 1e-4


def test_a_rare_class_is_an_error_or_taken_whole() -> None:
    rare = TARGETS.count("neutral")
    with pytest.raises(DataError) as caught:
        sample(rare + 1, seed=0)
    for part in ("cb", f"k={rare + 1}", "'neutral'", str(rare), "transfer.rare_class", "'all'"):
        assert part in str(caught.value)
    rows = sample(rare + 1, seed=0, rare="all")
    assert [row for row in rows if TARGETS[row] == "neutral"] == [n for n, t in enumerate(TARGETS) if t == "neutral"]
    assert len(rows) == 3 * rare + 2
    assert sample(rare, seed=0) != rows


def test_more_rows_than_there_are_is_an_error() -> None:
    with pytest.raises(DataError, match="k=251 rows of 'all rows'"):
        sample(251, seed=0, labels=None)
    assert sample(251, seed=0, labels=None, rare="all") == list(range(250))


def test_few_shot_training_samples_the_training_split_alone(tmp_path: Path, tokenizer: Any) -> None:
    """k also sets the batch size; no row of validation or test can be drawn."""
    prepared = PreparedTask.load(write_task(tmp_path, "toy", rows={"train": 40}))
    training = transfer_settings().method("pemt").training
    data = TaskData.load(prepared, tokenizer, training, source_length=32)
    rows = data.rows(training, seed=3, k=5, rare_class="error")
    batches = rows.batches(0)
    assert [len(batch) for batch in batches] == [5, 5]
    drawn = sorted(np.concatenate(batches).tolist())
    assert drawn == few_shot_rows(data.targets, ["red", "blue"], 5, 3, rare_class="error", task="toy").tolist()
    sources = prepared.rows("train")["source"].to_pylist()
    for batch in batches:
        ids = rows.collate(batch, 0)["input_ids"]
        texts = tokenizer.batch_decode(ids, skip_special_tokens=True)
        assert texts == [sources[row] for row in batch]
    full = data.rows(training, seed=3, k="full", rare_class="error")
    assert sorted(np.concatenate(full.batches(0)).tolist()) == list(range(40))
    assert len(full.batches(0)[0]) == training.batch_size


# --- token ids


def test_rows_are_cut_with_their_closing_token_and_padded_only_in_a_batch(tokenizer: Any) -> None:
    sources = ["red", "text: blue lamp paper", "river stone " * 30]
    split = tokenize(sources, ["red", "blue", "green"], tokenizer, source_length=12, target_length=3)
    lengths = [len(tokenizer(text)["input_ids"]) for text in sources]
    assert split.sources.lengths.tolist() == [lengths[0], lengths[1], 12]
    assert all(split.sources[row][-1] == tokenizer.eos_token_id for row in range(3))
    assert all(split.targets[row][-1] == tokenizer.eos_token_id for row in range(3))
    assert split.sources[2][:-1].tolist() == tokenizer(sources[2])["input_ids"][:11]
    batch = split.batch(np.array([1, 0]))
    assert batch["input_ids"].shape == (2, lengths[1])
    assert batch["input_ids"][0].tolist() == tokenizer(sources[1])["input_ids"]
    assert batch["input_ids"][1, lengths[0] :].eq(tokenizer.pad_token_id).all()
    assert batch["attention_mask"].sum(1).tolist() == [lengths[1], lengths[0]]
    assert torch.equal(batch["attention_mask"].bool(), batch["input_ids"] != tokenizer.pad_token_id)
    assert batch["labels"][1].tolist() == tokenizer("red")["input_ids"]
    assert batch["labels"].dtype == torch.int64


def test_labels_are_padded_with_the_ignored_index() -> None:
    split = TokenizedSplit(
        Ragged.of([np.array([5, 1]), np.array([6, 7, 1])]), Ragged.of([np.array([8, 9, 1]), np.array([1])]), pad_id=0
    )
    batch = split.batch(np.array([0, 1]))
    assert batch["labels"].tolist() == [[8, 9, 1], [1, -100, -100]]
    assert batch["input_ids"].tolist() == [[5, 1, 0], [6, 7, 1]]
    assert batch["attention_mask"].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_ragged_rows_round_trip() -> None:
    rows = [np.arange(n, dtype=np.int32) for n in (3, 0, 5)]
    ragged = Ragged.of(rows)
    assert len(ragged) == 3
    assert all(np.array_equal(ragged[n], row) for n, row in enumerate(rows))
    assert len(Ragged.of([])) == 0


# --- the prepared folder


def test_the_hash_of_a_prepared_task_covers_what_later_steps_read(tmp_path: Path) -> None:
    first = PreparedTask.load(write_task(tmp_path / "a", "toy"))
    assert PreparedTask.load(write_task(tmp_path / "b", "toy")).content_hash() == first.content_hash()
    other_rows = PreparedTask.load(write_task(tmp_path / "c", "toy", rows={"test": 9}))
    other_words = PreparedTask.load(write_task(tmp_path / "d", "toy", labels=("blue", "red")))
    other_name = PreparedTask.load(write_task(tmp_path / "e", "toys"))
    assert len({p.content_hash() for p in (first, other_rows, other_words, other_name)}) == 4


@pytest.mark.parametrize("split", SPLITS)
def test_a_missing_or_truncated_split_is_named(tmp_path: Path, split: str) -> None:
    folder = write_task(tmp_path, "toy")
    path = folder / f"{split}.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtifactError, match=rf"{split}\.parquet: altered: .*; run the prepare step again"):
        PreparedTask.load(folder).rows(split)
    write_description(folder, load_task_description(folder))
    with pytest.raises(ArtifactError, match=rf"{split}\.parquet: not readable as parquet"):
        PreparedTask.load(folder).rows(split)
    path.unlink()
    with pytest.raises(ArtifactError, match=rf"{split}\.parquet is missing; run the prepare step again"):
        PreparedTask.load(folder)


def with_source(values: pa.Array) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.set_column(table.column_names.index("source"), "source", values)


NOT_UTF_8 = pa.Array.from_buffers(
    pa.string(), 24, [None, pa.py_buffer(np.arange(25, dtype=np.int32)), pa.py_buffer(b"\xff" * 24)]
)
OTHER_ROWS: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    "a column less": (lambda table: table.drop_columns(["references"]), "has the columns .*, expected"),
    "a column more": (lambda table: table.append_column("x", table["id"]), "has the columns .*, expected"),
    "numbers": (with_source(pa.array(range(24))), r"has the columns .* source \(int64\), .*, expected"),
    "a struct": (with_source(pa.array([{"x": 1}] * 24)), "not readable as parquet"),
    "an empty cell": (with_source(pa.array([None] + ["x"] * 23)), "has empty cells"),
    "no UTF-8": (with_source(NOT_UTF_8), "not readable as parquet .*UTF8"),
}


@pytest.mark.parametrize("case", OTHER_ROWS)
def test_other_rows_are_refused_even_with_the_right_hash(tmp_path: Path, case: str) -> None:
    change, message = OTHER_ROWS[case]
    folder = write_task(tmp_path, "toy")
    change_rows(folder, "train", change)
    with pytest.raises(ArtifactError, match=rf"train\.parquet: {message}.*; run the prepare step again$"):
        PreparedTask.load(folder).rows("train")


@pytest.mark.parametrize("change", ["half", "unknown", "missing", "list", "no checksum", "no files"])
def test_an_invalid_description_is_named(tmp_path: Path, change: str) -> None:
    path = write_task(tmp_path, "toy") / "task.json"
    values = read_record(path, "")
    lacks = {"missing": "metrics", "no files": "files"}.get(change)
    write_record(path, {n: v for n, v in values.items() if n != lacks} | ({"colour": 1} if change == "unknown" else {}))
    if change in ("half", "list", "no checksum"):
        text = json.dumps([values] if change == "list" else values)
        path.write_text(text[: len(text) // 2] if change == "half" else text)
    with pytest.raises(ArtifactError, match=r"task\.json: .*run the prepare step again$"):
        PreparedTask.load(path.parent)


def test_a_flipped_bit_anywhere_in_a_prepared_task_is_noticed(tmp_path: Path) -> None:
    folder = write_task(tmp_path, "toy")
    for name in ("task.json", "train.parquet"):
        whole = (folder / name).read_bytes()
        for place in range(0, len(whole), 1 if name == "task.json" else 50):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << place % 8
            (folder / name).write_bytes(damaged)
            with pytest.raises(ArtifactError, match=name):
                PreparedTask.load(folder).rows("train")
        (folder / name).write_bytes(whole)
    assert PreparedTask.load(folder, "toy").rows("train").num_rows == 24


def test_another_task_than_the_one_asked_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"toy: is the data of 'toy', expected that of 'rte'"):
        PreparedTask.load(write_task(tmp_path, "toy"), "rte")


def test_the_toy_words_differ() -> None:
    """The words that the toy task asks for are never among its fillers."""
    assert not set(FILLERS) & set(WORDS[:3])
