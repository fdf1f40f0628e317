"""How well this machine's processor multiplies the types that weights may have."""

import logging
import time
from functools import cache

import torch

TOO_SLOW = 1.5  # a processor with instructions for bfloat16 is faster in it than in float32
ROWS, WIDTH, REPEATS = 256, 512, 5

logger = logging.getLogger(__name__)


@cache
def warn_if_slow(setting: str) -> None:
    """Log once per process a warning that `setting` asks for bfloat16, if only a CPU without it is here."""
    if not torch.cuda.is_available() and (slowdown := slowdown_of_bfloat16()):
        logger.warning(
            "%s is bfloat16, which this processor multiplies %.1f times as slowly as float32: set float32 if its "
            "memory suffices",
            setting,
            slowdown,
        )


def slowdown_of_bfloat16() -> float | None:
    """How many times as long as in float32 a product takes in bfloat16, or None if the difference does not matter."""
    ratio = _seconds(torch.bfloat16) / _seconds(torch.float32)
    return ratio if ratio > TOO_SLOW else None


def _seconds(dtype: torch.dtype) -> float:
    """The shortest of some products, since other programs may use the processor."""
    rows, weight = torch.ones(ROWS, WIDTH, dtype=dtype), torch.ones(WIDTH, WIDTH, dtype=dtype)
    seconds = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        torch.nn.functional.linear(rows, weight)
        seconds.append(time.perf_counter() - begin)
    return min(seconds)
