"""The progress bar of trainings."""

import sys
from typing import Any

from tqdm import tqdm

LOG_SECONDS, TERMINAL_SECONDS = 15.0, 0.5  # between two updates: a log file gets a line for each


def step_bar(title: str, total: int, done: int = 0, *, shown: bool = True) -> Any:
    """A bar over the optimizer steps of one or more trainings, `done` of which were taken earlier."""
    seconds = TERMINAL_SECONDS if sys.stderr.isatty() else LOG_SECONDS
    return tqdm(total=total, initial=done, desc=title, unit="step", mininterval=seconds, disable=not shown)
