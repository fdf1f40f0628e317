"""What a training takes in this process: processor time and memory."""

import ctypes
import os
import time
from contextlib import suppress
from pathlib import Path

import torch

STATM = Path("/proc/self/statm")
MIB = 2**20


class Meter:
    """Processor time and peak memory from its creation on.

    The time is that of this process, over all threads. The memory on a GPU is the peak of what torch allocates there.
    On a CPU it is the most that the process takes beyond what it had at the start, without the pages of files: what
    training adds to a loaded model. It is read when `sample` is called, and is 0 where the system does not tell it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._since = device, time.process_time()
        self._start = self._peak = 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            _release_free_memory()
            self._start = _private_bytes()

    def sample(self) -> None:
        """Take the present memory into account. To be called where it is likely to be at its peak."""
        if self._device.type == "cuda":
            self._peak = torch.cuda.max_memory_allocated(self._device)
        else:
            self._peak = max(self._peak, _private_bytes() - self._start)

    def seconds(self) -> float:
        """Processor time since the last call, or since the start."""
        before, self._since = self._since, time.process_time()
        return self._since - before

    @property
    def peak_memory_mib(self) -> int:
        return round(self._peak / MIB)


def _private_bytes() -> int:
    """The memory of this process in use, without the pages of files, which processes share."""
    try:
        _, resident, shared, *_ = STATM.read_bytes().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * os.sysconf("SC_PAGESIZE")


def _release_free_memory() -> None:
    """Return what earlier trainings freed to the system, or their memory would hide that of the next."""
    with suppress(OSError, AttributeError):  # the C library is not glibc
        ctypes.CDLL(None).malloc_trim(0)
