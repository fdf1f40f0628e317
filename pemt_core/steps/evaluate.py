"""evaluate: score every cell of the given targets on the test split, answered by the rule in the settings.

One process scores all targets, on a CPU with workers. It skips a cell whose stored result comes from the same adapter,
data, settings and code, so DVC keeps this step's output when it runs the step again (`persist`).
"""

import json
import logging
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from tqdm import tqdm

from pemt_core.answering.rule import rule_for
from pemt_core.answering.split import EvaluationSplit, Predictions, predict
from pemt_core.artifacts.adapter import TENSORS, Adapter
from pemt_core.artifacts.cell import Cell
from pemt_core.artifacts.description import (
    DESCRIPTION,
    TRAINING,
    TargetDescription,
    load_description,
    load_training_record,
    trained_cells,
)
from pemt_core.artifacts.experts import ExpertBank, load_experts
from pemt_core.artifacts.files import atomic_directory, read_record, sha256_of_file, sha256_of_json, write_record
from pemt_core.artifacts.result import STACKS, CellResult, cell_directory, load_results
from pemt_core.artifacts.staging import recover
from pemt_core.artifacts.target import check_cell, load_target, restore_target
from pemt_core.backbone.store import Backbone, load_backbone
from pemt_core.data.prepared import PreparedTask
from pemt_core.errors import ArtifactError
from pemt_core.methods import stored_method
from pemt_core.metrics import count_unreadable
from pemt_core.processes.forked import forked_workers
from pemt_core.processes.schedule import Schedule
from pemt_core.provenance.code import code_hash
from pemt_core.settings import EvaluateSettings
from pemt_core.training.accelerator import make_accelerator

logger = logging.getLogger(__name__)

PREDICTIONS = "predictions.jsonl"
KILLED = "a worker was killed, perhaps for lack of memory; the cells that are scored are kept. Ask for fewer workers"
KEY = "inputs.json"  # beside result.json: the hashes of its inputs, and of the predictions


def evaluate(
    target_dirs: Mapping[str, Path],
    data_dir: Path,
    backbone_dir: Path,
    experts_dir: Path,
    settings: EvaluateSettings,
    *,
    output_dir: Path,
    cells: Collection[Cell] | None = None,
    keep_others: bool = False,
    workers: int | None = None,
) -> list[str]:
    """Score the cells in each target's folder, into result.json and predictions.jsonl of `output_dir`/<target>/<cell>.

    Results of other targets and cells are removed unless `keep_others`. Returns the cells that this call scored.

    Args:
        cells: the cells to score, of these targets; None: all that are trained.
        workers: how many cells are scored at a time (None: as many as suit the machine);
            `pemt_core.processes.schedule` explains when the numbers do not depend on it.

    Raises:
        ArtifactError: a listed cell, or every cell of a target, is not trained; or a worker was killed.
        SettingsError: the machine cannot run `workers`.
    """
    accelerator = make_accelerator(settings.precision)
    backbone = load_backbone(backbone_dir)
    evaluation = _Evaluation(backbone, load_experts(experts_dir, backbone), settings, accelerator)
    if accelerator.is_main_process:
        recover(output_dir)
        if not keep_others:
            _remove_others(output_dir, list(target_dirs))
    to_score = []
    for target, target_dir in target_dirs.items():
        prepared = PreparedTask.load(data_dir / target, target)
        data_hash = prepared.content_hash()
        found = _cells_of(target, target_dir, cells)
        if accelerator.is_main_process:
            recover(output_dir / target)
            if not keep_others:
                _remove_others(output_dir / target, [path.name for path in found])
        accelerator.wait_for_everyone()
        missing = [
            each for path in found if (each := evaluation.scoring(path, prepared, data_hash, output_dir / target))
        ]
        logger.info("evaluate %s: %d of %d cells to score", target, len(missing), len(found))
        to_score += missing
    evaluation.score(to_score, workers)
    return [f"{each.prepared.task.name}/{each.cell_dir.name}" for each in to_score]


def _cells_of(target: str, target_dir: Path, listed: Collection[Cell] | None) -> list[Path]:
    """The folders of a target's trained cells, or of those that are listed."""
    trained = trained_cells(target_dir)
    if not trained:
        raise ArtifactError(f"{target_dir}: has no trained cell; the transfer step has not run for '{target}'")
    if listed is None:
        return trained
    names = {cell.name for cell in listed if cell.task == target}
    if missing := sorted(names - {path.name for path in trained}):
        raise ArtifactError(f"{target_dir / missing[0]}: is not trained; run the transfer step for '{target}'")
    return [path for path in trained if path.name in names]


def final_scores(output_dir: Path) -> dict[str, float]:
    """The main metric in points of every cell below `output_dir`, by target and cell."""
    return {
        f"{result.task}/{cell_directory(output_dir, result).name}": result.score for result in load_results(output_dir)
    }


@dataclass(frozen=True)
class _Scoring:
    """A cell to score: its folder, its task's data, and the inputs that its result is kept for."""

    cell_dir: Path
    prepared: PreparedTask
    data_hash: str
    output_dir: Path
    key: Mapping[str, str]


@dataclass(frozen=True)
class _Evaluation:
    """What all cells share."""

    backbone: Backbone
    bank: ExpertBank
    settings: EvaluateSettings
    accelerator: Accelerator

    def scoring(self, cell_dir: Path, prepared: PreparedTask, data_hash: str, output_dir: Path) -> _Scoring | None:
        """What scoring a cell takes; None if its result is up to date."""
        key = self._key(cell_dir, data_hash)
        if _holds_result(output_dir / cell_dir.name, key):
            return None
        return _Scoring(cell_dir, prepared, data_hash, output_dir / cell_dir.name, key)

    def score(self, to_score: Sequence[_Scoring], workers: int | None) -> None:
        """Score cells, several at a time if the machine suits."""
        shares = self.accelerator.num_processes > 1
        model = self.backbone.model
        asked = None if shares else workers
        schedule = Schedule.of_predictions(asked, model.num_parameters(), self.accelerator.device)
        workers = 1 if shares else min(schedule.workers, len(to_score))
        title = {"desc": "evaluate", "unit": "cell", "disable": not (to_score and self.accelerator.is_main_process)}
        if workers < 2:
            with schedule.threads():
                for each in tqdm(to_score, **title):
                    self._score(each)
            return

        def score(place: int) -> None:
            self._score(to_score[place])

        with forked_workers(score, workers, killed=ArtifactError(KILLED)) as forked:
            calls = [forked.start(place) for place in range(len(to_score))]
            for call in tqdm(calls, **title):
                forked.end(call)

    def _score(self, scoring: _Scoring) -> None:
        cell_dir, prepared = scoring.cell_dir, scoring.prepared
        adapter = load_target(cell_dir, prepared.task.name, self.backbone, self.bank)
        rows = prepared.rows("test")
        split = EvaluationSplit.of(
            prepared.task,
            rows,
            self.backbone.tokenizer,
            source_length=adapter.description.settings["source_length"],
            max_rows=self.settings.max_rows,
        )
        predictions = self._predict(adapter, split)
        if self.accelerator.is_main_process:
            facts = self._facts(cell_dir, adapter, prepared, scoring.data_hash)
            result = CellResult(**facts, **_scores(prepared, split, predictions), test_rows_available=rows.num_rows)
            with atomic_directory(scoring.output_dir) as folder:
                result.save(folder)
                _write_predictions(folder / PREDICTIONS, split, rows.slice(0, len(split))["source"], predictions)
                write_record(folder / KEY, {**scoring.key, "predictions": sha256_of_file(folder / PREDICTIONS)})
        self.accelerator.wait_for_everyone()

    def _key(self, cell_dir: Path, data_hash: str) -> dict[str, str]:
        description, _ = load_description(cell_dir, TargetDescription)
        check_cell(cell_dir, description)
        method = stored_method(description.settings, str(cell_dir / DESCRIPTION))
        return {
            "adapter": sha256_of_file(cell_dir / TENSORS),
            "description": sha256_of_file(cell_dir / DESCRIPTION),
            "training": sha256_of_file(cell_dir / TRAINING),
            "data": data_hash,
            "backbone": self.backbone.fingerprint,
            "experts": description.experts,
            "settings": sha256_of_json(self.settings.model_dump()),
            "code": code_hash(__name__, *method.code),
        }

    def _predict(self, adapter: Adapter[TargetDescription], split: EvaluationSplit) -> Predictions:
        with restore_target(self.backbone.model, adapter, self.bank) as model:
            return predict(
                model.to(self.accelerator.device),
                split,
                self.backbone.tokenizer,
                self.accelerator,
                rule=self.settings.answer,
                batch_size=self.settings.batch_size,
            )

    def _facts(
        self, cell_dir: Path, adapter: Adapter[TargetDescription], prepared: PreparedTask, data_hash: str
    ) -> dict[str, Any]:
        """The facts about a cell in its result."""
        description, record = adapter.description, load_training_record(cell_dir)
        return {
            "task": description.task,
            "suite": prepared.task.suite,
            "method": description.method,
            "k": description.k,
            "seed": description.seed,
            "learning_rate": record.learning_rate,
            "answer": rule_for(prepared.task.labels, self.settings.answer),
            "validation": record.validation,
            "trained_parameters": record.trained_parameters,
            "sources": description.sources,
            "artifact": adapter.content_hash,
            "key": description.key,
            "data": data_hash,
            "backbone": description.backbone,
            "settings": description.settings,
            "history": record.history,
        }


def _holds_result(directory: Path, key: Mapping[str, str]) -> bool:
    """Whether a folder holds, whole and unaltered, the result of these inputs."""
    if not (directory / KEY).is_file():
        return False
    try:
        CellResult.load(directory)
        found = sha256_of_file(directory / PREDICTIONS)
        return read_record(directory / KEY, "") == {**key, "predictions": found}
    except (ArtifactError, OSError):
        return False


def _scores(prepared: PreparedTask, split: EvaluationSplit, predictions: Predictions) -> dict[str, Any]:
    """The facts about the test in a result."""
    metrics = prepared.task.metrics
    return {
        "main_metric": metrics[0],
        "test": split.metrics(predictions.texts),
        "unreadable": count_unreadable(metrics, split.scored(predictions.texts)),
        "test_rows": len(split),
        "expert_weights": _by_stack({name: list(map(float, w)) for name, w in predictions.expert_weights.items()}),
        "gates": _by_stack({name: asdict(gate) for name, gate in predictions.gates.items()}),
    }


def _by_stack(layers: Mapping[str, Any]) -> dict[str, list[Any]] | None:
    """Values of layers, such as "encoder.0", as a list per stack; None for a model without experts.

    They are those of the feed-forwards: any other linear layer with experts has a longer name, and is left out.
    """
    if not layers:
        return None
    stacks: dict[str, list[Any]] = {stack: [] for stack in STACKS}
    of_layers = [(*name.split("."), value) for name, value in layers.items() if name.count(".") == 1]
    for stack, _, value in sorted(of_layers, key=lambda each: int(each[1])):
        stacks[stack].append(value)
    return {stack: values for stack, values in stacks.items() if values}


def _write_predictions(path: Path, split: EvaluationSplit, sources: Any, predictions: Predictions) -> None:
    shown = split.task.shown_as
    with path.open("w", encoding="utf-8") as file:
        for row_id, source, prediction, references in zip(
            split.ids, sources.to_pylist(), predictions.texts, split.references, strict=True
        ):
            answers = {"prediction": shown(prediction), "references": [shown(answer) for answer in references]}
            row = {"id": row_id, "text": source, **answers}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _remove_others(directory: Path, kept: Sequence[str]) -> None:
    """Remove every folder in `directory` that is not in `kept`."""
    for path in directory.iterdir() if directory.is_dir() else []:
        if path.is_dir() and path.name not in kept:
            shutil.rmtree(path)
