"""Predict for every row of a CSV, JSONL or parquet file, of any size, with trained targets or a registered model.

A row has the columns of its task, or its finished text in the column "source". The output has a row for each: task,
prediction, answer, score, scores, expert_weights, truncated.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from components.command import add_params, explained, run
from components.program import tracking_dir, tracking_uri
from pemt_core.errors import ArtifactError
from pemt_core.settings import load_settings

if TYPE_CHECKING:
    from pemt_core.prediction.predictor import Predictor

REGISTERED = "models:/"


def main(arguments: argparse.Namespace) -> None:
    from pemt_core.prediction.files import check_files, predict_file

    check_files(arguments.input, arguments.output, arguments.keep)  # before a model is loaded
    predictor = of_targets(arguments) if arguments.target else of_model(arguments)
    num_rows = predict_file(predictor, arguments.input, arguments.output, keep=arguments.keep)
    print(f"{arguments.output}: {num_rows:,} rows")


def of_targets(arguments: argparse.Namespace) -> "Predictor":
    """The targets as they are in the pipeline's folders."""
    from pemt_core.artifacts.adapter import best_on_validation
    from pemt_core.prediction.predictor import load_predictor
    from pemt_core.tasks import get_task, known_tasks

    settings = load_settings(arguments.params)
    known = known_tasks(settings.own_tasks, arguments.params.parent)
    conversions = {target: get_task(target, known).conversion for target in arguments.target}
    folders = {target: arguments.adapters / target for target in arguments.target}
    for target in arguments.target:
        if folders[target].is_dir() and not (arguments.data / target).is_dir():
            raise ArtifactError(
                f"{arguments.data / target}: no such folder; list {target} in tasks.targets again and run `dvc repro`, "
                f"or take its registered model by --model {REGISTERED}..."
            )
    cells = {
        target: folder / arguments.cell if arguments.cell else best_on_validation(folder, settings.models.metric)
        for target, folder in folders.items()
    }
    data = {target: arguments.data / target for target in arguments.target}
    size = settings.evaluate.batch_size
    return load_predictor(arguments.backbone, arguments.experts, cells, data, conversions, batch_size=size)


def of_model(arguments: argparse.Namespace) -> "Predictor":
    """A registered model, or a folder that one was made of."""
    from pemt_core.prediction.model_folder import load_model_folder
    from pemt_core.tracking.models import fetch_version, find_version
    from pemt_core.tracking.store import open_store

    if not arguments.model.startswith(REGISTERED):
        if not Path(arguments.model).is_dir():
            expected = f"expected a model's folder, or {REGISTERED}<name>@<alias>"
            raise ArtifactError(f"--model is '{arguments.model}': no such folder; {expected}")
        return load_model_folder(Path(arguments.model))
    settings = load_settings(arguments.params)
    store = open_store(tracking_uri(settings), settings.tracking.experiment, tracking_dir(arguments.params))
    with TemporaryDirectory() as temporary:
        return load_model_folder(fetch_version(store, find_version(store, arguments.model), Path(temporary)))


def make_parser() -> argparse.ArgumentParser:
    parser = explained(__doc__, "predict")
    parser.add_argument("input", type=Path, help="file with the rows: .csv, .jsonl or .parquet")
    parser.add_argument("--output", type=Path, required=True, help="file to write: .csv, .jsonl or .parquet")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--target",
        nargs="+",
        metavar="TASK",
        help="trained targets; of several, each row's column 'task' names its own",
    )
    what.add_argument("--model", help="models:/<name>@<alias>, models:/<name>/<version>, or a model's folder")
    parser.add_argument("--cell", help="such as pemt-k32-seed31 (default: the target's best on validation)")
    parser.add_argument("--keep", nargs="+", default=[], metavar="COLUMN", help="columns of the input to carry along")
    for name, written in (("adapters", "adapters/targets"), ("data", "data"), ("backbone", ""), ("experts", "")):
        default = Path(written or name)
        parser.add_argument(f"--{name}", type=Path, default=default, help="with --target: its folder (%(default)s)")
    add_params(parser)
    return parser


if __name__ == "__main__":
    run(main, make_parser())
