"""Files with rows as users bring them: CSV, JSONL and parquet in many dialects, with some of their values changed."""

import csv
import datetime
import decimal
import gzip
import io
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from soak.mutation import as_json, hostile, mutated_bytes, mutated_value

Rows = list[dict[str, Any]]
WORDS = ("red", "blue", "green", "stone", "river", "cloud", "lamp", "paper")


def rows_of(random: Random, most: int = 30) -> Rows:
    """Draw valid rows."""
    return [
        {"id": number, "text": " ".join(random.choices(WORDS, k=4)), "label": random.choice(("red", "blue"))}
        for number in range(random.choice((0, 1, 2, most)))
    ]


def write_table(folder: Path, random: Random, rows: Rows) -> Path:
    """Write rows to a file of a random format, with a few changes."""
    write = random.choice((_write_csv, _write_jsonl, _write_parquet))
    path = folder / (
        random.choice(("rows", "rows", "rows", "a b", "é", "%20", "-x")) + write.__name__.replace("_write_", ".")
    )
    if random.random() < 0.05:
        path = path.with_suffix(path.suffix.upper())
    write(path, random, rows)
    if random.random() < 0.3:
        path.write_bytes(mutated_bytes(path.read_bytes(), random))
    return path


def _write_csv(path: Path, random: Random, rows: Rows) -> None:
    values: Any = [list(rows[0]) if rows else ["id", "text", "label"], *(list(row.values()) for row in rows)]
    values = mutated_value(values, random) if random.random() < 0.7 else values
    buffer = io.StringIO()
    writer = csv.writer(
        buffer,
        delimiter=random.choice(",,,,;\t|"),
        lineterminator=random.choice(("\n", "\n", "\r\n", "\r", "\n\n")),
        quoting=random.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC)),
    )
    for row in values if isinstance(values, list) else []:
        writer.writerow(row if isinstance(row, list) else [row])
    encoding = random.choice(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "utf-16-le"))
    content = buffer.getvalue().encode(encoding, "replace" if encoding == "cp1252" else "surrogatepass")
    path.write_bytes(gzip.compress(content) if random.random() < 0.03 else content)


def _write_jsonl(path: Path, random: Random, rows: Rows) -> None:
    values: Any = mutated_value(rows, random) if random.random() < 0.7 else rows
    lines = [as_json(row, random).replace(b"\n", b" ") for row in (values if isinstance(values, list) else [values])]
    path.write_bytes(b"\n".join(lines))


def _column(random: Random, values: list[Any]) -> pa.Array:
    """A column of one of parquet's types."""
    number = len(values)
    far = random.choice((0, 1, -(2**31), 2**31 - 1, 2_932_897))
    made: tuple[Any, ...] = (
        lambda: pa.array(values),
        lambda: pa.array(values).dictionary_encode(),
        lambda: pa.array([far] * number, pa.int32()).cast(pa.date32()),
        lambda: pa.array([far * 10**9] * number, pa.int64()).cast(pa.timestamp(random.choice(("s", "ms", "us", "ns")))),
        lambda: pa.array([far * 10**9] * number, pa.int64()).cast(pa.duration("ms")),
        lambda: pa.array([datetime.time(1)] * number),
        lambda: pa.array([0.1, 5.0, float("nan")] * number, pa.float32())[:number],
        lambda: pa.array([0.1, 5.0] * number, pa.float64()).cast(pa.float32())[:number],
        lambda: pa.array([decimal.Decimal("1.50")] * number, pa.decimal128(5, 2)),
        lambda: pa.array([True, False, None] * number)[:number],
        lambda: pa.array([2**63] * number, pa.uint64()),
        lambda: pa.array([b"\xff\xfe", b"a"] * number, pa.binary())[:number],
        lambda: _as_text(pa.array([b"\xff", b"a"] * number, pa.binary())[:number]),
        lambda: pa.array([["a"], []] * number)[:number],
        lambda: pa.array([{"a": 1}] * number),
        lambda: pa.nulls(number),
        lambda: pa.array([str(each) for each in values], pa.large_string()),
    )
    return random.choice(made)()


def _as_text(column: pa.Array) -> pa.Array:
    """Bytes that are not UTF-8, as text: pyarrow checks it only when a value is read."""
    return pa.Array.from_buffers(pa.string(), len(column), column.buffers(), offset=column.offset)


def _write_parquet(path: Path, random: Random, rows: Rows) -> None:
    columns = {name: pa.array([row[name] for row in rows]) for name in ("id", "text", "label")}
    for name in random.sample([*columns, "other", "", "text "], k=random.randint(0, 2)):
        with suppress(pa.ArrowInvalid):  # no parquet file can hold such a column
            column = _column(random, [row["text"] for row in rows])
            pq.write_table(pa.table({name: column}), io.BytesIO())
            columns[name] = column
    table = pa.table(columns)
    if random.random() < 0.05:
        table = table.rename_columns(["text", *table.column_names[1:]])
    compression = random.choice(("snappy", "zstd", "gzip", "none"))
    version = random.choice(("2.6", "1.0"))
    pq.write_table(table, path, compression=compression, version=version, use_dictionary=random.random() < 0.5,
                   row_group_size=random.choice((1_000, 7)))  # fmt: skip


def requests(random: Random, rows: Rows) -> Any:
    """Rows as a client of the served model sends them."""
    value: Any = rows if random.random() < 0.7 else [hostile(random), *rows]
    return mutated_value(value, random)
