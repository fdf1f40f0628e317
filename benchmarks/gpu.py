"""Measure training and answering on a GPU, in at most eight minutes; prints one JSON document.

    python benchmarks/gpu.py [--small]

A backbone of t5-base's shape with random weights, six sources of rank 64, batches of 32 rows with 256 positions. Each
part has a time limit of its own, and its result is either `value` or `error`, so that a failing part loses no other.
Without a GPU, `--small` runs everything on the CPU with tiny sizes, which shows only that it works.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from gpu_parts import PARTS, Setting

MOST_SECONDS = 480


class OutOfTimeError(Exception):
    """A part took longer than it may."""


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTimeError in the block after some seconds."""

    def stop(*_: Any) -> None:
        raise OutOfTimeError(f"it took more than {seconds:.0f} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(part: Callable[[Setting], Any], setting: Setting, seconds: float) -> dict[str, Any]:
    """The part's value or its error, and the seconds that it took."""
    start = time.perf_counter()
    try:
        with limit(seconds):
            found = {"value": part(setting)}
    except Exception as error:  # of any kind: the other parts are still to run
        found = {"error": f"{type(error).__name__}: {error}"}
    if setting.device == "cuda":
        torch.cuda.empty_cache()
    return {**found, "seconds": round(time.perf_counter() - start, 2)}


def report(
    setting: Setting, parts: dict[str, tuple[int, Callable[[Setting], Any]]], most_seconds: float
) -> dict[str, Any]:
    """The outcome of every part; those at the end get what is left of `most_seconds`."""
    start, found = time.perf_counter(), {}
    for name, (seconds, part) in parts.items():
        found[name] = outcome(part, setting, min(seconds, most_seconds - (time.perf_counter() - start)))
        print(f"{name}: {found[name]['seconds']} s", file=sys.stderr)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny sizes on the CPU")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    arguments = parser.parse_args()
    if not arguments.small and not torch.cuda.is_available():
        parser.error("there is no GPU: `--small` runs on the CPU")
    setting = Setting.of("cpu" if arguments.small else "cuda", small=arguments.small)
    found = report(setting, {name: PARTS[name] for name in arguments.parts}, MOST_SECONDS)
    print(json.dumps({"small": arguments.small, "parts": found}, indent=2))
    return int(any("error" in part for part in found.values()))


if __name__ == "__main__":
    sys.exit(main())
