"""Make a task of your own from a CSV, JSONL or parquet file: writes its entry and its name into params.yaml.

What is not given is read off the file: every other column is text, the different answers are the label words. The entry
is printed; edit it there, above all the description, whose words start the task's prompt. docs/own_tasks.md has more.
"""

import argparse
import json
from pathlib import Path

from components.command import add_params, explained, run


def main(arguments: argparse.Namespace) -> None:
    from pemt_core.settings.new_task import add_own_task, parse_differences, propose_entry

    folder = arguments.params.resolve().parent
    files = {"train": arguments.file, "validation": arguments.validation, "test": arguments.test}
    entry = propose_entry(
        {split: as_written(file, folder) for split, file in files.items() if file},
        arguments.target,
        folder,
        text=dict(map(named_column, arguments.text)) if arguments.text else None,
        labels=[] if arguments.free_text else arguments.labels,
        description=arguments.description,
        metrics=arguments.metrics,
        key=arguments.id,
    )
    add_own_task(
        arguments.params,
        arguments.name,
        entry,
        "source" if arguments.source else "target",
        only=arguments.only,
        differences=parse_differences(arguments.differences),
    )
    print(f"own_tasks.{arguments.name} in {arguments.params}:")
    for key, value in entry.items():
        print(f"  {key}: {json.dumps(value, ensure_ascii=False)}")
    print("Next: dvc repro")


def as_written(file: Path, folder: Path) -> str:
    """A file inside the project counts from its folder, as in params.yaml; any other has its whole path."""
    path = file.resolve()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def named_column(text: str) -> tuple[str, str]:
    """ "subject", a column under its own name, or "question=body"."""
    name, _, column = text.partition("=")
    return name, column or name


def make_parser() -> argparse.ArgumentParser:
    parser = explained(__doc__, "add_task")
    parser.add_argument(
        "file", type=Path, help="rows to train on; validation and test are taken from them if not given"
    )
    parser.add_argument("--validation", type=Path, help="file with rows to choose by")
    parser.add_argument("--test", type=Path, help="file with rows to score on")
    parser.add_argument("--name", required=True, help="of the task: small letters, digits and _")
    parser.add_argument("--target", required=True, metavar="COLUMN", help="the column of the answer")
    parser.add_argument("--text", nargs="+", metavar="COLUMN", help="columns that the model reads, or NAME=COLUMN")
    answers = parser.add_mutually_exclusive_group()
    answers.add_argument("--labels", nargs="+", metavar="WORD", help="all answers that there are")
    answers.add_argument("--free-text", action="store_true", help="the answer may be any text")
    parser.add_argument("--description", help="one sentence: what is given, and what is to be decided")
    parser.add_argument("--metrics", nargs="+", metavar="METRIC", help="the main one first")
    parser.add_argument("--id", metavar="COLUMN", help="the column that names a row")
    parser.add_argument("--source", action="store_true", help="as a source, an expert for all targets")
    parser.add_argument("--only", action="store_true", help="take the other tasks out of the list: run this one alone")
    parser.add_argument(
        "--differences", default="{}", metavar="YAML", help="from the group transfer: '{k: [full], seeds: [1, 2]}'"
    )
    add_params(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser())
