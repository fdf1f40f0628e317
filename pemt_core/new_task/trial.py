"""Try a new task: prepare it, draw its few-shot samples, and read its labels with the backbone's tokenizer."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pemt_core.backbone.text_ids import description_ids
from pemt_core.data.few_shot import few_shot_rows
from pemt_core.data.prepared import PreparedTask
from pemt_core.errors import DataError
from pemt_core.labels import LabelError, check_written
from pemt_core.new_task.tokenizer import tokenizer_at_hand
from pemt_core.preparation import TaskReport, prepare_task
from pemt_core.schema.flow import flow
from pemt_core.settings import Settings
from pemt_core.tasks import Task
from pemt_core.tasks.values import UnlistedLabelError

_MANY_TOKENS = 100  # of a description: T5's authors and ours use prompts of about this length


def try_task(task: Task, settings: Settings, folder: Path, *, inferred_labels: bool = False) -> list[str]:
    """Check that a task can be prepared and trained with `settings`; return notes on what a user should know.

    Args:
        folder: the project's.
        inferred_labels: the labels are those of the training file, for messages.

    Raises:
        DataError: as `prepare_task`, if a class has fewer rows than a k asks for, or if the backbone cannot write a
            label.
    """
    entry = settings.own_tasks[task.name]
    with TemporaryDirectory() as temporary:
        try:
            report, prepared = _prepared(task, settings, Path(temporary) / task.name)
            notes = [*_notes_on_copies(report), *_read_labels(prepared, settings, folder)]
            if task.name in settings.tasks.targets:
                _draw_samples(prepared, settings)
            return notes
        except LabelError as error:
            words = shlex.quote(flow({**(entry.label_words or {}), **error.words}))
            raise DataError(f"{error.problem}; correct the file, or pass --label-words {words}") from error
        except DataError as error:
            if inferred_labels and isinstance(error.__cause__, UnlistedLabelError):
                raise DataError(f"{error}; the labels are the answers in {entry.files.train}") from error
            raise


def _prepared(task: Task, settings: Settings, output_dir: Path) -> tuple[TaskReport, PreparedTask]:
    with _without_progress_bars():
        report = prepare_task(
            task,
            source=settings.prepare.source,
            embedded_seed=settings.prepare.embedded_seed,
            split_seed=settings.prepare.split_seed,
            max_rows=settings.prepare.max_rows.model_dump(),
            output_dir=output_dir,
        )
    return report, PreparedTask.load(output_dir)


def _notes_on_copies(report: TaskReport) -> list[str]:
    """How many rows to score have a text that is trained on, as when two splits have the same file."""
    counts = {role: report.duplicates.get(f"train/{role}", 0) for role in ("validation", "test")}
    found = [f"{count} of {report.splits[role].rows} rows of {role}" for role, count in counts.items() if count]
    return [f"{' and '.join(found)} have the text of a training row: their scores say little"] if found else []


def _draw_samples(prepared: PreparedTask, settings: Settings) -> None:
    """Draw the sample of every k; whether that is possible does not depend on the seed."""
    task, targets = prepared.task, prepared.rows("train")["target"].to_pylist()
    cells = settings.transfer_for(task.name)
    for rare_class in {method.rare_class for method in settings.methods_for(task.name).values()}:
        for k in cells.k:
            if k != "full":
                try:
                    few_shot_rows(
                        targets, task.labels, k, 0, rare_class=rare_class, task=task.name, shown=task.shown
                    )  # fmt: skip
                except DataError as error:
                    remedy = "for example --differences '{k: [full]}' or --differences '{rare_class: all}'"
                    raise DataError(f"{error}, {remedy}") from error


def _read_labels(prepared: PreparedTask, settings: Settings, folder: Path) -> list[str]:
    tokenizer = tokenizer_at_hand(settings.backbone, folder)
    if tokenizer is None:
        return ["`prepare` will check the labels with the backbone's tokenizer"] if prepared.task.labels else []
    check_written(prepared.task, tokenizer)
    num_tokens = len(description_ids(tokenizer, prepared.task.description))
    many = f"the description has {num_tokens} tokens, each of which is one of the prompt: a sentence is enough"
    return [many] if num_tokens > _MANY_TOKENS else []


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    import datasets

    were_disabled: Any = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not were_disabled:
            datasets.enable_progress_bars()
