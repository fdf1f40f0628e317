"""What stage 1 took: processor seconds of every training, kept by the content hash of what it made.

    <folder>/<hash of the tensors>.json              of a finished training
    <folder>/<hash of settings and inputs>.json      of one in progress; without a number, a kill lost what it took

A source that is taken from the finished trainings keeps its seconds if an experiment trained it; else it has none.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pemt_core.artifacts.description import DESCRIPTION
from pemt_core.artifacts.files import read_record, sha256_of_json, write_record
from pemt_core.artifacts.finished import FOLDER
from pemt_core.artifacts.run_info import ARTIFACT_TAG, RunInfo
from pemt_core.errors import ArtifactError
from pemt_core.training.run import OpenRun, Run

SECONDS = "seconds"
REMEDY = "remove it: the time of a training in stage 1 is then unknown"


@dataclass(frozen=True)
class SourceSeconds:
    """The times of stage 1 in a folder."""

    folder: Path

    def of(self, artifact: str) -> float | None:
        """The processor seconds, over all threads and interruptions, of the training that made it; None: unknown."""
        return _read(self.folder / f"{artifact}.json", None)

    def watched(self, open_run: OpenRun, made_of: Mapping[str, object], checkpoints: Path) -> OpenRun:
        """`open_run`, but the time between its opening and its end is kept. `made_of` tells a training from others."""

        @contextmanager
        def opened(info: RunInfo) -> Iterator[Run]:
            part = self.folder / f"{sha256_of_json([info.cell, made_of])}.json"
            before, earlier, tags = _finished(checkpoints), _read(part, 0.0), dict[str, str]()
            write_record(part, {SECONDS: None})
            begin = time.process_time()
            try:
                with open_run(info) as run:
                    yield _Tagged(run, tags)
            finally:
                seconds = None if earlier is None else round(earlier + time.process_time() - begin, 2)
                self._keep(part, seconds, tags.get(ARTIFACT_TAG), _finished(checkpoints) - before)

        return opened

    def _keep(self, part: Path, seconds: float | None, artifact: str | None, new: set[Path]) -> None:
        if artifact is None:  # the training goes on another time
            write_record(part, {SECONDS: seconds})
            return
        part.unlink()
        if seconds is not None and artifact in map(_tensors_of, new):  # not taken from the finished trainings
            write_record(self.folder / f"{artifact}.json", {SECONDS: seconds})


@dataclass(frozen=True)
class _Tagged:
    """A run whose tags are copied to `tags`."""

    run: Run
    tags: dict[str, str]

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(step, metrics)

    def tag(self, tags: Mapping[str, str]) -> None:
        self.tags.update(tags)
        self.run.tag(tags)

    def flush(self) -> None:
        self.run.flush()


def _read(path: Path, default: float | None) -> float | None:
    """The number in a file; the default without the file, None if it has none."""
    if not path.is_file():
        return default
    try:
        found: float | None = read_record(path, REMEDY).get(SECONDS)
    except ArtifactError:
        return None
    return found


def _finished(checkpoints: Path) -> set[Path]:
    return set((checkpoints / FOLDER).glob("[!.]*"))


def _tensors_of(finished: Path) -> str:
    """The content hash of the tensors that a finished training made; empty if it is gone again."""
    try:
        values: dict[str, Any] = read_record(finished / DESCRIPTION, REMEDY)
        return str(values["tensors"]["sha256"])
    except (ArtifactError, KeyError, TypeError):
        return ""
