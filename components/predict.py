"""Predict every row of a CSV, JSONL or parquet file of any size, with trained targets or a registered model.

A row has the columns of its task, or its complete text in the column "source". The output has one row for each, with
task, prediction, answer, score, scores, expert_weights and truncated.

On a CPU, worker processes with one thread each answer the rows of a small backbone. A large one answers in one process
on all cores, unless workers are asked for. The file is the same for any number of workers. A GPU has one process.
"""

import argparse
from pathlib import Path

from components.command import add_params, changed_flags, explained, run, worker_count
from pemt_core.errors import SettingsError
from pemt_core.prediction.project import Project

FOLDERS = ("adapters", "data", "backbone", "experts")


def main(arguments: argparse.Namespace) -> None:
    from pemt_core.prediction.files import check_files, predict_file
    from pemt_core.prediction.load import load

    _check_flags(arguments)
    check_files(arguments.input, arguments.output, arguments.keep)  # before a model is loaded
    project = Project(**{name: getattr(arguments, name) for name in ("params", *FOLDERS)})
    predictor = load(arguments.target or arguments.model, project=project, cell=arguments.cell)
    num_rows = predict_file(
        predictor, arguments.input, arguments.output, keep=arguments.keep, workers=arguments.workers
    )
    print(f"{arguments.output}: {num_rows:,} rows")


def _check_flags(arguments: argparse.Namespace) -> None:
    """Raise SettingsError if a flag is given that a whole model would ignore."""
    ignored = changed_flags(arguments, make_parser(), ("cell", *FOLDERS))
    if arguments.model is not None and ignored:
        raise SettingsError(f"--model names a whole model; {ignored}: expected only with --target")


def make_parser() -> argparse.ArgumentParser:
    parser = explained(__doc__, "predict")
    parser.add_argument("input", type=Path, help="file with the rows: .csv, .jsonl or .parquet")
    parser.add_argument("--output", type=Path, required=True, help="file to write: .csv, .jsonl or .parquet")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--target",
        nargs="+",
        metavar="TASK",
        help="trained targets; if several, the column 'task' names the target of each row",
    )
    what.add_argument("--model", help="models:/<name>@<alias>, models:/<name>/<version>, or a model's folder")
    parser.add_argument("--cell", help="with --target: cell, such as pemt-k32-seed31 (default: the best on validation)")
    parser.add_argument("--keep", nargs="+", default=[], metavar="COLUMN", help="input columns to copy to the output")
    help_text = "number of processes that answer at a time (default: what suits the machine)"
    parser.add_argument("--workers", type=worker_count, metavar="N", help=help_text)
    for name in FOLDERS:
        default = getattr(Project, name)
        parser.add_argument(f"--{name}", type=Path, default=default, help="with --target: folder to read (%(default)s)")
    add_params(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser())
