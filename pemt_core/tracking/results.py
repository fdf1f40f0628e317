"""Record results as runs, so that the tracking store shows every cell, whether it was computed here or restored.

`pemt_core.tracking.gather` fetches the results of a cluster run from the store.
"""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from tqdm import tqdm

from pemt_core.artifacts.description import (
    DESCRIPTION,
    LonePromptDescription,
    SourceDescription,
    has_lone_prompt,
    load_description,
    load_training_record,
    lone_prompt_folder,
)
from pemt_core.artifacts.files import read_json, sha256_of_json
from pemt_core.artifacts.result import RESULT_FILE, CellResult, cell_directory
from pemt_core.artifacts.run_info import source_run, target_run
from pemt_core.settings import EvaluateSettings
from pemt_core.tracking import RunRecord, Tracker

SHOWN_PREDICTIONS = 50  # lines of predictions.jsonl that a run shows


def record_results(results: Sequence[CellResult], results_dir: Path, tracker: Tracker, provenance_dir: Path) -> int:
    """Record `results`, whose files are in `results_dir`; return how many runs had to be written or completed."""
    shown = tqdm(results, desc="record results", unit="run")
    return sum(tracker.record(result_record(result, results_dir, provenance_dir)) for result in shown)


def record_sources(adapter_dirs: Sequence[Path], tracker: Tracker, provenance_dir: Path) -> int:
    """Record the source adapters in `adapter_dirs` and the prompts that were trained alone.

    Returns how many runs had to be written or completed.
    """
    records = [source_record(directory, SourceDescription, provenance_dir) for directory in adapter_dirs]
    folders = [lone_prompt_folder(directory) for directory in adapter_dirs if has_lone_prompt(directory)]
    records += [source_record(folder, LonePromptDescription, provenance_dir) for folder in folders]
    return sum(tracker.record(record) for record in records)


def result_record(result: CellResult, results_dir: Path, provenance_dir: Path) -> RunRecord:
    """The run that shows `result`. Final losses are the last points of its curves; see `final_metrics` for the rest."""
    directory = cell_directory(results_dir, result)
    info = target_run(result)
    links = {"pemt.suite": result.suite, "pemt.result_path": directory.as_posix()}
    return RunRecord(
        cell=info.cell,
        key=info.key,
        name=info.name,
        artifact=result.artifact,
        result=result.content_hash(),
        tags={**info.tags, **links, **_commit(provenance_dir / "transfer" / f"{result.task}.json")},
        params={**info.params, "learning_rate": result.learning_rate},
        metrics=final_metrics(result),
        history=result.history,
        files={
            RESULT_FILE: (directory / RESULT_FILE).read_text(encoding="utf-8"),
            **_head(directory / "predictions.jsonl"),
        },
    )


def source_record(
    directory: Path, kind: type[SourceDescription] | type[LonePromptDescription], provenance_dir: Path
) -> RunRecord:
    """The run that shows the source adapter, or the prompt that was trained alone, in `directory`."""
    description, artifact = load_description(directory, kind)
    info, training = source_run(description), load_training_record(directory)
    links = {"pemt.suite": "source", "pemt.adapter_path": directory.as_posix()}
    return RunRecord(
        cell=info.cell,
        key=info.run_key,
        name=info.name,
        artifact=artifact,
        result=artifact,
        tags={**info.tags, **links, **_commit(provenance_dir / "train_source" / f"{description.task}.json")},
        params=info.params,
        metrics={
            **{f"validation/{name}": value for name, value in training.validation.items()},
            "trained_parameters": training.trained_parameters,
        },
        history=training.history,
        files={DESCRIPTION: (directory / DESCRIPTION).read_text(encoding="utf-8")},
    )


def final_metrics(result: CellResult) -> dict[str, float]:
    """The final values under the names that all runs share."""
    return {
        "test/main": result.score,
        **{f"test/{name}": value for name, value in result.test.items()},
        **{f"validation/{name}": value for name, value in result.validation.items()},
        "trained_parameters": result.trained_parameters,
        "unreadable": result.unreadable,
        "test_rows": result.test_rows,
    }


def publish_results(
    results: Sequence[CellResult], results_dir: Path, settings: EvaluateSettings, tracker: Tracker, provenance_dir: Path
) -> None:
    """Record `results`, whose files are in `results_dir`, then store each in its run for `gather`.

    A run keeps one result per settings of evaluate, so that `gather` also finds those of steps taken from a cache.
    """
    record_results(results, results_dir, tracker, provenance_dir)
    for result in results:
        text = (cell_directory(results_dir, result) / RESULT_FILE).read_text(encoding="utf-8")
        tracker.add_file(result.cell.run, result.key, published_name(settings), text)


def published_name(settings: EvaluateSettings) -> str:
    """Name the file, in a run, of the result that was scored with `settings`."""
    return f"result-{sha256_of_json(settings.model_dump())[:12]}.json"


def _head(path: Path) -> dict[str, str]:
    """The first predictions as a file of the run; empty if they were not kept."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8") as lines:
        return {"predictions-head.jsonl": "".join(islice(lines, SHOWN_PREDICTIONS))}


def _commit(provenance_path: Path) -> dict[str, str]:
    """The commit at which a step ran, as a tag; empty if its provenance was not kept."""
    return {"pemt.commit": read_json(provenance_path)["commit"]} if provenance_path.is_file() else {}
