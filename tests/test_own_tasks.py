"""User's tasks: entries of params.yaml, their files, rejected input, and adding an entry to params.yaml."""

import csv
import datetime
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pandas._libs.parsers import STR_NA_VALUES
from workspace import REPOSITORY, TINY, Workspace, new_workspace

from components import add_task
from pemt_core.artifacts.files import read_json
from pemt_core.data.prepared import PreparedTask
from pemt_core.doctor import Surroundings, project
from pemt_core.errors import DataError, PemtError, SettingsError
from pemt_core.labels import LabelError
from pemt_core.new_task import add_own_task, propose_entry
from pemt_core.preparation import TaskReport, prepare_task
from pemt_core.schema.validation import merged, validate
from pemt_core.settings import Settings, load_settings, parse_settings, read_params
from pemt_core.settings.steps import Prepare, as_text, read_step
from pemt_core.steps.plan import make_plan
from pemt_core.steps.prepare import prepare as prepare_all
from pemt_core.tasks import TASKS, Task, get_task, known_tasks, own_task
from pemt_core.tasks.entry import OwnTask
from pipelines.command import unfit_for_a_cluster
from pipelines.local import LocalRunError, run_locally

pytestmark = pytest.mark.usefixtures("datasets_cache")

VALUES = read_params(REPOSITORY / "params.yaml")
EXAMPLE = {"train": "own_tasks/tickets.csv", "test": "own_tasks/tickets_test.csv"}
ENTRY: dict[str, Any] = {
    "files": {"train": "tickets.csv"},
    "text": {"subject": "subject", "message": "body"},
    "target": "queue",
    "labels": ["billing", "delivery"],
    "description": "Given a ticket, decide which queue it belongs to.",
    "metrics": ["accuracy", "macro_f1"],
}


def ticket(number: int) -> dict[str, str]:
    return {
        "subject": f"S{number}",
        "body": f'line,\n"{number}"',
        "queue": ENTRY["labels"][number % 2],
        "key": f"k{number}",
    }


def task_of(folder: Path = Path(), name: str = "tickets", **changes: Any) -> Task:
    return own_task(name, validate(OwnTask, {**ENTRY, **changes}, f"own_tasks.{name}"), folder)


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def prepare(task: Task, folder: Path) -> tuple[TaskReport, PreparedTask]:
    target = folder / "prepared" / task.name
    report = prepare_task(task, source="hub", embedded_seed=0, split_seed=42, max_rows={}, output_dir=target)
    return report, PreparedTask.load(target)


# Entries as task records


def test_an_entry_becomes_a_task() -> None:
    task = task_of(Path("somewhere"), id="key")
    row = {"subject": "Late", "body": " It is late. ", "queue": "delivery", "key": "7"}
    pair = task.conversion.pair(row)
    assert (pair.source, pair.target, pair.key) == ("subject: Late message: It is late.", "delivery", "7")
    assert task.conversion.inputs == ("subject", "body")
    assert task.conversion.source({"subject": "", "body": "It is late."}) == "subject: message: It is late."
    assert (task.suite, task.labels, task.columns) == (
        "Own",
        ("billing", "delivery"),
        ("subject", "body", "queue", "key"),
    )
    assert task.generation_length == len("delivery") + 2  # at most one token per letter
    assert task.dataset.path("train") == Path("somewhere/tickets.csv")
    free = task_of(labels=None, metrics=["qa_f1"])
    assert (free.labels, free.generation_length) == (None, TASKS["squad"].generation_length)
    assert free.conversion.pair(row | {"queue": "any words"}).target == "any words"


@pytest.mark.parametrize(
    ("others", "rule", "sizes"),
    [
        ([], "large", (81, 9, 10)),
        (["test"], "large", (90, 10, 40)),
        (["validation"], "small", (100, 20, 20)),
        (["validation", "test"], "own", (100, 40, 40)),
    ],
)
def test_the_given_files_determine_the_split_rule(
    tmp_path: Path, others: list[str], rule: str, sizes: tuple[int, ...]
) -> None:
    files = {split: f"{split}.csv" for split in ("train", *others)}
    for place, name in enumerate(files.values()):
        rows = [ticket(1_000 * place + n) for n in range(40 if place else 100)]
        write_csv(tmp_path / name, rows)
    task = task_of(tmp_path, files=files)
    report, _ = prepare(task, tmp_path)
    assert task.splits.name == rule
    assert tuple(split.rows for split in report.splits.values()) == sizes
    assert report.carved == ({} if others else {"test": 10})
    assert set(report.duplicates.values()) == {0}


def test_formats_do_not_matter(tmp_path: Path) -> None:
    """The same rows give the same bytes; numbers and flags become the text that a CSV file would contain."""
    rows = [ticket(n) for n in range(40)]
    values = [{**row, "key": n, "subject": 1.5, "queue": bool(n % 2), "unused": [n]} for n, row in enumerate(rows)]
    as_text = [
        {**row, "key": str(n), "subject": "1.5", "queue": ("false", "true")[n % 2]} for n, row in enumerate(rows)
    ]
    write_csv(tmp_path / "a.csv", as_text)
    write_jsonl(tmp_path / "b.jsonl", values)
    write_parquet(tmp_path / "c.parquet", values)
    hashes = set()
    for name in ("a.csv", "b.jsonl", "c.parquet"):
        report, prepared = prepare(
            task_of(tmp_path, files={"train": name}, labels=["false", "true"], id="key"), tmp_path
        )
        hashes.add(prepared.content_hash())
        assert prepared.rows("train").column("source")[0].as_py().startswith('subject: 1.5 message: line,\n"')
        assert report.dataset == name
        assert report.revision.startswith("sha256:")
    assert len(hashes) == 1


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    write_csv(tmp_path / "tickets.csv", [ticket(n) for n in range(20)])
    before, _ = prepare(task_of(tmp_path), tmp_path)
    write_csv(tmp_path / "tickets.csv", [ticket(n) for n in range(30)])
    after, _ = prepare(task_of(tmp_path), tmp_path)
    assert (before.splits["train"].rows, after.splits["train"].rows) == (17, 25)
    assert before.revision != after.revision


@pytest.fixture
def params(tmp_path: Path) -> Path:
    """Copy the project's params.yaml, its recipes, the files of the example and the kept backbone."""
    (tmp_path / "own_tasks").mkdir()
    for name in ("recipes", "pemt_core"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    for name in ("params.yaml", *EXAMPLE.values()):
        (tmp_path / name).write_bytes((REPOSITORY / name).read_bytes())
    return tmp_path / "params.yaml"


# Rejected input

HEADER = b"subject,body,queue\n"
GOOD = b'"a\n",b,billing\n'
BAD_ROWS: dict[str, tuple[str, bytes, str]] = {
    "no such column": ("x.csv", b"subject,bodi,queue\n" + GOOD, r"line 1: there is no column 'body': did .* 'bodi'"),
    "no key": ("x.jsonl", b'\n{"subject": "a", "queue": "b"}\n', r"line 2: there is no column 'body'"),
    "no row": ("x.csv", HEADER, r"x\.csv: no rows; expected rows with subject, body, queue"),
    "unknown label": ("x.csv", HEADER + GOOD + b"a,b,bilng\n", r"line 4: 'queue' is 'bilng', .*did you mean 'billing'"),
    "no answer": ("x.csv", HEADER + b"a,b, \n", r"line 2: 'queue' is ' ', expected text that is not empty"),
    "no text": ("x.csv", HEADER + b" ,,billing\n", r"line 2: there is no value in column 'subject' or 'body'"),
    "a list": ("x.jsonl", b'{"subject": [1], "body": "b", "queue": "billing"}\n', r"line 1: 'subject' is \[1\]"),
    "null": ("x.jsonl", b'\n{"subject": "a", "body": "b", "queue": null}\n', r"line 2: there is no value in .*'queue'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_are_named_with_file_and_line(params: Path, case: str) -> None:
    """`add-task` and `prepare` report them alike; tests/test_files.py covers errors that predictions share."""
    name, content, expected = BAD_ROWS[case]
    folder, before = params.parent, params.read_text()
    (folder / name).write_bytes(content)
    write_csv(folder / "good.csv", [ticket(n) for n in range(40)])
    files = {"train": name, "validation": "good.csv", "test": "good.csv"}
    for use in (
        lambda: prepare(task_of(folder, files=files), folder),
        lambda: add_own_task(params, "tickets", {**ENTRY, "files": files}),
    ):
        with pytest.raises(DataError, match=expected) as caught:
            use()
        assert str(caught.value).startswith(str(folder / name))
    assert not (folder / "prepared" / "tickets").exists()
    assert params.read_text() == before


@pytest.mark.parametrize("name", ["x.CSV", "x.jsonl", "x.parquet"])
def test_preparation_names_the_line_of_a_bad_row(tmp_path: Path, name: str) -> None:
    """Rows are permuted before conversion, and the second run reads them from a cache."""
    rows = [{**ticket(n), "queue": "bilng" if n == 30 else "billing"} for n in range(40)]
    write = {".CSV": write_csv, ".jsonl": write_jsonl, ".parquet": write_parquet}[Path(name).suffix]
    write(tmp_path / name, rows)
    number = {".CSV": "line 62", ".jsonl": "line 31", ".parquet": "row 31"}[Path(name).suffix]  # two lines per ticket
    for _ in range(2):
        with pytest.raises(DataError, match=rf"{re.escape(name)}, {number}: 'queue' is 'bilng'"):
            prepare(task_of(tmp_path, files={"train": name}), tmp_path)


def test_other_bad_files(tmp_path: Path) -> None:
    write_csv(tmp_path / "tickets.csv", [ticket(n % 7) for n in range(40)])
    with pytest.raises(DataError, match=r"ticket\.csv: no such file; did you mean 'tickets\.csv'\?"):
        prepare(task_of(tmp_path, files={"train": "ticket.csv"}), tmp_path)
    with pytest.raises(DataError, match=r"tickets\.csv, line \d+: the id 'k\d' occurs twice"):
        prepare(task_of(tmp_path, id="key"), tmp_path)
    write_parquet(tmp_path / "x.parquet", [ticket(0)])
    with pytest.raises(DataError, match=r"x\.parquet: there is no column 'boddy': did you mean 'body'"):
        prepare(task_of(tmp_path, files={"train": "x.parquet"}, text={"m": "boddy"}), tmp_path)
    write_csv(tmp_path / "few.csv", [ticket(n) for n in range(9)])
    with pytest.raises(DataError, match=r"few\.csv: validation, .*, is empty: the split's 9 rows are"):
        prepare(task_of(tmp_path, files={"train": "few.csv"}), tmp_path)


BAD_ENTRIES: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"colums": 1}, "unknown key 'own_tasks.tickets.colums'; choose from: chance, description, files"),
    "unknown split": (
        {"files": {"train": "x.csv", "tset": "y.csv"}},
        "unknown key 'own_tasks.tickets.files.tset'; did you",
    ),
    "no training file": ({"files": {"test": "x.csv"}}, "key 'own_tasks.tickets.files.train' is missing"),
    "ending": (
        {"files": {"train": "x.xlsx"}},
        "own_tasks.tickets.files.train is x.xlsx: the ending '.xlsx' is unknown; choose from: .csv",
    ),
    "no text": ({"text": {}}, "own_tasks.tickets.text: expected at least 1 entry, found none"),
    "the answer in the text": ({"target": "body"}, "own_tasks.tickets: target is 'body', also a column of text"),
    "one label": ({"labels": ["a"]}, "own_tasks.tickets.labels' is ['a']: expected at least 2 entries, found 1"),
    "a number as a label": (
        {"labels": [1, 2]},
        "own_tasks.tickets.labels.0' is 1: Input should be a valid string, as in '1'",
    ),
    "a label twice": ({"labels": ["a", "b", "a"]}, "labels lists ['a'] more than once"),
    "blanks": ({"labels": ["a", "b "]}, "expected text that neither begins nor ends with a space"),
    "no description": ({"description": ""}, "own_tasks.tickets.description' is '': expected text that is not empty"),
    "an invisible description": ({"description": "\u200b"}, "tickets.description' is '\\u200b': expected a sentence"),
    "a reference": (
        {"labels": ["a", "${b}"]},
        "labels.1' is '${b}': expected text without ${, which DVC would replace",
    ),
    "a reference in a column": ({"target": "${x}"}, "expected text without ${"),
    "a reference in a name": ({"text": {"a ${x}": "body"}}, "expected text without ${"),
    "a reference in a file": ({"files": {"train": "${x}.csv"}}, "expected text without ${"),
    "a long description": (
        {"description": "word " * 1_520 + "x"},
        "expected a sentence of at most 1,000 characters, found 7,601",
    ),
    "words for no label": (
        {"label_words": {"bills": "a"}},
        "tickets: label_words has 'bills', which is not one of labels",
    ),
    "a word for nothing": ({"label_words": {"": "x"}}, "tickets.label_words.'': expected text that is not empty"),
    "a chance beyond all points": (
        {"chance": 101.0},
        "tickets.chance' is 101.0: Input should be less than or equal to 100",
    ),
    "words of free text": ({"labels": None, "metrics": ["qa_f1"], "label_words": {"a": "b"}}, "is not one of labels"),
    "one word for two labels": (
        {"label_words": {"billing": "x", "delivery": "x"}},
        "label_words lists ['x'] more than once",
    ),
    "the word of another label": (
        {"label_words": {"billing": "delivery"}},
        "label_words lists ['delivery'] more than once",
    ),
    "unknown metric": (
        {"metrics": ["acuracy"]},
        "metrics.0 is 'acuracy': there is no metric 'acuracy'; did you mean 'accuracy'",
    ),
    "classes of free text": ({"labels": None}, "metrics.1 is 'macro_f1': this metric counts classes"),
    "two classes": (
        {"labels": ["a", "b", "c"], "metrics": ["f1"]},
        "metrics.0 is 'f1': f1 needs a task with two label words",
    ),
    "words as scores": ({"metrics": ["pearson"]}, "metrics.0 is 'pearson': the reference 'billing' is not a number"),
}


@pytest.mark.parametrize("case", BAD_ENTRIES)
def test_bad_entries_are_refused_with_the_key(case: str) -> None:
    change, expected = BAD_ENTRIES[case]
    with pytest.raises(SettingsError, match=re.escape(expected)):
        known_tasks(settings_with({"tickets": {**ENTRY, **change}}).own_tasks, Path())


def settings_with(own_tasks: Mapping[str, Any], **differences: Any) -> Settings:
    return parse_settings(merged(VALUES, {"own_tasks": own_tasks, **differences}), "params.yaml")


@pytest.mark.parametrize("name", ["Tickets", "my-task", "../x", "9", "tokenizer", "all", "a" * 41])
def test_invalid_names_of_tasks_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"own_tasks\.{re.escape(name)}: invalid name"):
        task_of(name=name)


@pytest.mark.parametrize("name", ["null", "true", "false", "yes", "no", "on", "off", "y", "n"])
def test_names_that_yaml_reads_as_other_values_are_refused(params: Path, name: str) -> None:
    before = params.read_text()
    with pytest.raises(SettingsError, match=rf"own_tasks\.{name}: the name cannot serve, because YAML"):
        add_own_task(params, name, proposed(params))
    assert params.read_text() == before


def test_a_name_is_refused_exactly_if_pandas_reads_it_as_missing() -> None:
    """As in results/table.csv."""
    for name in {each.lower() for each in STR_NA_VALUES} | {"na", "none", "n_a", "nil"}:
        is_missing = bool(pd.read_csv(io.StringIO(f"task,score\n{name},1\n"))["task"].isna()[0])
        if re.fullmatch("[a-z_]+", name):
            with pytest.raises(SettingsError, match="cannot serve") if is_missing else nullcontext():
                task_of(name=name)


def test_tasks_are_found_by_name_and_duplicates_are_refused() -> None:
    known = known_tasks(settings_with({"tickets": ENTRY}).own_tasks, Path())
    assert list(known) == [*TASKS, "tickets"]
    assert get_task("tickets", known).name == "tickets"
    with pytest.raises(SettingsError, match=r"there is no task 'tikets': did you mean 'tickets'"):
        get_task("tikets", known)
    with pytest.raises(SettingsError, match=r"own_tasks\.cb: the registry has a task of this name"):
        known_tasks(settings_with({"cb": ENTRY}).own_tasks, Path())
    with pytest.raises(SettingsError, match=r"sources and targets both list \['cb'\]"):
        settings_with({}, tasks={"sources": ["mnli", "cb"]})


# Kubeflow

LISTED = {"tasks": {"targets": ["tickets"]}}


def test_the_plan_contains_the_listed_entries() -> None:
    nothing, unused, used = (
        make_plan(settings_with(entries, **lists), Path())
        for entries, lists in (({}, {}), ({"tickets": ENTRY}, {}), ({"tickets": ENTRY}, LISTED))
    )
    assert unused.prepare == nothing.prepare
    assert read_step(Prepare, as_text(used.prepare), "prepare").own_tasks == used.prepare.own_tasks
    assert validate(OwnTask, used.prepare.own_tasks["tickets"].model_dump(), "a folder").target == "queue"
    assert [*used.register.own_tasks] == [*used.prepare.own_tasks] == ["tickets"]
    with pytest.raises(SettingsError, match="there is no task 'tickets'"):
        make_plan(settings_with({}, **LISTED), Path())


@pytest.mark.parametrize(
    ("file", "volume", "fits"),
    [
        ("tickets.csv", "claim", False),
        ("/pemt/x.csv", "", False),
        ("/pemt/x.csv", "claim", True),
        ("/data/x.csv", "", True),
    ],
)
def test_files_missing_in_pods_are_named(file: str, volume: str, fits: bool) -> None:
    settings = settings_with({"tickets": {**ENTRY, "files": {"train": file}}}, kubeflow={"volume": volume}, **LISTED)
    found = [reason for reason in unfit_for_a_cluster(settings) if "own_tasks" in reason]
    assert found == ([] if fits else [found[0]])
    assert all(
        reason.startswith(f"own_tasks.tickets.files.train is {file}, a file that pods do not have") for reason in found
    )


@pytest.mark.parametrize(
    ("file", "expected"), [("x.csv", "a file's absolute path"), ("/nowhere/x.csv", "no such file")]
)
def test_files_missing_in_local_containers_are_named(tmp_path: Path, file: str, expected: str) -> None:
    settings = settings_with({"tickets": {**ENTRY, "files": {"train": file}}}, **LISTED)
    with pytest.raises(LocalRunError, match=rf"own_tasks\.tickets\.files\.train is {file}: .*{expected}"):
        run_locally(tmp_path / "pemt.yaml", {}, settings, tmp_path)


# Words that the model writes instead of labels


def test_a_model_writes_other_words_than_the_labels(tmp_path: Path) -> None:
    """Rows hold the words; everything that a person reads has the labels; classes keep their order."""
    rows = [{**ticket(n), "queue": ("m²", "kg")[n % 2]} for n in range(40)]
    write_csv(tmp_path / "tickets.csv", rows)
    task = task_of(tmp_path, labels=["m²", "kg"], label_words={"m²": "square_metre"}, metrics=["f1"])
    report, prepared = prepare(task, tmp_path)
    assert prepared.task.labels == ["square_metre", "kg"]
    assert set(prepared.rows("train")["target"].to_pylist()) == {"square_metre", "kg"}
    assert {tuple(each) for each in prepared.rows("test")["references"].to_pylist()} <= {("square_metre",), ("kg",)}
    assert [*(report.splits["train"].labels or ())] == ["m²", "kg"]
    assert (prepared.task.shown_as(" square_metre"), prepared.task.shown_as("kg")) == ("m²", "kg")
    assert prepared.task.shown_as("square metre") == "square metre"  # no label word, so as the model wrote it
    assert prepared.task.generation_length == len("square_metre") + 2
    plain, _ = prepare(task_of(tmp_path, name="plain", labels=["m²", "kg"]), tmp_path)
    assert plain.splits["train"].labels == report.splits["train"].labels


def test_the_prepare_step_reads_the_labels_of_all_tasks(tmp_path: Path) -> None:
    """No tokenizer is written, so nothing later runs."""
    write_csv(tmp_path / "tickets.csv", [{**ticket(n), "queue": ("m²", "kg")[n % 2]} for n in range(40)])
    settings = settings_with({})
    tokenizer = settings.backbone.of_tokenizer.model_copy(update={"name": str(REPOSITORY / settings.backbone.name)})
    for words in (None, {"m²": "m2"}):
        task = task_of(tmp_path, labels=["m²", "kg"], label_words=words)
        if words is None:
            with pytest.raises(LabelError, match=r'tickets: the backbone cannot write .* label_words: \{"m²": m2\}'):
                prepare_all([task], settings.prepare, tokenizer, output_dir=tmp_path / "data")
            assert not (tmp_path / "data" / "tokenizer").exists()
        else:
            prepare_all([task], settings.prepare, tokenizer, output_dir=tmp_path / "data")
    counted = read_json(tmp_path / "data" / "statistics.json")["tickets"]["splits"]["train"]["labels"]
    assert [*counted] == ["m²", "kg"]


def test_labels_may_swap_their_words(tmp_path: Path) -> None:
    write_csv(tmp_path / "tickets.csv", [ticket(n) for n in range(40)])
    words = {"billing": "delivery", "delivery": "billing"}
    report, prepared = prepare(task_of(tmp_path, label_words=words), tmp_path)
    counts = Counter(prepared.rows("train")["target"].to_pylist())
    assert {words[label]: count for label, count in (report.splits["train"].labels or {}).items()} == counts


# Adding an entry to params.yaml


def proposed(params: Path, **changes: Any) -> dict[str, Any]:
    return propose_entry(EXAMPLE, "queue", params.parent, **changes).entry


def test_an_entry_is_proposed_from_a_file(params: Path) -> None:
    folder = params.parent
    entry = proposed(params, text={"subject": "subject", "message": "body"})
    assert entry["labels"] == ["garage", "money", "shop", "truck"]
    assert entry["metrics"] == ["accuracy", "macro_f1"]
    assert entry["description"] == "Given the subject and the message, decide which queue it is."
    assert proposed(params)["text"] == {"subject": "subject", "body": "body"}
    rows = [{"id": n, "question": f"q{n}", "answer": f"a{n}"} for n in range(40)]
    write_jsonl(folder / "qa.jsonl", rows)
    write_parquet(folder / "qa.parquet", rows)
    entries = [propose_entry({"train": f"qa.{end}"}, "answer", folder, key="id").entry for end in ("jsonl", "parquet")]
    assert [entry["text"] for entry in entries] == [{"question": "question"}] * 2
    assert (entries[0]["labels"], entries[0]["metrics"], entries[0]["id"]) == (None, ["qa_f1", "qa_em"], "id")
    with pytest.raises(DataError, match=r"there is no column 'ansver': did you mean 'answer'"):
        propose_entry({"train": "qa.jsonl"}, "ansver", folder)


def changed_lines(before: str, after: str) -> tuple[list[str], list[str]]:
    """Return the removed lines and the added ones."""
    old, new = Counter(before.splitlines()), Counter(after.splitlines())
    return list((old - new).elements()), list((new - old).elements())


def test_an_added_task_leaves_all_other_text_as_it_is(params: Path) -> None:
    before = params.read_text()
    add_own_task(params, "tickets", proposed(params), differences={"k": ["full"]})
    gone, new = changed_lines(before, params.read_text())
    assert [line.split()[0] for line in gone] == ["targets:", "own_tasks:", "per_target:"]  # the extended keys
    assert "own_tasks:                      # tasks from your files, by name: docs/own_tasks.md" in new
    assert [line for line in new if "tickets" in line and "files" not in line] == [
        f"  targets: [{', '.join(VALUES['tasks']['targets'])}, tickets]",
        "  tickets:",
        "  tickets: {k: [full]}",
    ]
    assert len(new) == len(gone) + len(proposed(params)) + 1 + 1  # the entry and per_target
    settings = load_settings(params)
    assert settings.tasks.targets == [*VALUES["tasks"]["targets"], "tickets"]
    assert settings.transfer_for("tickets").k == ["full"]
    middle = params.read_text()
    add_own_task(params, "more", proposed(params), "source", only=True)
    assert load_settings(params).tasks.sources == ["more"]
    gone, new = changed_lines(middle, params.read_text())
    assert [line.split()[0] for line in gone] == ["sources:"]
    assert {"  sources: [more]", "  more:"} < {*new}
    assert len(new) == len(gone) + len(proposed(params)) + 1  # only the entry


OTHER_LAYOUTS: dict[str, Callable[[str], str]] = {
    "a list in lines": lambda text: re.sub(
        r"  targets: \[(.*)\]", lambda m: "  targets:\n" + "\n".join(f"    - {t}" for t in m[1].split(", ")), text
    ),
    "no line break at the end": lambda text: text.rstrip("\n"),
    "no comment": lambda text: re.sub(r"own_tasks: \{\} .*", "own_tasks: {}", text),
    "differences in braces": lambda text: text.replace("per_target: {} ", "per_target: {cb: {k: [4]}} "),
    "differences in lines": lambda text: re.sub(r"per_target: \{\}.*", "per_target:\n    cb: {k: [4]}\n", text),
}


@pytest.mark.parametrize("case", OTHER_LAYOUTS)
@pytest.mark.parametrize("only", [False, True])
def test_entries_are_added_to_other_layouts(params: Path, case: str, only: bool) -> None:
    text = OTHER_LAYOUTS[case](params.read_text())
    assert text != params.read_text()
    params.write_text(text)
    add_own_task(params, "tickets", proposed(params), only=only, differences={"k": ["full"]})
    assert load_settings(params).tasks.targets[-1:] == ["tickets"]
    assert load_settings(params).transfer_for("tickets").k == ["full"]
    assert not [line for line in params.read_text().splitlines() if line != line.rstrip()]


@pytest.mark.parametrize("line_end", ["\r\n", "\r"])
def test_the_line_ends_of_params_stay(params: Path, line_end: str) -> None:
    params.write_text(params.read_text(), newline=line_end)
    before = params.read_bytes().split(line_end.encode())
    add_own_task(params, "tickets", proposed(params), differences={"k": ["full"]})
    after = params.read_bytes()
    assert after.replace(line_end.encode(), b"").find(b"\n") < 0
    changed = [line for line in before if line not in after.split(line_end.encode())]
    assert len(changed) <= 3
    assert "tickets" in load_settings(params).own_tasks


def test_a_layout_that_cannot_be_edited_is_refused(params: Path) -> None:
    text = params.read_text().replace("per_source: {}", "per_source: &same {}")
    text = text.replace("per_target: {}", "per_target: *same")
    params.write_text(text)
    with pytest.raises(
        SettingsError, match=r"cannot be edited automatically; add own_tasks\.tickets, per_target\.tickets"
    ):
        add_own_task(params, "tickets", proposed(params), differences={"k": ["full"]})
    assert params.read_text() == text


REFUSED: dict[str, tuple[str, dict[str, Any], type[PemtError], str]] = {
    "a task of the registry": ("cb", {}, SettingsError, "task 'cb' already exists; choose another name"),
    "a bad name": ("my task", {}, SettingsError, "own_tasks.my task: invalid name"),
    "a column": ("tickets", {"text": {"x": "bodi"}}, DataError, "there is no column 'bodi': did you mean 'body'"),
    "a file": ("tickets", {"files": {"train": "nowhere.csv"}}, DataError, "nowhere.csv: no such file"),
    "a label": ("tickets", {"labels": ["bills", "other"]}, DataError, "line 2: 'queue' is 'truck'"),
    "a key": ("tickets", {"label": 1}, SettingsError, "own_tasks.tickets: unknown key 'label'; did you mean 'labels'?"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_task_leaves_the_file_unchanged(params: Path, case: str) -> None:
    name, change, kind, expected = REFUSED[case]
    before = params.read_text()
    with pytest.raises(kind, match=re.escape(expected)):
        add_own_task(params, name, {**proposed(params), **change})
    assert params.read_text() == before


def test_every_row_is_checked_before_a_task_is_added(params: Path) -> None:
    entry, before = proposed(params), params.read_text()
    train = params.parent / entry["files"]["train"]
    lines = train.read_text().splitlines(keepends=True)
    train.write_text("".join(lines[:-1]) + lines[-1].replace(lines[-1].rstrip().rpartition(",")[2], "garge"))
    with pytest.raises(DataError, match="'garge', expected a label word"):
        add_own_task(params, "tickets", entry)
    notes = propose_entry(EXAMPLE, "queue", params.parent).notes
    assert notes == ["the label 'garge' occurs only once: if it is a mistake, correct the file"]
    train.write_text("".join(lines[:6]))
    with pytest.raises(DataError, match=r"validation, .* is empty: the split's 5 rows are too few to divide; add rows"):
        add_own_task(params, "tickets", entry)
    assert params.read_text() == before


def answered(folder: Path, answers: list[Any], **columns: list[Any]) -> Path:
    """Write a row per answer."""
    rows = [
        {"text": f"row {n}", **{name: c[n] for name, c in columns.items()}, "answer": a} for n, a in enumerate(answers)
    ]
    return write_jsonl(folder / "rows.jsonl", rows)


FULL = {"k": ["full"]}


def tried(params: Path, answers: list[Any], *, differences: Mapping[str, Any] = FULL, **choices: Any) -> list[str]:
    """Propose and add a task with these answers; return all notes."""
    answered(params.parent, answers)
    made = propose_entry({"train": "rows.jsonl"}, "answer", params.parent, **choices)
    notes = add_own_task(
        params, "t", made.entry, differences=differences, inferred_labels=made.inferred_labels
    )  # fmt: skip
    return [*made.notes, *notes]


UNTRAINABLE: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "labels that the backbone cannot write": (
        ["m²", "kg"] * 30, {}, r"""read back as "m2"\); correct the file, or pass --label-words '\{"m²": m2\}'""",
    ),
    "further labels": (
        ["m²", "½", "kg"] * 20, {"label_words": {"m²": "square"}},
        r"""pass --label-words '\{"m²": square, "½": "1_2"\}'""",
    ),
    "numbers in two spellings": ([0, 1, 0.0, 1.0] * 20, {}, r'labels "0" and "0.0"; "1" and "1.0" are one number'),
    "a number out of range": (
        [1, 2.5, 6] * 20, {"labels": [], "metrics": ["pearson"]},
        r"rows.jsonl, line 3: 'answer' is '6', expected a number from 0 to 5, which pearson scores",
    ),
    "no number": (
        [1, 2, "three"] * 20, {"labels": [], "metrics": ["qa_f1", "spearman"]},
        r"line 3: 'answer' is 'three', expected a number from 0 to 5, which spearman scores",
    ),
    "no such word": (["a", "b", "c"] * 20, {"labels": ["a", "b"]}, r"line 3: 'answer' is 'c', expected a label word"),
    "rows per class": (
        ["a", "b"] * 20, {"differences": {"k": [4, 32]}},
        r"t: k=32 rows of 'a' are needed, but the training split has \d+; .* --differences '\{k: \[full\]\}'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", UNTRAINABLE)
def test_a_task_that_cannot_be_trained_is_not_added(params: Path, case: str) -> None:
    answers, choices, expected = UNTRAINABLE[case]
    before = params.read_text()
    with pytest.raises(DataError, match=expected):
        tried(params, answers, **choices)
    assert params.read_text() == before


def test_a_small_class_may_be_taken_whole(params: Path) -> None:
    tried(params, ["a", "b"] * 20, differences={"k": [32], "rare_class": "all"})
    assert load_settings(params).transfer_for("t").k == [32]


def test_a_source_has_no_sample_to_draw(params: Path) -> None:
    answered(params.parent, ["a", "b"] * 20)
    entry = propose_entry({"train": "rows.jsonl"}, "answer", params.parent).entry
    add_own_task(params, "t", entry, "source")
    assert "t" in load_settings(params).tasks.sources


def test_repeated_ids_are_found(params: Path) -> None:
    rows = [{"key": n % 39, "text": f"row {n}", "answer": "ab"[n % 2]} for n in range(40)]
    write_jsonl(params.parent / "rows.jsonl", rows)
    entry = propose_entry({"train": "rows.jsonl"}, "answer", params.parent, key="key").entry
    with pytest.raises(DataError, match=r"rows\.jsonl, line \d+: the id '0' occurs twice"):
        add_own_task(params, "t", entry, differences=FULL)


@pytest.mark.parametrize("inferred", [True, False])
def test_every_label_of_test_occurs_in_train(params: Path, inferred: bool) -> None:
    """Labels that are not passed are those of the training file."""
    folder = params.parent
    write_jsonl(folder / "train.jsonl", [{"text": f"row {n}", "answer": n % 2} for n in range(40)])
    write_jsonl(folder / "test.jsonl", [{"text": f"row {n}", "answer": ["0", "1", "up"][n % 3]} for n in range(9)])
    files = {"train": "train.jsonl", "test": "test.jsonl"}
    made = propose_entry(files, "answer", folder, labels=None if inferred else ["0", "1", "up"])
    expected = (
        r"test\.jsonl, line 3: 'answer' is 'up', expected a label word .*; the labels are the answers in train\.jsonl"
        if inferred
        else r"test\.jsonl, line \d+: the label 'up' is in no training row, .*: train 0, validation 0, test 3\)"
    )
    with pytest.raises(DataError, match=expected):
        add_own_task(params, "t", made.entry, differences=FULL, inferred_labels=made.inferred_labels)
    with pytest.raises(DataError, match=expected.partition("; the labels")[0]):
        prepare(task_of(folder, **made.entry), folder)


NOTES: dict[str, tuple[list[Any], dict[str, Any], list[str]]] = {
    "nothing to say": (["a", "b"] * 30, {}, []),
    "long answers": ([f"{n} is an answer of several words, more than a label has" for n in range(60)], {}, []),
    "many classes": ([f"k{n % 60}" for n in range(120)], {}, [r"scored by qa_f1: 60 different .* --labels k0 k1"]),
    "many classes of words": ([f"no {n % 60}" for n in range(120)], {}, [r"--labels 'no 0' 'no 1' 'no 10' \.\.\."]),
    "an unused label": (["a", "b"] * 30, {"labels": ["a", "c", "b"]}, [r"the label 'c' occurs in no training row"]),
    "missing answers": (["NaN", "b", "none"] * 20, {}, [r"^the label 'NaN' may stand for a missing answer"]),
    "numbers": ([n / 10 for n in range(51)], {}, [r"the numbers in 'answer' become free text.* --metrics pearson"]),
    "numbers with a metric": ([n / 10 for n in range(51)], {"metrics": ["pearson"]}, []),
    "classes of numbers": ([1.5, 2.5] * 30, {}, [r"become 2 classes; .* --free-text --metrics pearson"]),
    "whole numbers": ([0, 1] * 30, {}, []),
    "case": (["Yes", "yes", "No"] * 20, {}, [r"differ only in case are different classes: 'Yes', 'yes'$"]),
    "truth values and numbers": ([1, True, 0] * 20, {}, [r"'true' may mean the same as '0', '1', but"]),
    "blanks": (["yes", "no", "yes ", " no"] * 15, {}, [r"blanks around answers are removed: ' no', 'yes '"]),
    "quotes": (["'yes'", "no"] * 30, {}, [r"""labels keep their quotes: ''yes''"""]),
    "a long prompt": (
        ["a", "b"] * 30, {"description": "Decide this or that. " * 40 + "So."}, [r"the description has \d+ tokens"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", NOTES)
def test_silent_choices_are_said_in_a_line(params: Path, case: str) -> None:
    answers, choices, expected = NOTES[case]
    notes = tried(params, answers, **choices)
    assert len(notes) == len(expected)
    for note, pattern in zip(notes, expected, strict=True):
        assert re.search(pattern, note)
        assert "\n" not in note


def test_the_command_prints_notes_and_then_the_entry(params: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = answered(params.parent, ["m²", "kg", "kg "] * 20)
    flags = [str(file), "--params", str(params), "--name", "t", "--target", "answer", "--differences", "{k: [full]}"]
    with pytest.raises(DataError, match="pass --label-words"):
        add_task.main(add_task.make_parser().parse_args(flags))
    capsys.readouterr()
    add_task.main(add_task.make_parser().parse_args([*flags, "--label-words", '{"m²": m2}']))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "note: blanks around answers are removed: 'kg '"
    assert '  label_words: {"m²": m2}' in lines
    assert load_settings(params).own_tasks["t"].label_words == {"m²": "m2"}
    with pytest.raises(SettingsError, match=r"--label-words is '\[a\]': expected a mapping, as in"):
        add_task.main(add_task.make_parser().parse_args([*flags, "--label-words", "[a]"]))


def test_a_tokenizer_to_be_trained_checks_later(params: Path) -> None:
    """No tokenizer is at hand, and the hub is not asked."""
    text = params.read_text()
    for change in ("kind: scratch", "name: nobody/has-this"):
        key = change.partition(":")[0]
        params.write_text(re.sub(rf"(?m)^  {key}: \S+", f"  {change}", text, count=1))
        assert tried(params, ["m²", "kg"] * 30) == ["`prepare` will check the labels with the backbone's tokenizer"]


@pytest.mark.parametrize("name", ["Unnamed: 0", "Unnamed: 0.1", "Unnamed: 0.1.1", "__index_level_0__"])
def test_the_index_of_a_table_is_no_text(params: Path, name: str) -> None:
    answered(params.parent, ["a", "b"] * 30, **{name: list(range(60))})
    made = propose_entry({"train": "rows.jsonl"}, "answer", params.parent)
    assert made.entry["text"] == {"text": "text"}
    assert made.notes == [f"column 2 ('{name}') is left out, as the index of a pandas table"]


def test_each_column_without_a_name_is_left_out(params: Path) -> None:
    rows = "".join(f"{n},row {n},{'ab'[n % 2]},,\n" for n in range(40))
    (params.parent / "rows.csv").write_text(f",text,answer,,\n{rows}")
    made = propose_entry({"train": "rows.csv"}, "answer", params.parent)
    assert made.entry["text"] == {"text": "text"}
    assert made.notes == [
        "column 1 ('') is left out, as the index of a pandas table",
        "columns 4, 5 have no name and are left out",
    ]


def test_columns_are_those_of_all_rows(params: Path) -> None:
    write_jsonl(params.parent / "x.jsonl", [{"text": "a", "answer": "b"}, {"text": "c", "answer": "b", "more": "d"}])
    with pytest.raises(DataError, match=r"line 1: there is no column 'more', which line 2 has; .*: --text text$"):
        propose_entry({"train": "x.jsonl"}, "answer", params.parent)
    made = propose_entry({"train": "x.jsonl"}, "answer", params.parent, text={"text": "text"}, labels=["b", "c"])
    assert made.entry["text"] == {"text": "text"}


UNREADABLE = {
    "dates": datetime.date(2024, 1, 1),
    "times": datetime.datetime(2024, 1, 1),
    "lists": ["a"],
    "groups": {"a": 1},
    "bytes": b"a",
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_a_column_that_is_no_text_can_be_left_out(params: Path, case: str) -> None:
    rows = [{"my text": f"row {n}", "when": UNREADABLE[case], "answer": "ab"[n % 2]} for n in range(20)]
    write_parquet(params.parent / "x.parquet", rows)
    remedy = r"row 1: 'when' is .*, expected text or a number; or leave the column out: --text 'my text'$"
    with pytest.raises(DataError, match=remedy):
        propose_entry({"train": "x.parquet"}, "answer", params.parent)
    for choices in ({"target": "when"}, {"target": "answer", "text": {"when": "when"}}):
        with pytest.raises(DataError, match=r"expected text or a number$"):  # it was asked for
            propose_entry({"train": "x.parquet"}, folder=params.parent, **choices)


def test_two_columns_need_two_names() -> None:
    assert add_task.named_columns(["a", "b=c", "a"]) == {"a": "a", "b": "c"}
    with pytest.raises(SettingsError, match="--text: the columns 'subject' and 'a' both get the name 'a'"):
        add_task.named_columns(["a=subject", "a"])


def test_what_is_missing_for_an_entry_is_said_in_words(params: Path) -> None:
    answered(params.parent, ["a"] * 60)
    with pytest.raises(DataError, match=r"every answer in column 'answer' is 'a', but a task needs two; .*--free-text"):
        propose_entry({"train": "rows.jsonl"}, "answer", params.parent)
    with pytest.raises(DataError, match=r"no column is left for the text: 'answer' has the answer, 'text' the name"):
        propose_entry({"train": "rows.jsonl"}, "answer", params.parent, key="text")
    with pytest.raises(SettingsError, match=r"^own_tasks\.t: labels lists \['a'\] more than once$"):
        validate(OwnTask, {**ENTRY, "labels": ["a", "a"]}, "own_tasks.t")


@pytest.mark.parametrize("split", ["validation", "test"])
def test_copies_of_training_rows_are_noted(params: Path, split: str) -> None:
    answered(params.parent, ["a", "b"] * 30)
    made = propose_entry({"train": "rows.jsonl", split: "rows.jsonl"}, "answer", params.parent)
    (note,) = add_own_task(params, "t", made.entry, differences=FULL)
    counts = "54 of 60 rows of test" if split == "test" else "30 of 30 rows of validation and 30 of 30 rows of test"
    assert note == f"{counts} have the text of a training row: their scores say little"


def test_an_empty_description_is_not_replaced(params: Path) -> None:
    answered(params.parent, ["a", "b"] * 30)
    made = propose_entry({"train": "rows.jsonl"}, "answer", params.parent, description="")
    with pytest.raises(SettingsError, match="description' is '': expected text that is not empty"):
        add_own_task(params, "t", made.entry, differences=FULL)


def test_names_of_columns_lose_their_blanks(params: Path) -> None:
    answered(params.parent, ["a", "b"] * 30, **{" more ": ["'quoted'"] * 60})
    made = propose_entry({"train": "rows.jsonl"}, "answer", params.parent)
    assert made.entry["text"] == {"text": "text", "more": " more "}
    assert made.notes == ["the values of column ' more ' keep their quotes"]
    answered(params.parent, ["a", "b"] * 30, **{" text": ["x"] * 60})
    with pytest.raises(DataError, match=r"columns 'text' and ' text' have the same name; .* --text"):
        propose_entry({"train": "rows.jsonl"}, "answer", params.parent)


def test_names_of_columns_lose_what_cannot_be_seen_around_them(params: Path) -> None:
    answered(params.parent, ["a", "b"] * 30, **{"\ufefftitle\u200b": list(range(60)), "\u200b": [1] * 60})
    assert propose_entry({"train": "rows.jsonl"}, "answer", params.parent).entry["text"] == {
        "text": "text",
        "title": "\ufefftitle\u200b",
    }


def test_a_name_of_a_column_that_is_no_text_is_refused(params: Path) -> None:
    answered(params.parent, ["a", "b"] * 30, **{"\udc80": list(range(60))})
    with pytest.raises(DataError, match=r"rows\.jsonl: the name of column '\\udc80' is no Unicode text; pass .*--text"):
        propose_entry({"train": "rows.jsonl"}, "answer", params.parent)
    proposed = propose_entry({"train": "rows.jsonl"}, "answer", params.parent, text={"text": "text"})
    assert proposed.entry["text"] == {"text": "text"}


def test_a_table_of_many_columns_has_a_short_description(params: Path) -> None:
    answered(params.parent, ["a", "b"] * 30, **{f"a column with a long name {n}": list(range(60)) for n in range(80)})
    made = propose_entry({"train": "rows.jsonl"}, "answer", params.parent)
    assert made.entry["description"] == "Given the fields of a row, decide which answer it is."


def test_doctor_checks_own_tasks(params: Path) -> None:
    add_own_task(params, "tickets", proposed(params))
    (found,) = project.settings(Surroundings.of(params, {}, None))
    assert (found.status, found.found.endswith("18 targets")) == ("ok", True)


def test_unknown_settings_for_an_added_task_are_refused(params: Path) -> None:
    with pytest.raises(SettingsError, match=r"per_target\.tickets: unknown key 'kk'"):
        add_own_task(params, "tickets", proposed(params), differences={"kk": 1})


# From files to results


@pytest.mark.slow
def test_from_files_to_results_and_retraining_after_a_changed_file(tmp_path: Path) -> None:
    """Run the example on the kept backbone, with one source that is a user's task too."""
    short = {group: TINY[group] for group in ("train_source", "transfer", "evaluate")}
    workspace = new_workspace(tmp_path / "project", tmp_path / "caches", [short])
    folder = workspace.folder / "own_tasks"
    write_parquet(folder / "moods.parquet", [ticket(n) for n in range(60)])
    add(workspace, "moods", {"train": "own_tasks/moods.parquet"}, "source")
    add(workspace, "tickets", EXAMPLE, "target")
    trained = ["train_source@moods", "collect_experts", "transfer@tickets"]
    assert workspace.repro("evaluate", forks=True).executed == ["plan", "prepare", "backbone", *trained, "evaluate"]
    result = read_json(workspace.folder / "scores/tickets/pemt-kfull-seed4096/result.json")
    assert (result["suite"], result["sources"], result["test_rows_available"]) == ("Own", ["moods"], 120)
    with (folder / "tickets.csv").open("a") as file:
        file.write("Late,My chair did not come.,truck\n")
    assert workspace.repro("backbone").executed == ["prepare", "backbone"]
    assert workspace.repro("--dry", "transfer").executed == ["transfer@tickets"]  # the source and the experts stay
    splits = read_json(workspace.folder / "data/statistics.json")["tickets"]["splits"]
    assert [splits[role]["rows"] for role in ("train", "validation", "test")] == [271, 30, 120]
    revisions = read_json(workspace.folder / "provenance/prepare.json")["revisions"]
    assert all(revisions[name].startswith("sha256:") for name in ("moods", "tickets"))


def add(workspace: Workspace, name: str, files: Mapping[str, str], role: Any) -> None:
    """Add a task as the only one in its role."""
    entry = propose_entry(files, "queue", workspace.folder).entry
    add_own_task(workspace.folder / "params.yaml", name, entry, role, only=True)
