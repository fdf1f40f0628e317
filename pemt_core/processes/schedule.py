"""How many processes work at a time on a CPU, and with how many threads each.

The number of threads changes the order in which sums are rounded, and training amplifies the difference. So the number
of threads depends on the backbone, never on what else is done. Below `SINGLE_THREADED` parameters every training has
one thread, in this process or in a worker, and its numbers are the same for any number of workers. With a larger
backbone, trainings use all cores one after another, unless workers are asked for; then each has one thread, and its
numbers are the same for any number of workers from two. Predictions follow the same rule, but workers that are asked
for have one thread even if it is one worker. Numbers are reproducible only on equal machines and versions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from pemt_core.errors import SettingsError

# Parameters; on two cores, a tiny T5 trains 1.6 times as fast with two threads, twice as fast with two workers
SINGLE_THREADED = 20_000_000


@dataclass(frozen=True)
class Schedule:
    """How many processes work at a time, and whether each has one thread rather than torch's default."""

    workers: int
    single_threaded: bool

    @classmethod
    def make(cls, asked: int | None, num_trainings: int, num_parameters: int, accelerator: Accelerator) -> "Schedule":
        """The schedule of trainings of a backbone of `num_parameters`; if `asked` is None, as suits the machine.

        Raises SettingsError if `asked` is less than 1, or more than 1 on a GPU or under `accelerate launch`.
        """
        takes_turns = accelerator.device.type != "cpu" or accelerator.num_processes > 1
        _check(asked, "trainings take turns on a GPU or in several processes" if takes_turns else "")
        if takes_turns:
            return cls(1, single_threaded=False)
        small = num_parameters < SINGLE_THREADED
        workers = min(asked or _suitable(num_parameters), max(1, num_trainings))
        return cls(workers, single_threaded=small or workers > 1)

    @classmethod
    def of_predictions(cls, asked: int | None, num_parameters: int, device: torch.device) -> "Schedule":
        """The schedule by which a model of `num_parameters` answers a file, the same file for any number `asked` for.

        Raises SettingsError if `asked` is less than 1, or more than 1 on a GPU.
        """
        on_gpu = device.type != "cpu"
        _check(asked, f"the model is on {device.type}, where one process answers" if on_gpu else "")
        if on_gpu:
            return cls(1, single_threaded=False)
        is_single = asked is not None or num_parameters < SINGLE_THREADED
        return cls(asked or _suitable(num_parameters), single_threaded=is_single)

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Run the block's work in this process with the scheduled number of threads, then restore it."""
        if not self.single_threaded:
            yield
            return
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def usable_cores() -> int:
    """The number of cores that this process may use, by its affinity and its container's quota."""
    from joblib import cpu_count

    return int(cpu_count())


def _suitable(num_parameters: int) -> int:
    return usable_cores() if num_parameters < SINGLE_THREADED else 1


def _check(asked: int | None, one_because: str) -> None:
    """Raise SettingsError unless so many workers are possible; with a reason `one_because`, only one is."""
    if asked is not None and asked < 1:
        raise SettingsError(f"workers is {asked}: expected at least 1")
    if one_because and asked not in (None, 1):
        raise SettingsError(f"workers is {asked}: expected 1, as {one_because}")
