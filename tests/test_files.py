"""Files of rows: how the reader parses them, and that all its users report the same fault at the same place."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny import World
from workspace import write_params

from pemt_core.backbone.store import load_backbone
from pemt_core.errors import DataError, PemtError
from pemt_core.new_task import add_own_task
from pemt_core.prediction.files import predict_file
from pemt_core.prediction.predictor import Predictor
from pemt_core.preparation import prepare_task
from pemt_core.schema.validation import validate
from pemt_core.tasks import own_task
from pemt_core.tasks.entry import OwnTask
from pemt_core.tasks.files import column_names, fixed_columns, read_records, read_rows
from pemt_core.tasks.files.lines import LONGEST_LINE

pytestmark = pytest.mark.usefixtures("datasets_cache")


def write_parquet(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


# What is read

READ: dict[str, tuple[str, bytes, list[tuple[int, str | None, str]]]] = {
    "capitals": ("X.CSV", b"a,b\n1,2\n", [(2, "1", "2")]),
    "a mark, CRLF and blank lines": ("x.csv", b"\xef\xbb\xbf\r\na,b\r\n\r\n1,2\r\n\r\n", [(4, "1", "2")]),
    "line breaks": ("x.csv", b'a,b\n\n"1\n""2""",2\n3,4', [(3, '1\n"2"', "2"), (5, "3", "4")]),
    "nothing": ("x.csv", b"b,a,c\n,,\n", [(2, "", "")]),
    "a long field": ("x.csv", b"a,b\n" + b"x" * 200_000 + b",2\n", [(2, "x" * 200_000, "2")]),
    "objects": (
        "x.Jsonl",
        b'\xef\xbb\xbf\n{"b": true, "a": 1.50}\n \n{"a": null, "b": "x"}',
        [(2, "1.5", "true"), (4, None, "x")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
def test_rows_have_their_place_and_their_text(tmp_path: Path, case: str) -> None:
    name, content, expected = READ[case]
    (tmp_path / name).write_bytes(content)
    rows = list(read_rows(tmp_path / name, ("a", "b")))
    assert [(number, values["a"], values["b"]) for number, values in rows] == expected
    assert [number for number, _ in read_records(tmp_path / name)] == [number for number, _, _ in expected]


def test_unused_columns_are_not_read(tmp_path: Path) -> None:
    """Python has no dates after 9999, but other writers do."""
    path = write_parquet(tmp_path / "x.PARQUET", {"a": [1.5, 2], "far": pa.array([2**31 - 1] * 2, pa.date32())})
    assert list(read_rows(path, ("a",))) == [(1, {"a": "1.5"}), (2, {"a": "2.0"})]
    assert list(read_records(path, ("a",))) == [(1, {"a": 1.5}), (2, {"a": 2.0})]
    with pytest.raises(DataError, match=r"x\.PARQUET: not readable as parquet \(days=2147483647; must"):
        list(read_records(path))


def test_columns_are_named_in_order(tmp_path: Path) -> None:
    assert column_names(write_parquet(tmp_path / "x.parquet", {"b": [1], "a": [2]})) == ["b", "a"]
    for name, content, fixed in (("x.csv", b"b,a\n", ["b", "a"]), ("x.jsonl", b'{"b": 1, "a": 2}\n{"c": 3}\n', None)):
        (tmp_path / name).write_bytes(content)
        assert column_names(tmp_path / name) == ["b", "a"]
        assert fixed_columns(tmp_path / name) == fixed


# What is refused

ENTRY = {
    "text": {"subject": "subject", "message": "body"},
    "target": "queue",
    "labels": ["billing", "delivery"],
    "description": "Given a ticket, decide which queue it belongs to.",
    "metrics": ["accuracy"],
}


@pytest.fixture(scope="module")
def predictor(world: World) -> Predictor:
    """Files are read before the first answer, so no target is needed."""
    return Predictor(load_backbone(world.folder / "backbone"), {}, batch_size=1)


def add(path: Path) -> None:
    params = write_params(path.with_name("params.yaml"))
    add_own_task(params, "tickets", {**ENTRY, "files": {"train": path.name}})


def prepare(path: Path) -> None:
    task = own_task("tickets", validate(OwnTask, {**ENTRY, "files": {"train": path.name}}, "tickets"), path.parent)
    prepare_task(task, source="hub", embedded_seed=0, split_seed=42, max_rows={}, output_dir=path.with_name("prepared"))


HEADER, GOOD = b"subject,body,queue\n", b"a,b,billing\n"
OBJECT = b'{"subject": "a", "body": "b", "queue": "billing"}\n'
BROKEN: dict[str, tuple[str, bytes, str]] = {
    "empty": ("x.csv", b"", r"x\.csv: no rows"),
    "a header alone": ("x.csv", HEADER, r"x\.csv: no rows"),
    "a column twice": ("x.csv", b"subject,body,queue,body\n", r"x\.csv, line 1: the column 'body' occurs 2 times"),
    "semicolons": ("x.csv", b"\nsubject;body;queue\n", r"line 2: columns are separated by ';', expected ','"),
    "tabs": ("x.csv", b"subject\tbody\tqueue\n", r"line 1: columns are separated by '\\t', expected ','"),
    "a field too many": ("x.csv", HEADER + GOOD + b"a,b,c,billing\n", r"line 3: 4 fields, but line 1 names 3 columns"),
    "a field too few": ("x.csv", HEADER + b'"a\nb"\n', r"line 2: 1 field, but line 1 names 3 columns; quote fields"),
    "an open quote": ("x.csv", HEADER + b'\na,"b,billing\n' + GOOD, r"line 3: not readable as CSV .*is a quote unc"),
    "an open quote, a long file": (
        "x.csv",
        HEADER + b'a,"' + (b"x" * 2**20 + b"\n") * 17,
        r"line 2: not readable as CSV \(field larger than field limit \(16777216\)\); is a quote unclosed",
    ),
    "no line ends": ("x.csv", HEADER + b"x" * (LONGEST_LINE + 1), r"x\.csv, line 2: longer than 16,777,216 bytes"),
    "latin-1": (
        "x.csv",
        HEADER + b"a,\xe9,billing\n",
        r"x\.csv, line 2: byte 3 of the line, 0xe9, is not UTF-8; .* iconv -f cp1252 -t utf-8 x\.csv",
    ),
    "behind a mark": ("x.jsonl", b"\xef\xbb\xbf{\xff}\n", r"line 1: byte 2 of the line, 0xff, is not UTF-8"),
    "utf-16": ("x.csv", HEADER.decode().encode("utf-16"), r"line 1: byte 1 of the line, 0xff, is not UTF-8"),
    "broken JSON": ("x.jsonl", OBJECT + b'{"a": 1\n', r"line 2: not readable as JSON \(Expecting .* at character 9\)"),
    "a long number": ("x.jsonl", b'{"a": ' + b"1" * 5_000 + b"}\n", r"line 1: not readable as JSON \(Exceeds"),
    "a JSON array": ("x.jsonl", b"[1]\n", r"line 1: expected a JSON object per line, found list"),
    "a key twice": ("x.jsonl", b'{"body": "a", "body": "b"}\n', r"line 1: not .*the key 'body' occurs twice"),
    "no parquet": ("x.parquet", b"subject", r"x\.parquet: not readable as parquet"),
    "no format": ("x.xls", HEADER, r"x\.xls: the ending '\.xls' is unknown; choose from: \.csv, \.jsonl, \.parquet"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_all_readers_report_a_broken_file_alike(tmp_path: Path, predictor: Predictor, case: str) -> None:
    name, content, expected = BROKEN[case]
    (tmp_path / name).write_bytes(content)
    users: list[Callable[[Path], Any]] = [add, prepare, lambda path: predict_file(predictor, path, tmp_path / "y.csv")]
    for use in users:
        with pytest.raises(PemtError, match=expected):
            use(tmp_path / name)
    assert not {"prepared", "y.csv"} & {path.name for path in tmp_path.iterdir()}
