"""prepare: turn the datasets of all tasks into text pairs, a corpus, a tokenizer and statistics."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pemt_core.artifacts.files import atomic_directory, write_json
from pemt_core.backbone.tokenizer import obtain_tokenizer
from pemt_core.data.corpus import CorpusText
from pemt_core.data.prepared import load_task_description
from pemt_core.embedded.text import plain_text
from pemt_core.labels import check_written
from pemt_core.preparation import (
    TaskReport,
    prepare_joint,
    prepare_task,
    resolve_revisions,
    token_lengths,
    write_corpus,
    write_pins,
)
from pemt_core.settings import EMBEDDED, PrepareSettings, TokenizerSettings
from pemt_core.tasks import JOINT, Task

logger = logging.getLogger(__name__)


def prepare(
    tasks: Sequence[Task],
    settings: PrepareSettings,
    tokenizer_settings: TokenizerSettings,
    *,
    joined: Sequence[str] = (),
    output_dir: Path,
) -> dict[str, Any]:
    """Write <task>/, corpus.parquet, tokenizer/ and statistics.json to `output_dir`, which replaces an earlier folder.

    If `joined` names tasks, joint/ has their rows together; corpus and tokenizer do not depend on it. The folder is
    written whole or not at all: after an error, the earlier data is unchanged.

    Returns, by task, the commit that was read or the hash of the user's files.

    statistics.json has counts of rows and labels, quantiles of lengths in tokens, content hashes and dropped rows.
    """
    with atomic_directory(output_dir) as folder:
        reports = _prepare_all(tasks, settings, tokenizer_settings, joined, folder)
    return {name: report.revision for name, report in reports.items() if report.revision}


def _prepare_all(
    tasks: Sequence[Task],
    settings: PrepareSettings,
    tokenizer_settings: TokenizerSettings,
    joined: Sequence[str],
    output_dir: Path,
) -> dict[str, TaskReport]:
    """Write everything to an empty folder."""
    reports = {}
    for number, task in enumerate(tasks, start=1):
        logger.info("prepare %d/%d: %s", number, len(tasks), task.name)
        reports[task.name] = prepare_task(
            task,
            source=settings.source,
            embedded_seed=settings.embedded_seed,
            split_seed=settings.split_seed,
            max_rows=settings.max_rows.model_dump(),
            output_dir=output_dir / task.name,
        )
    corpus_path = output_dir / "corpus.parquet"
    folders = [output_dir / task.name for task in tasks]
    num_texts = write_corpus(folders, settings.corpus_rows_per_task, corpus_path, _plain_text(settings))
    logger.info("prepare: a corpus of %d texts", num_texts)
    names = [task.name for task in tasks]
    tokenizer = prepare_tokenizer(names, tokenizer_settings, output_dir, output_dir / "tokenizer")
    if joined:
        reports[JOINT] = prepare_joint(
            [output_dir / name for name in joined],
            source=settings.source,
            split_seed=settings.split_seed,
            output_dir=output_dir / JOINT,
        )
        folders = [*folders, output_dir / JOINT]
    lengths = token_lengths(folders, tokenizer)
    # The origin of the data belongs to provenance: moving a mirror changes nothing here
    statistics = {
        name: {key: value for key, value in report.as_json().items() if key not in ("source", "revision")}
        | {"tokens": lengths[name]}
        for name, report in reports.items()
    }
    write_json(output_dir / "statistics.json", statistics)
    return reports


def prepare_tokenizer(tasks: Sequence[str], settings: TokenizerSettings, data_dir: Path, output_dir: Path) -> Any:
    """Write the tokenizer of a backbone for the prepared `tasks` in `data_dir`, and return it.

    Raises an error if it cannot write a label of theirs.
    """
    descriptions = [load_task_description(data_dir / name) for name in tasks]
    texts = [text for each in descriptions for text in (each.description, *(each.labels or ()))]
    tokenizer = obtain_tokenizer(settings, data_dir / "corpus.parquet", texts)
    for description in descriptions:
        check_written(description, tokenizer)
    tokenizer.save_pretrained(output_dir)
    return tokenizer


def _plain_text(settings: PrepareSettings) -> list[CorpusText]:
    """Text of the embedded world; other sources have none."""
    return plain_text(settings.embedded_seed, settings.plain_texts) if settings.source == EMBEDDED else []


def pin(tasks: Sequence[Task]) -> None:
    """Pin the newest commit of every dataset that `tasks` read, in revisions.json beside the records of tasks."""
    revisions = resolve_revisions(tasks)
    write_pins(revisions)
    for repository, commit in revisions.items():
        logger.info("pinned %s at %s", repository, commit)
