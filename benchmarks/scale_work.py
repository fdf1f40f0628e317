"""The work of the full study on T5-base and the size of its artifacts, for benchmarks/scale.py."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from pemt_core.artifacts.files import read_json
from pemt_core.comparison.scale import Attached, Gpu, Lengths, Shape, Work, generation, rows_of, training
from pemt_core.settings import Settings, parse_settings, read_params
from pemt_core.tasks import get_task

BRANCH_STEPS = ("evaluate", "record", "register")  # after transfer, on a cluster once per target and seed


def works_of(settings: Settings, lengths: Mapping[str, Lengths], gpu: Gpu) -> dict[str, Work]:
    """The work by step and task; `transfer` is one cell with all its learning rates."""
    stage1, found = Attached(1, settings.train_source.rank), {}
    for name in settings.tasks.sources:
        how = settings.train_source_for(name)
        found[f"train_source/{name}"] = training(gpu, "train_source", stage1, lengths[name], rows_of(name), how)
    for name in settings.tasks.targets:
        cell, rows = settings.transfer_for(name), rows_of(name)
        stage2 = Attached(len(settings.tasks.sources), stage1.rank, Shape().d_model // cell.reduction_factor)
        one, rates = training(gpu, "transfer", stage2, lengths[name], rows, cell), len(cell.learning_rates)
        found[f"transfer/{name}"] = Work(*(rates * value for value in vars(one).values()))
        found[f"evaluate/{name}"] = generation(gpu, stage2, lengths[name], rows["test"], settings.evaluate.batch_size)
    return found


def total(works: Mapping[str, Work], seeds: int, what: str = "seconds") -> float:
    return sum(getattr(work, what) * (1 if name.startswith("train_source") else seeds) for name, work in works.items())


def full_study(params: Path, seeds: list[int], more_rates: list[float]) -> Settings:
    """params.yaml with the recipe `paper`, these seeds, and `more_rates` beside the recipe's learning rates."""
    values = read_params(params) | {"recipe": "paper"}
    cells = values["recipes"]["paper"]["transfer"]
    cells |= {"seeds": seeds, "learning_rates": [*cells["learning_rates"], *more_rates]}
    return parse_settings(values, str(params))


def measured_lengths(data: Path, settings: Settings, most_rows: int = 4_000) -> dict[str, Lengths]:
    """Measure a folder that `prepare` wrote. An absent task is taken to be like hotpotqa, but to fill source_length."""
    from pemt_core.backbone.tokenizer import load_tokenizer
    from pemt_core.data.prepared import PreparedTask
    from pemt_core.data.tokenized import tokenize
    from pemt_core.training.task_data import TaskRows

    tokenizer, found = load_tokenizer(str(data / "tokenizer")), {}
    of_step: dict[str, Any] = {name: settings.train_source_for(name) for name in settings.tasks.sources}
    of_step |= {name: settings.transfer_for(name) for name in settings.tasks.targets}
    for name, how in of_step.items():
        task, folder = get_task(name), data / name
        if not folder.is_dir():
            continue
        texts = PreparedTask.load(folder).rows("train").slice(0, most_rows).to_pydict()
        limits = {"source_length": how.source_length, "target_length": task.generation_length}
        split = tokenize(texts["source"], texts["target"], tokenizer, **limits)
        rows = TaskRows(split, np.arange(len(split)), how.training.batch_size, seed=0)
        batches = [rows.collate(batch, 0) for batch in rows.batches(0)]
        source, target = (sum(one[key].numel() for one in batches) / len(split) for key in ("input_ids", "labels"))
        num_bytes = sum(path.stat().st_size for path in folder.glob("*.parquet"))
        num_rows = sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))
        prompt = len(tokenizer(task.description)["input_ids"])
        found[name] = Lengths(source, target, prompt, num_bytes / num_rows)
    absent = {name: how.source_length for name, how in of_step.items() if name not in found}
    return found | {name: replace(found["hotpotqa"], source=length) for name, length in absent.items()}


def provenance_of(folder: Path) -> dict[str, Any]:
    """The provenance that a finished run wrote, by step and task."""
    paths = [*folder.glob("*.json"), *folder.glob("*/*.json")]
    return {path.relative_to(folder).with_suffix("").as_posix(): read_json(path) for path in paths}


def demo_seconds(provenance: Path) -> dict[str, float]:
    """Measured seconds of the demo's steps, by step and task; each of BRANCH_STEPS is split equally over targets."""
    found = {name: run["seconds"] for name, run in provenance_of(provenance).items()}
    targets = [name.removeprefix("transfer/") for name in found if name.startswith("transfer/")]
    return found | {f"{step}/{name}": found[step] / len(targets) for step in BRANCH_STEPS for name in targets}


def tensor_bytes(path: Path) -> int:
    """The bytes of a safetensors file without its header."""
    with path.open("rb") as file:
        return path.stat().st_size - 8 - int.from_bytes(file.read(8), "little")


def predicted_bytes(path: Path, shape: Shape) -> int:
    """The bytes of an adapter's tensors in float32, predicted from the settings in its description."""
    described = read_json(path.with_name("adapter.json"))
    prompt = described["tensors"]["shapes"]["prompt"][0]
    if "scale" in described:  # of a source
        return 4 * shape.source(described["settings"]["rank"], prompt)
    bottleneck = shape.d_model // described["settings"]["reduction_factor"]
    return 4 * shape.target(len(described["sources"]), bottleneck, prompt)
