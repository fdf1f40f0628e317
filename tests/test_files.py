"""Files of rows: how the reader parses them, and that all its users report the same fault at the same place."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import time
import zipfile
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
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
from pemt_core.prediction.trained import TrainedTarget
from pemt_core.preparation import prepare_task
from pemt_core.schema.validation import validate
from pemt_core.tasks import own_task
from pemt_core.tasks.entry import OwnTask
from pemt_core.tasks.files import check_file, column_names, fixed_columns, read_records, read_rows
from pemt_core.tasks.files.lines import LONGEST_LINE
from pemt_core.tasks.rows import columns_as_text

pytestmark = pytest.mark.usefixtures("datasets_cache")


def write_parquet(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


# What is read

READ: dict[str, tuple[str, bytes, list[tuple[int, str | None, str]]]] = {
    "capitals": ("X.CSV", b"a,b\n1,2\n", [(2, "1", "2")]),
    "a mark, CRLF and blank lines": ("x.csv", b"\xef\xbb\xbf\r\na,b\r\n\r\n1,2\r\n\r\n", [(4, "1", "2")]),
    "two marks, spaces and empty rows": (
        "x.csv",
        b"\xef\xbb\xbf\xef\xbb\xbf \n,\n" + b'"a",b\n1,2\n  \n',
        [(4, "1", "2")],
    ),
    "line breaks": ("x.csv", b'a,b\n\n"1\n""2""",2\n3,4', [(3, '1\n"2"', "2"), (5, "3", "4")]),
    "nothing": ("x.csv", b"b,a,c\n,,x\n", [(2, "", "")]),
    "empty rows": ("x.csv", b'a,b\n,\n1,2\n"",""\n , \n,,,\n3,\n,\n', [(3, "1", "2"), (7, "3", "")]),
    "a long field": ("x.csv", b"a,b\n" + b"x" * 200_000 + b",2\n", [(2, "x" * 200_000, "2")]),
    "carriage returns alone": ("x.csv", b'a,b\r\r"1\r",2\r3,4', [(3, "1\r", "2"), (5, "3", "4")]),
    "carriage returns alone, but for a field": ("x.csv", b'a,b\r"1\n",2\r3,4\r', [(2, "1\n", "2"), (4, "3", "4")]),
    "carriage returns, then line feeds": (
        "x.csv",
        b"a,b\r1,2\r3,4\n5,6\r\n",
        [(2, "1", "2"), (3, "3", "4"), (4, "5", "6")],
    ),
    "a carriage return within the header's quotes": ("x.csv", b'a,b,"c\rd"\n1,2,3\n', [(2, "1", "2")]),
    "carriage returns twice": ("x.csv", b"a,b\r\r\n1,2\r\r\n", [(2, "1", "2")]),
    "an index without a name": ("x.csv", b",a,b\n0,1,2\n", [(2, "1", "2")]),
    "trailing commas": ("x.csv", b"a,b,,\n1,2,,\n3,4,5,6\n", [(2, "1", "2"), (3, "3", "4")]),
    "trailing commas of a row": ("x.csv", b"a,b\n1,2,, \n", [(2, "1", "2")]),
    "marks of joined files": (
        "x.csv",
        b"\xef\xbb\xbfa,b\n1,2\n\xef\xbb\xbf3,4\n5,\xef\xbb\xbf6\n",
        [(2, "1", "2"), (3, "3", "4"), (4, "5", "\ufeff6")],
    ),
    "another column twice": ("x.csv", b"c,a,c,b\n0,1,0,2\n", [(2, "1", "2")]),
    "other separators in fields": ("x.csv", b'"a",b,"c;"\n1;,2\t,\n', [(2, "1;", "2\t")]),
    "carriage returns between objects": (
        "x.jsonl",
        b'{"a": 1, "b": 2}\r{"a": 3, "b": 4}\r',
        [(1, "1", "2"), (2, "3", "4")],
    ),
    "marks of joined objects": (
        "x.jsonl",
        b'\xef\xbb\xbf{"a": 1, "b": 2}\n\xef\xbb\xbf{"a": 3, "b": 4}\n\xef\xbb\xbf',
        [(1, "1", "2"), (2, "3", "4")],
    ),
    "line feeds behind carriage returns": (
        "x.jsonl",
        b'{"a": "\\"", "b": 2}\r{"a": 3, "b": 4}\n',
        [(1, '"', "2"), (2, "3", "4")],
    ),
    "no number": ("x.jsonl", b'{"a": NaN, "b": 1e2}', [(1, None, "100.0")]),
    "objects": (
        "x.Jsonl",
        b'\xef\xbb\xbf\n{"b": true, "a": 1.50}\n \n{"a": null, "b": "x"}',
        [(2, "1.5", "true"), (4, None, "x")],
    ),
}


@pytest.mark.parametrize("case", READ)
def test_rows_have_their_place_and_their_text(tmp_path: Path, case: str) -> None:
    name, content, expected = READ[case]
    (tmp_path / name).write_bytes(content)
    rows = list(read_rows(tmp_path / name, ("a", "b")))
    assert [(number, values["a"], values["b"]) for number, values in rows] == expected
    assert [number for number, _ in read_records(tmp_path / name, ("a", "b"))] == [number for number, _, _ in expected]


def test_an_empty_field_of_the_only_column_is_a_row(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b'a\n1\n""\n\n,,\n2\n')
    assert list(read_rows(tmp_path / "x.csv", ("a",))) == [(2, {"a": "1"}), (3, {"a": ""}), (6, {"a": "2"})]


def test_unused_columns_are_not_read(tmp_path: Path) -> None:
    """Python has no dates after 9999, but other writers do."""
    far = pa.array([None, 2**31 - 1], pa.date32())
    path = write_parquet(tmp_path / "x.PARQUET", {"a": [1.5, 2], "far": far})
    assert list(read_rows(path, ("a",))) == [(1, {"a": "1.5"}), (2, {"a": "2.0"})]
    assert list(read_records(path, ("a",))) == [(1, {"a": 1.5}), (2, {"a": 2.0})]
    with pytest.raises(DataError, match=r"x\.PARQUET, row 2: the value of column 'far' is not readable"):
        list(read_records(path))


def test_values_of_parquet_are_their_shortest_text(tmp_path: Path) -> None:
    tenth = [0.1, None]
    columns = {
        "single": pa.array(tenth, pa.float32()),
        "half": pa.array([np.float16(0.1), None], pa.float16()),
        "double": pa.array(tenth, pa.float64()),
        "decimal": pa.array([Decimal("0.10"), None], pa.decimal128(10, 2)),
        "category": pa.array(["0.1", None]).dictionary_encode(),
        "singles": pa.array(tenth, pa.float32()).dictionary_encode(),
        "large": pa.array(["0.1", None], pa.large_string()),
    }
    path = write_parquet(tmp_path / "x.parquet", columns)
    first, second = (row.values for row in read_rows(path, list(columns)))
    assert first == {**dict.fromkeys(columns, "0.1"), "decimal": "0.10"}
    assert second == dict.fromkeys(columns)


def test_numbers_within_lists_and_objects_of_parquet_are_their_shortest_text(tmp_path: Path) -> None:
    single = pa.float32()
    of_low = pa.struct([("low", single), ("name", pa.string())])
    columns = {
        "vector": pa.array([[0.1, None]], pa.list_(single)),
        "large": pa.array([[0.1, None]], pa.large_list(single)),
        "fixed": pa.array([[0.1, None]], pa.list_(single, 2)),
        "object": pa.array([{"low": 0.1, "name": "a"}], of_low),
        "objects": pa.array([[{"low": 0.1, "name": None}, None]], pa.list_(of_low)),
        "map": pa.array([[("a", 0.1)]], pa.map_(pa.string(), single)),
        "double": pa.array([[0.1]], pa.list_(pa.float64())),
    }
    ((_, values),) = read_records(write_parquet(tmp_path / "x.parquet", columns))
    assert values == {
        **{name: [0.1, None] for name in ("vector", "large", "fixed")},
        "object": {"low": 0.1, "name": "a"},
        "objects": [{"low": 0.1, "name": None}, None],
        "map": [("a", 0.1)],
        "double": [0.1],
    }


def test_an_absent_text_beside_another_is_empty_in_every_format(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(HEADER + b",b,billing\n")
    (tmp_path / "x.jsonl").write_bytes(b'{"subject": null, "body": "b", "queue": "billing"}\n')
    write_parquet(tmp_path / "x.parquet", {"subject": pa.nulls(1), "body": ["b"], "queue": ["billing"]})
    conversion = columns_as_text(ENTRY["text"], "queue", None, None)
    for path in sorted(tmp_path.iterdir()):
        ((_, row),) = read_rows(path, conversion.columns)
        assert conversion.pair(row).source == "subject: message: b"


def test_columns_are_named_in_order(tmp_path: Path) -> None:
    assert column_names(write_parquet(tmp_path / "x.parquet", {"b": [1], "a": [2]})) == ["b", "a"]
    (tmp_path / "nameless.csv").write_bytes(b",b,\n")
    assert column_names(tmp_path / "nameless.csv") == ["", "b", ""]
    for name, content, fixed in (("x.csv", b"b,a\n", ["b", "a"]), ("x.jsonl", b'{"b": 1, "a": 2}\n{"c": 3}\n', None)):
        (tmp_path / name).write_bytes(content)
        assert column_names(tmp_path / name) == ["b", "a", *([] if fixed else ["c"])]
        assert fixed_columns(tmp_path / name) == fixed


# What is refused

ENTRY: dict[str, Any] = {
    "text": {"subject": "subject", "message": "body"},
    "target": "queue",
    "labels": ["billing", "delivery"],
    "description": "Given a ticket, decide which queue it belongs to.",
    "metrics": ["accuracy"],
}


@pytest.fixture(scope="module")
def predictor(world: World) -> Predictor:
    """Files are read before the first answer, so the target needs no model."""
    untrained: Any = None
    conversion = columns_as_text(ENTRY["text"], "queue", None, None)
    target = TrainedTarget(untrained, conversion, untrained, untrained, None, None)
    return Predictor(load_backbone(world.folder / "backbone"), {"tickets": target}, batch_size=1)


def add(path: Path) -> None:
    params = write_params(path.with_name("params.yaml"))
    add_own_task(params, "tickets", {**ENTRY, "files": {"train": path.name}})


def prepare(path: Path) -> None:
    task = own_task("tickets", validate(OwnTask, {**ENTRY, "files": {"train": path.name}}, "tickets"), path.parent)
    prepare_task(task, source="hub", embedded_seed=0, split_seed=42, max_rows={}, output_dir=path.with_name("prepared"))


def zipped(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, HEADER)
    return file.getvalue()


HEADER, GOOD = b"subject,body,queue\n", b"a,b,billing\n"
OBJECT = b'{"subject": "a", "body": "b", "queue": "billing"}\n'
BROKEN: dict[str, tuple[str, bytes, str]] = {
    "empty": ("x.csv", b"", r"x\.csv: no rows"),
    "a header alone": ("x.csv", HEADER, r"x\.csv: no rows"),
    "a column twice": ("x.csv", b"subject,body,queue,body\n", r"x\.csv, line 1: the column 'body' occurs 2 times"),
    "semicolons": (
        "x.csv",
        b"\nsubject;body;queue\n",
        r"line 2: columns are separated by ';', expected ','; .* python -c .*delimiter=';'.* < x\.csv > x-commas\.csv",
    ),
    "quoted semicolons": ("x.csv", b'"subject";"body,";"queue"\n', r"line 1: columns are separated by ';', exp"),
    "tabs": ("x.csv", b"subject\tbody\tqueue\n", r"line 1: columns are separated by '\\t', expected ','"),
    "a field too many": ("x.csv", HEADER + GOOD + b"a,b,c,billing\n", r"line 3: 4 fields, but line 1 names 3 columns"),
    "a field too few": ("x.csv", HEADER + b'"a\nb"\n', r"line 2: 1 field, but line 1 names 3 columns; quote fields"),
    "an open quote": ("x.csv", HEADER + b'\na,"b,billing\n' + GOOD, r"line 3: not readable as CSV .*is a quote unc"),
    "a quote behind a backslash": (
        "x.csv",
        HEADER + b'"say \\"a\\"",b,billing\n',
        r'line 2: not readable as CSV .*is a quote unclosed\? Quotes within quotes are doubled: ""$',
    ),
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
    "utf-16": (
        "x.csv",
        HEADER.decode().encode("utf-16"),
        r"x\.csv: is UTF-16 text, expected UTF-8 text; convert it: iconv -f utf-16 -t utf-8 x\.csv > x-plain\.csv",
    ),
    "utf-16 without a mark": ("x.jsonl", OBJECT.decode().encode("utf-16-be"), r"is UTF-16 text, .* -f utf-16be"),
    "utf-32": ("x.csv", HEADER.decode().encode("utf-32"), r"is UTF-32 text, .* iconv -f utf-32 "),
    "gzip": ("x.csv", gzip.compress(HEADER), r"is compressed by gzip, .*: gunzip < x\.csv > x-plain\.csv"),
    "bzip2": ("x y.jsonl", bz2.compress(OBJECT), r"is compressed by bzip2, .*: bunzip2 < 'x y\.jsonl' > 'x y-plain"),
    "xz": ("x.csv", lzma.compress(HEADER), r"is compressed by xz, .*: unxz < x\.csv"),
    "a workbook": ("x.csv", zipped("xl/workbook.xml"), r"is an Excel workbook, .*; save its sheet as CSV UTF-8"),
    "an archive": ("x.jsonl", zipped("x.jsonl"), r"is a zip archive, .*; unpack it: unzip x\.jsonl"),
    "a tar archive": (
        "x.csv",
        tarfile.TarInfo("a.csv").tobuf() + GOOD,
        r"is a tar archive, expected UTF-8 text; unpack it: tar -xf x\.csv, and name the file in it",
    ),
    "parquet, called CSV": ("x.csv", b"PAR1\x15\x04", r"is parquet, expected UTF-8 text; name it x\.parquet"),
    "gzip, called parquet": ("x.parquet", gzip.compress(b"PAR1"), r"is compressed by gzip, expected parquet; decompr"),
    "a web page": ("x.csv", b"\n<!DOCTYPE html>\n", r"is a web page, expected UTF-8 text; download the file itself"),
    "a pointer": (
        "x.parquet",
        b"version https://git-lfs.github.com/spec/v1\n",
        r"is a Git LFS pointer, .*git lfs pull",
    ),
    "a NUL": ("x.csv", HEADER + b"a,\0,billing\n", r"x\.csv, line 2: byte 3 of the line is NUL"),
    "a bare carriage return": (
        "x.csv",
        HEADER + GOOD + b"a\rb,c,billing\n",
        r"line 3: not readable as CSV \(a carriage return, CR, inside a field\); quote the field, or replace the CR",
    ),
    "a lone surrogate": (
        "x.jsonl",
        OBJECT + rb'{"subject": "a \ud83d", "body": "b", "queue": "billing"}',
        r"x\.jsonl, line 2.*: 'subject' is 'a \\ud83d', expected Unicode text: character 3, '\\ud83d', is half of",
    ),
    "no text": (
        "x.jsonl",
        b'{"subject": null, "body": " ", "queue": "billing"}\n',
        r"line 1.*: there is no value in column 'subject' or 'body'",
    ),
    "no text in CSV": (
        "x.csv",
        HEADER + GOOD + b", ,billing\n",
        r"line 3.*: there is no value in column 'subject' or 'body'",
    ),
    "a list for a text": (
        "x.jsonl",
        b'{"subject": ["a"], "body": "b", "queue": "billing"}',
        r"line 1.*: 'subject' is \['a'\], expected text or a number",
    ),
    "infinity": (
        "x.jsonl",
        b'{"subject": 1e999, "body": "b", "queue": "billing"}',
        r"line 1.*: 'subject' is inf, expected text or a number",
    ),
    "a missing key": (
        "x.jsonl",
        OBJECT + b'{"subject": "a", "bodi": "b", "queue": "billing"}',
        r"line 2.*column 'body': did you mean 'bodi'\?",
    ),
    "a key that later rows have": (
        "x.jsonl",
        b'{"subject": "a", "queue": "billing"}\n\n' + OBJECT,
        r"x\.jsonl, line 1.*column 'body'",
    ),
    "deep JSON": (
        "x.jsonl",
        b'{"a": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
        r"line 1: not readable as JSON \(nested deeper than 100",
    ),
    "less deep JSON": (
        "x.jsonl",
        b'{"a": ' + b"[" * 200 + b"]" * 200 + b"}",
        r"line 1: not readable as JSON \(nested deeper than 100",
    ),
    "broken JSON": ("x.jsonl", OBJECT + b'{"a": 1\n', r"line 2: not readable as JSON \(Expecting .* at character 9\)"),
    "an object over several lines": (
        "x.jsonl",
        b'{\n "subject": "a",\n "body": "b"\n}\n',
        r"line 1: not readable .*; if objects span lines or .*: jq -c '\.' x\.jsonl > x-lines\.jsonl$",
    ),
    "two objects in a line": (
        "x.jsonl",
        OBJECT.strip() + OBJECT,
        r"line 1: not readable .*Extra data.*: jq -c '\.' x\.jso",
    ),
    "null for an object": ("x.jsonl", OBJECT + b"null\n", r"line 2: expected a JSON object per line, found null$"),
    "a long number": (
        "x.jsonl",
        b'{"a": ' + b"1" * 5_000 + b"}\n",
        r"line 1: not readable as JSON \(a number of 5,000 digits",
    ),
    "a JSON array": (
        "x.jsonl",
        b"[\n1\n]\n",
        r"line 1: expected a JSON object per line, found list; .*jq -c '\.\[\]' x\.jsonl",
    ),
    "a key twice": ("x.jsonl", b'{"body": "a", "body": "b"}\n', r"line 1: not .*the key 'body' occurs twice"),
    "no parquet": ("x.parquet", b"subject", r"x\.parquet: not readable as parquet"),
    "a note of Excel": (
        "x.csv",
        b"sep=,\n" + HEADER + GOOD,
        r"line 1: is Excel's note that ',' separates .* delete",
    ),
    "a comma among semicolons": (
        "x.csv",
        b"subject;body, long;queue\n" + b"a;b;billing\n",
        r"x\.csv, line 1: columns are separated by ';', expected ','; .*delimiter=';'",
    ),
    "utf-16 behind other letters": (
        "x.csv",
        "\u65e5,".encode("utf-16-le") + HEADER.decode().encode("utf-16-le"),
        r"line 1: byte 4 of the line is NUL; .*: iconv -f utf-16le -t utf-8 x\.csv > x-plain\.csv",
    ),
    "nothing to be seen": (
        "x.jsonl",
        OBJECT + '{"subject": "\u200b\ufeff", "body": "\u00a0", "queue": "billing"}\n'.encode(),
        r"line 2.*: there is no value in column 'subject' or 'body'",
    ),
    "no format": ("x.xls", HEADER, r"x\.xls: the ending '\.xls' is unknown; choose from: \.csv, \.jsonl, \.parquet"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_all_readers_report_a_broken_file_alike(tmp_path: Path, predictor: Predictor, case: str) -> None:
    name, content, expected = BROKEN[case]
    (tmp_path / name).write_bytes(content)
    users: list[Callable[[Path], Any]] = [add, prepare, lambda path: predict_file(predictor, path, tmp_path / "y.csv")]
    for use in users:
        with pytest.raises(PemtError, match=expected):
            use(tmp_path / name)
    assert not {"prepared", "y.csv"} & {path.name for path in tmp_path.iterdir()}


LACKING: dict[str, tuple[list[bytes], str]] = {
    "the first row": (
        [b'{"a": 1}', b"", b'{"a": 1, "b": 2}'],
        r"line 1: there is no column 'b', which line 3 has; .* every row, where there is no value as \"b\": null$",
    ),
    "a later row": ([b'{"b": 1}', b'{"a": 1}', b'{"b": 1}'], r"line 2: there is no column 'b', which line 1 has; give"),
    "a misspelling": (
        [b'{"bo": 1}', b'{"b": 1, "bo": 1}', b'{"B": 1, "bo": 2}'],
        r"line 1: there is no column 'b', which line 2 has",
    ),
    "another name": (
        [b'{"by": 1}', b'{"b": 1}'],
        r"line 1: there is no column 'b': did you mean 'by'\? Line 2 has 'b'$",
    ),
    "all rows": ([b'{"x": 1}', b'{"a": 2}'], r"line 1: there is no column 'b': choose from: x$"),
    "a broken row below": ([b'{"x": 1}', b"{"], r"line 1: there is no column 'b': choose from: x$"),
}


@pytest.mark.parametrize("case", LACKING)
def test_a_key_that_some_rows_lack_is_named_with_a_row_that_has_it(tmp_path: Path, case: str) -> None:
    lines, expected = LACKING[case]
    (tmp_path / "x.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=rf"x\.jsonl, {expected}"):
        list(read_rows(tmp_path / "x.jsonl", ("b",)))


def test_what_is_no_file_of_this_machine_is_named(tmp_path: Path) -> None:
    (tmp_path / "link.csv").symlink_to("gone.csv")
    with pytest.raises(DataError, match=r"link\.csv: is a link to gone\.csv, which does not exist"):
        check_file(tmp_path / "link.csv")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x.csv").touch()
    with pytest.raises(DataError, match=r"/folder: is a folder; name one file in it: /.*/folder/x\.csv$"):
        check_file(tmp_path / "folder")
    with pytest.raises(DataError, match=r"x\.csv: no such file: there is no folder /.*/foldr$"):
        check_file(tmp_path / "foldr" / "x.csv")
    with pytest.raises(DataError, match=r"there is no folder /.*/~; write out what ~ stands for$"):
        check_file(tmp_path / "~" / "x.csv")
    for path in (Path("https://a.org/x.csv?download=1"), tmp_path / "https://a.org/x.csv?download=1"):
        with pytest.raises(DataError, match=r"^https://a\.org/x\.csv\?download=1: is a URL, .*; download it first"):
            check_file(path)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.y.csv.gz", gzip.compress(GOOD), r"is compressed by gzip, .*: gunzip < x\.y\.csv\.gz > x\.y-plain\.csv$"),
        ("x.xlsx", b"PK\x03\x04" + b"\0" * 26 + b"[Content_Types].xml", "is an Excel workbook, .* as CSV UTF-8$"),
        ("x.pq", b"PAR1\x15\x04", r"is parquet, expected UTF-8 text; name it x\.parquet$"),
        ("x.txt", GOOD, r"the ending '\.txt' is unknown; choose from: \.csv, \.jsonl, \.parquet$"),
    ],
)
def test_a_file_of_an_unknown_ending_is_recognised(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=expected):
        check_file(tmp_path / name)


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.csv").write_bytes(HEADER + GOOD * 40)
    (tmp_path / "cache").touch()
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match=r"x\.csv: its rows cannot be stored in the cache .*/cache/folder-"):
        prepare(tmp_path / "x.csv")


def test_a_repeated_key_among_many_is_found_at_once(tmp_path: Path) -> None:
    """A search of quadratic time would take hours."""
    keys = [*range(300_000), 299_999]
    (tmp_path / "x.jsonl").write_text("{" + ", ".join(f'"{key}": 0' for key in keys) + "}")
    with pytest.raises(DataError, match="the key '299999' occurs twice"):
        list(read_records(tmp_path / "x.jsonl"))


def test_rows_of_thousands_of_columns_take_no_time(tmp_path: Path) -> None:
    columns, path = [f"column {number}" for number in range(4_000)], tmp_path / "wide.jsonl"
    path.write_text(f"{json.dumps(dict.fromkeys(columns, 'x'))}\n" * 40)
    begin = time.process_time()
    assert len([*read_rows(path, columns)]) == 40
    assert time.process_time() - begin < 5
