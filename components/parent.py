"""Processes that end with the one that started them."""

import ctypes
import signal

_SET_PARENT_DEATH_SIGNAL = 1  # of Linux's prctl
_prctl = getattr(ctypes.CDLL(None), "prctl", None)


def end_with_parent() -> None:
    """Have the kernel end this process by SIGTERM if its parent is killed, where the kernel can."""
    if _prctl:
        _prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)
