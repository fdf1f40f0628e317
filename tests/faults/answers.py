"""The right answer to every input that once failed: the command, its exit code, and what it must say.

The inputs are in `inputs/`; `GENERATED` makes those that are large. A pattern has key words alone, so that a sentence
may be improved.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

PREDICT, ADD = "predict", "add-task"
FULL = ("--differences", "{k: [full]}")  # the files are too small for 32 rows of each class
SCORES = ("--free-text", "--metrics", "pearson")
FITS = 0
REFUSED = 1


@dataclass(frozen=True)
class Answer:
    """What a command does with a file."""

    input: str
    command: str
    code: int
    says: tuple[str, ...] = ()  # patterns, each somewhere in the output
    flags: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "-".join(["_".join(self.flags)[:20], self.input, self.command])


ANSWERS = (
    # Few-shot samples
    Answer("two_per_class.csv", ADD, REFUSED, (r"\b32\b", r"'k\d+'")),
    Answer("classes60.csv", ADD, FITS, (r"60 ", r"--labels"), FULL),
    Answer("case_labels.csv", ADD, REFUSED, (r"\b32\b",)),
    Answer("case_labels.csv", ADD, FITS, (r"case", r"YES"), FULL),
    # Columns
    Answer("pandas_index.csv", PREDICT, FITS),
    Answer("pandas_index.csv", ADD, FITS, (r"(?i)column 1|no name|nameless",), FULL),
    Answer("question.csv", ADD, FITS, (), FULL),
    Answer("twotext_null.jsonl", ADD, FITS, (), FULL),
    Answer("pred_source2.jsonl", PREDICT, REFUSED, (r"line 1", r"'text'")),
    Answer("date_far.parquet", PREDICT, FITS),
    Answer("excel_semicolon.csv", ADD, REFUSED, (r"';'",)),
    Answer("excel_semicolon.csv", PREDICT, REFUSED, (r"';'",)),
    Answer("tabs.csv", PREDICT, REFUSED, (r"\\t|tab",)),
    Answer("trailing_commas.csv", PREDICT, FITS),
    Answer("leading_blank_lines.csv", PREDICT, FITS),
    Answer("repeated_column.csv", ADD, REFUSED, (r"repeated_column\.csv: the column 'text' occurs 2 times",), FULL),
    Answer("line_break_in_header.csv", PREDICT, REFUSED, (r"did you mean 'te\\nxt'",)),
    Answer("zero_width_in_header.csv", ADD, REFUSED, (r"did you mean 'label\\u200b'",), FULL),
    # Labels
    Answer("train_int.parquet", ADD, REFUSED, (r"0\.0|number|spelling",), ("--test", "test_float.parquet", *FULL)),
    Answer("train_words.csv", ADD, REFUSED, (r"maybe",), ("--test", "test_words.csv", *FULL)),
    Answer("int_float.jsonl", ADD, REFUSED, (r"'?0\.0'?|'?1\.0'?", r"number|same"), FULL),
    Answer("nfkc_labels.csv", ADD, REFUSED, (r"m²|COⅡ|CO₂|½", r"label.words"), FULL),
    Answer("nfd_labels.csv", ADD, REFUSED, (r"caf", r"look|same|alike"), FULL),
    Answer("emoji_labels.csv", ADD, REFUSED, (r"label.words",), FULL),
    Answer("brace_labels.csv", ADD, FITS, (), FULL),  # the tokenizer of the embedded backbone has braces; T5's has none
    Answer("keywords.csv", ADD, FITS, (), FULL),
    # Answers and metrics
    Answer("f32.parquet", ADD, FITS, (), (*SCORES, *FULL)),
    Answer("regress_100.csv", ADD, REFUSED, (r"0 to 5",), (*SCORES, *FULL)),
    Answer("regress.csv", ADD, FITS, (r"number", r"pearson"), FULL),
    Answer("dup_id.csv", ADD, REFUSED, (r"dup_id\.csv, line \d+", r"id '1' occurs twice"), ("--id", "id", *FULL)),
    # Encodings and lines
    Answer("surrogate.jsonl", ADD, REFUSED, (r"surrogate\.jsonl, line \d+",), FULL),
    Answer("surrogate.jsonl", PREDICT, REFUSED, (r"surrogate\.jsonl, line \d+",)),
    Answer(
        "surrogate_first.jsonl",
        ADD,
        REFUSED,
        (r"surrogate_first\.jsonl, line 1",),
        ("--target", "queue", "--free-text", *FULL),
    ),
    Answer("gz_inside.csv", PREDICT, REFUSED, (r"(?i)gzip",)),
    Answer("gz_inside.csv", ADD, REFUSED, (r"(?i)gzip",)),
    Answer("utf16.csv", PREDICT, REFUSED, (r"(?i)utf-16",)),
    Answer("cp1252.csv", PREDICT, REFUSED, (r"line 2", r"(?i)cp1252")),
    Answer("bare_cr.csv", ADD, REFUSED, (r"bare_cr\.csv, line \d+", r"(?i)\bCR\b|carriage return|\\r"), FULL),
    Answer("bare_cr.csv", PREDICT, REFUSED, (r"bare_cr\.csv, line \d+", r"(?i)\bCR\b|carriage return|\\r")),
    Answer("cr_only.csv", PREDICT, FITS),
    Answer("cr_only.csv", ADD, FITS, (), FULL),
    Answer("UPPER.CSV", ADD, FITS, (), FULL),
    Answer("UPPER.CSV", PREDICT, FITS),
    # Sizes and damage
    Answer("long_field.csv", ADD, FITS, (), FULL),
    Answer("long_field.csv", PREDICT, FITS),
    Answer("long_line.csv", ADD, REFUSED, (r"longer than|16",), FULL),
    Answer("long_line.jsonl", PREDICT, REFUSED, (r"line 2", r"longer than|16")),
    Answer("bigint.jsonl", PREDICT, REFUSED, (r"bigint\.jsonl, line 3", r"not readable as JSON|digits")),
    Answer("bigint.jsonl", ADD, REFUSED, (r"bigint\.jsonl, line 3", r"not readable as JSON|digits"), FULL),
    Answer("deep.jsonl", ADD, REFUSED, (r"deep\.jsonl, line 2",), FULL),
    Answer("deep.jsonl", PREDICT, REFUSED, (r"deep\.jsonl, line 2",)),
    Answer("corrupt.parquet", ADD, REFUSED, (r"corrupt\.parquet", r"not readable as parquet"), FULL),
    Answer("damaged_pages.parquet", ADD, REFUSED, (r"damaged_pages\.parquet",), ("--target", "queue", *FULL)),
    Answer("spark.parquet", ADD, REFUSED, (r"spark\.parquet", r"folder"), FULL),
    # Flags
    Answer("keywords.csv", ADD, REFUSED, (r"\$\{",), ("--description", "Cost ${x}", *FULL)),
    Answer("question.csv", ADD, REFUSED, (r"name",), ("--name", "null", *FULL)),
    Answer("question.csv", ADD, REFUSED, (r"name",), ("--name", "true", *FULL)),
    Answer("question.csv", ADD, REFUSED, (r"name",), ("--name", "../x", *FULL)),
    Answer(
        "question.csv",
        ADD,
        REFUSED,
        (r"description", r"7,604|tokens"),
        ("--description", "many words " * 691 + "end", *FULL),
    ),
    # Predictions
    Answer("predict_surrogate.jsonl", PREDICT, REFUSED, (r"line 1",), ("--keep", "premise")),
    Answer("predict_list_task.jsonl", PREDICT, REFUSED, (r"line 1",)),
    Answer("surrogate_column.jsonl", PREDICT, REFUSED, (r"udc80",), ("--keep", "\udc80 a")),
    Answer("blank_source.jsonl", PREDICT, REFUSED, (r"line 2", r"no value in column 'source'")),
    Answer("UPPER.CSV", PREDICT, REFUSED, (r"no cell|cell",), ("--cell", "../../sources/sst2")),
    Answer("a_folder.csv", PREDICT, REFUSED, (r"a_folder\.csv", r"folder|directory")),
)


def _csv(end: str = "\n", separator: str = ",", *, label: str = "blue", rows: int = 30) -> str:
    lines = [["text", "label"], *([f"the lamp {n}", ("red", label)[n % 2]] for n in range(rows))]
    return "".join(separator.join(line) + end for line in lines)


def _jsonl(second: str) -> str:
    rows = [json.dumps({"text": f"the lamp {n}", "label": ("red", "blue")[n % 2]}) for n in range(30)]
    return "\n".join([rows[0], second, *rows[1:]]) + "\n"


def _with_long_field() -> str:
    return _csv() + f'"{"a long text " * 17_000}",red\n'


LONG = 16 * 2**20 + 1  # bytes; a longer line is refused
DIGITS = 5_000  # of a number; Python parses 4,300
DEPTH = 100_000

GENERATED: Mapping[str, Callable[[], str | bytes]] = {
    "tabs.csv": lambda: _csv(separator="\t"),
    "trailing_commas.csv": lambda: _csv(end=",\n"),
    "leading_blank_lines.csv": lambda: "\n\n" + _csv(),
    "repeated_column.csv": lambda: _csv().replace("text,label", "text,text,label").replace("the lamp", "the,lamp"),
    "line_break_in_header.csv": lambda: _csv().replace("text", '"te\nxt"', 1),
    "zero_width_in_header.csv": lambda: _csv().replace("label", "label\u200b", 1),
    "blank_source.jsonl": lambda: '{"source": "text: a"}\n{"source": " \\u200b"}\n',
    "train_words.csv": _csv,
    "test_words.csv": lambda: _csv(label="maybe"),
    "utf16.csv": lambda: _csv().encode("utf-16"),
    "cr_only.csv": lambda: _csv(end="\r"),
    "long_field.csv": _with_long_field,
    "long_line.csv": lambda: _csv() + "a" * LONG + ",red\n",
    "long_line.jsonl": lambda: _jsonl('{"text": "' + "a" * LONG + '", "label": "red"}'),
    "bigint.jsonl": lambda: _jsonl('{"text": "a", "label": "red"}\n{"text": ' + "9" * DIGITS + ', "label": "red"}'),
    "deep.jsonl": lambda: _jsonl('{"label": "red", "text": ' + "[" * DEPTH + "]" * DEPTH + "}"),
    "surrogate_column.jsonl": lambda: '{"text": "a", "\\udc80 a": "b"}\n',
}
FOLDERS = ("spark.parquet", "a_folder.csv")


def write_input(name: str, folder: Path) -> Path:
    """The path of an input; it is made in `folder` if it is not kept here."""
    kept = Path(__file__).parent / "inputs" / name
    if kept.exists():
        return kept
    path = folder / name
    if name in FOLDERS:
        path.mkdir(exist_ok=True)
    elif name in GENERATED:
        content = GENERATED[name]()
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path
