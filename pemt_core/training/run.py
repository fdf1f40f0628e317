"""The run of a training, which shows its progress and which a tracking server may keep."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from pemt_core.artifacts.run_info import RunInfo


class Run(Protocol):
    """A run in progress."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add one point to the curve of each metric."""

    def tag(self, tags: Mapping[str, str]) -> None:
        """Set tags."""

    def flush(self) -> None:
        """Have the points written, as after a checkpoint; this waits briefly, if at all."""


OpenRun = Callable[[RunInfo], AbstractContextManager[Run]]


class SilentRun:
    """A run that records nothing, for all processes but the main one."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        pass

    def tag(self, tags: Mapping[str, str]) -> None:
        pass

    def flush(self) -> None:
        pass


@contextmanager
def run_of(info: RunInfo, open_run: OpenRun, is_main: bool) -> Iterator[Run]:
    """Open a run by `open_run` in the main process, and a silent one in the others."""
    if not is_main:
        yield SilentRun()
        return
    with open_run(info) as run:
        yield run


@contextmanager
def silent_runs(info: RunInfo) -> Iterator[Run]:
    """Open a run that records nothing."""
    yield SilentRun()
