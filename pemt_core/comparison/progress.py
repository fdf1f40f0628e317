"""The progress of a comparison: a line per stage, and a bar over the cells of all targets."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tqdm import tqdm

from pemt_core.artifacts.run_info import RunInfo
from pemt_core.training.run import OpenRun, Run


def hide_loading() -> None:
    """Show no bar of transformers for each time that the backbone is loaded."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


@dataclass(frozen=True)
class CellBar:
    """A bar that moves when the run of a cell ends; its time left is for all cells."""

    bar: Any

    @classmethod
    @contextmanager
    def over(cls, num_cells: int, title: str) -> "Iterator[CellBar]":
        """Show a bar for `num_cells` cells to train while the block runs; none if there is no cell to train."""
        with tqdm(total=num_cells, desc=title, unit="cell", smoothing=0, disable=not num_cells) as bar:
            yield cls(bar)

    def watched(self, open_run: OpenRun) -> OpenRun:
        """`open_run`, but the end of a run without an error moves the bar."""

        @contextmanager
        def opened(info: RunInfo) -> Iterator[Run]:
            with open_run(info) as run:
                yield run
            self.bar.update()

        return opened
