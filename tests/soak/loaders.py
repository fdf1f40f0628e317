"""Everything that reads what people or machines may have spoiled: a trial makes an input and reads it.

A trial writes its input to a folder and reads it as the product does; only a PemtError may leave.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from pemt_core.artifacts.description import SourceDescription, TargetDescription, load_description, load_training_record
from pemt_core.artifacts.files import read_json
from pemt_core.artifacts.result import CellResult
from pemt_core.backbone.description import recorded_fingerprint
from pemt_core.data.prepared import load_task_description
from pemt_core.prediction.files import predict_file
from pemt_core.prediction.model_folder import read_model_description
from pemt_core.settings import load_settings, parse_run, steps as step_settings
from pemt_core.settings.groups import TrackingSettings
from pemt_core.settings.steps import read_step
from pemt_core.steps.plan import make_plan
from pemt_core.tasks.files import column_names, read_records, read_rows
from soak import tensors
from soak.ground import Ground
from soak.mutation import as_json, hostile, mutated_bytes, mutated_value
from soak.tables import requests, rows_of, write_table

Trial = Callable[[Ground, Path, Random], object]


@dataclass(frozen=True)
class Loader:
    """A reader, the share of the inputs that it gets, and how one is made and read."""

    share: int
    trial: Trial


# Rows


def user_rows(ground: Ground, folder: Path, random: Random) -> None:
    path = write_table(folder, random, rows_of(random))
    if random.random() < 0.5:
        column_names(path)
    columns = random.choice((None, ("text",), ("text", "label"), ("absent",)))
    with closing(
        read_records(path, columns) if random.random() < 0.5 else read_rows(path, columns or ("label",))
    ) as rows:
        list(islice(rows, 100))


def user_task(ground: Ground, folder: Path, random: Random) -> None:
    """The command that makes a task of a file."""
    from components.add_task import main, make_parser

    shutil.copyfile(ground.folder / "params.yaml", folder / "params.yaml")
    shutil.copytree(ground.folder / "recipes", folder / "recipes")
    path = write_table(folder, random, rows_of(random, most=60))
    words = [
        str(path.resolve()),
        "--name",
        "mine",
        "--target",
        random.choice(("label", "label", "text", "id", "labell")),
    ]
    words += ["--params", str(folder / "params.yaml")]
    options = (
        ["--text", "text"], ["--text", "a=text", "id"], ["--free-text"], ["--free-text", "--metrics", "pearson"],
        ["--labels", "red", "blue"], ["--labels", "red", str(hostile(random))[:100]], ["--id", "id"], ["--source"],
        ["--description", str(hostile(random))[:9_000]], ["--differences", "{k: [full]}"], ["--only"],
        ["--differences", str(hostile(random))[:200]], ["--metrics", "f1", "x"], ["--name", str(hostile(random))[:60]],
    )  # fmt: skip
    for option in random.sample(options, k=random.randint(0, 3)):
        words += [word if not word.startswith("-") or word in FLAGS else f" {word}" for word in option]
    try:
        arguments = make_parser().parse_args(words)
    except SystemExit:  # wrong usage
        return
    main(arguments)
    load_settings(folder / "params.yaml")


FLAGS = (
    "--text", "--free-text", "--metrics", "--labels", "--id", "--source", "--description", "--differences", "--only",
    "--name",
)  # fmt: skip


def rows_to_predict(ground: Ground, folder: Path, random: Random) -> None:
    rows = [{"task": random.choice(("cb", "rte")), **row} for row in rows_of(random, most=5)]
    path = write_table(folder, random, rows if random.random() < 0.9 else rows_of(random))
    keep = random.choice(((), ("id",), ("label", "id"), ("absent",)))
    output = folder / f"out.{random.choice(('csv', 'jsonl', 'parquet'))}"
    predict_file(ground.predictor, path, output, keep=keep)


def served_rows(ground: Ground, folder: Path, random: Random) -> None:
    """What a client sends; MLflow's own exception is the documented answer."""
    from mlflow.exceptions import MlflowException

    from pemt_core.prediction.served import ServedModel

    rows = requests(random, [{"task": "cb", "text": "red"}, {"task": "rte", "source": "text: blue"}])
    (folder / "request.json").write_bytes(as_json(rows, random))
    try:
        ServedModel(ground.predictor).predict(rows if isinstance(rows, list) else [rows])
    except MlflowException as error:
        if error.get_http_status_code() != 400:
            raise


# Settings


def params_file(ground: Ground, folder: Path, random: Random) -> None:
    """params.yaml and its recipe as files."""
    (folder / "recipes").mkdir()
    names = ["params.yaml", "recipes/demo.yaml"]
    for name in names:
        shutil.copyfile(ground.folder / name, folder / name)
    name = random.choice((*names[:1] * 3, names[1]))
    original = ground.folder / name
    if random.random() < 0.5:
        (folder / name).write_bytes(mutated_bytes(original.read_bytes(), random))
    else:
        values = ground.params["recipes"]["demo"] if name != names[0] else _without_recipes(ground.params)
        (folder / name).write_bytes(as_json(mutated_value(values, random), random))
    make_plan(load_settings(folder / "params.yaml"), folder)


def _without_recipes(params: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in params.items() if key != "recipes"}


def run_of_a_cluster(ground: Ground, folder: Path, random: Random) -> None:
    """params.yaml as a run on a cluster passes it."""
    run = {"params": ground.params, "choices": {"recipe": "demo", "targets": ["cb"], "k": [4], "seeds": [1]}}
    content = as_json(mutated_value(run, random), random)
    (folder / "run.json").write_bytes(content)
    make_plan(parse_run(content.decode("utf-8", "surrogateescape")), folder)


KINDS = {
    "prepare": step_settings.Prepare, "backbone": step_settings.Backbone, "transfer/cb": step_settings.Transfer,
    "train_source/mnli": step_settings.TrainSource, "collect_experts": step_settings.CollectExperts,
    "evaluate": step_settings.Evaluate, "record": step_settings.Record, "register": step_settings.Register,
    "report": step_settings.Report, "tracking": TrackingSettings,
}  # fmt: skip


def step_file(ground: Ground, folder: Path, random: Random) -> None:
    """The settings of a step, as a file and as text."""
    name = random.choice(list(KINDS))
    value = mutated_value(json.loads((ground.folder / f"plan/{name}.json").read_text()), random)
    path = folder / "step.json"
    path.write_bytes(as_json(value, random))
    given = str(path) if random.random() < 0.5 else path.read_bytes().decode("utf-8", "surrogateescape")
    settings: Any = read_step(KINDS[name], given if len(given) < 200_000 else str(path), "x")
    if isinstance(settings, step_settings.Transfer):
        for cell in settings.cells:
            settings.method(cell.method)


# Descriptions


def _document(name: str, read: Callable[[Path], object], place: Callable[[Ground], Path]) -> Trial:
    """A trial of one JSON file, alone in its folder."""

    def trial(ground: Ground, folder: Path, random: Random) -> None:
        original = (place(ground) / name).read_bytes()
        changed = random.random() < 0.5
        content = (
            as_json(mutated_value(json.loads(original), random), random) if changed else mutated_bytes(original, random)
        )
        (folder / name).write_bytes(content)
        read(folder)

    return trial


def any_json(ground: Ground, folder: Path, random: Random) -> None:
    path = folder / "x.json"
    path.write_bytes(
        as_json(hostile(random), random) if random.random() < 0.5 else mutated_bytes(b'{"a": [1]}', random)
    )
    read_json(path)


# Everything together


def _cell_folder(ground: Ground) -> Path:
    return ground.cell("cb")


LOADERS: Mapping[str, Loader] = {
    "rows": Loader(30, user_rows),
    "rows to predict": Loader(4, rows_to_predict),
    "served rows": Loader(2, served_rows),
    "add-task": Loader(2, user_task),
    "params.yaml": Loader(6, params_file),
    "--run": Loader(4, run_of_a_cluster),
    "step settings": Loader(16, step_file),
    "any JSON": Loader(3, any_json),
    "adapter.json of a cell": Loader(
        3, _document("adapter.json", lambda d: load_description(d, TargetDescription), _cell_folder)
    ),
    "adapter.json of a source": Loader(
        3,
        _document(
            "adapter.json", lambda d: load_description(d, SourceDescription), lambda g: g.folder / "adapters/alpha"
        ),
    ),
    "training.json": Loader(3, _document("training.json", load_training_record, _cell_folder)),
    "result.json": Loader(4, _document("result.json", CellResult.load, lambda g: g.score("cb"))),
    "task.json": Loader(3, _document("task.json", load_task_description, lambda g: g.folder / "data/cb")),
    "experts.json": Loader(3, tensors.expert_manifest),
    "model.json": Loader(3, _document("model.json", read_model_description, lambda g: g.folder / "model")),
    "backbone.json": Loader(2, _document("backbone.json", recorded_fingerprint, lambda g: g.folder / "backbone")),
    "patterns of a LoRA": Loader(3, tensors.lora_patterns),
    "LoRA": Loader(4, tensors.imported_lora),
    "tensors of a cell": Loader(3, tensors.adapter_tensors),
    "tensors of experts": Loader(2, tensors.expert_tensors),
    "training state": Loader(4, tensors.training_state),
    "backbone": Loader(2, tensors.backbone_folder),
    "prepared task": Loader(4, tensors.prepared_task),
}
