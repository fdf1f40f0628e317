"""Make a task from a CSV, JSONL or parquet file: write its entry and its name into params.yaml.

Flags that are not given are inferred from the file: every other column is text, the distinct answers are the labels.
The task is prepared once as a trial; only a task that can be trained is written. The entry is printed; edit it in
params.yaml, above all the description, whose words initialize the task's prompt. docs/own_tasks.md has more.
"""

import argparse
import logging
from collections.abc import Iterable
from pathlib import Path

from components.command import add_params, explained, run
from pemt_core.errors import SettingsError, printable
from pemt_core.paths import check_output


def main(arguments: argparse.Namespace) -> None:
    from pemt_core.new_task import add_own_task, parse_mapping, propose_entry
    from pemt_core.schema.flow import flow

    logging.basicConfig(format="note: %(message)s")
    check_output(arguments.params)
    folder = arguments.params.resolve().parent
    files = {"train": arguments.file, "validation": arguments.validation, "test": arguments.test}
    proposal = propose_entry(
        {split: as_written(file, folder) for split, file in files.items() if file},
        arguments.target,
        folder,
        text=named_columns(arguments.text) if arguments.text else None,
        labels=[] if arguments.free_text else arguments.labels,
        label_words=parse_mapping(arguments.label_words, "--label-words", "{yes: right}"),
        description=arguments.description,
        metrics=arguments.metrics,
        key=arguments.id,
    )
    print_notes(proposal.notes)
    notes = add_own_task(
        arguments.params,
        arguments.name,
        proposal.entry,
        "source" if arguments.source else "target",
        only=arguments.only,
        differences=parse_mapping(arguments.differences, "--differences", "{k: [full]}"),
        inferred_labels=proposal.inferred_labels,
    )
    print_notes(notes)
    print(f"own_tasks.{arguments.name} in {arguments.params}:")
    for key, value in proposal.entry.items():
        print(f"  {key}: {flow(value)}")
    print("Next: dvc repro")


def print_notes(notes: Iterable[str]) -> None:
    for note in notes:
        print(printable(f"note: {note}"), flush=True)  # an error may follow on the other stream


def as_written(file: Path, folder: Path) -> str:
    """Return the path for params.yaml: relative to the project folder for files inside it, absolute for others."""
    path = file.resolve() if file.exists() else file.absolute()  # an error names a link to nothing
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def named_columns(texts: Iterable[str]) -> dict[str, str]:
    """Split each "question=body" into name and column; "subject" stands for both.

    Raises SettingsError if two columns get one name.
    """
    columns: dict[str, str] = {}
    for text in texts:
        name, _, given = text.partition("=")
        column = given or name
        if columns.setdefault(name, column) != column:
            raise SettingsError(
                f"--text: the columns '{columns[name]}' and '{column}' both get the name '{name}'; give each its own"
            )
    return columns


def make_parser() -> argparse.ArgumentParser:
    parser = explained(__doc__, "add_task")
    parser.add_argument(
        "file", type=Path, help="training rows; validation and test rows are split off from them if not given"
    )
    parser.add_argument("--validation", type=Path, help="file with validation rows, which select the model")
    parser.add_argument("--test", type=Path, help="file with test rows, which are scored")
    parser.add_argument("--name", required=True, help="name of the task: lowercase letters, digits and _")
    parser.add_argument("--target", required=True, metavar="COLUMN", help="column with the answer")
    parser.add_argument("--text", nargs="+", metavar="COLUMN", help="columns that the model reads, or NAME=COLUMN")
    answers = parser.add_mutually_exclusive_group()
    answers.add_argument("--labels", nargs="+", metavar="WORD", help="all possible answers")
    answers.add_argument("--free-text", action="store_true", help="the answer may be any text")
    parser.add_argument(
        "--label-words",
        default="{}",
        metavar="YAML",
        help="words that the model writes instead of labels: '{\"m²\": square_metre}'",
    )
    parser.add_argument("--description", help="one sentence: what is given, and what to decide")
    parser.add_argument("--metrics", nargs="+", metavar="METRIC", help="metrics, the main one first")
    parser.add_argument("--id", metavar="COLUMN", help="column with the name of each row")
    parser.add_argument("--source", action="store_true", help="add a source, an expert for all targets")
    parser.add_argument("--only", action="store_true", help="remove the other tasks from the list: run this one alone")
    parser.add_argument(
        "--differences",
        default="{}",
        metavar="YAML",
        help="settings to replace transfer's: '{k: [full], seeds: [1, 2]}'",
    )
    add_params(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser())
