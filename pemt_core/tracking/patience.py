"""Waiting for a file that other processes hold, and the processes that hold it."""

import errno
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeGuard, TypeVar

LONGEST_WAIT = 60.0  # seconds
SILENT_WAIT = 3.0  # seconds, after which the wait is logged
PAUSES = (0.02, 0.25)  # seconds between tries: the first, which doubles up to the last

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error`, then what it was raised from or during. Libraries wrap sqlite's errors several times."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in seen:
        seen.append(cause)
        yield cause
        cause = cause.__cause__ or cause.__context__


def sqlite_code(error: BaseException) -> int | None:
    """Return sqlite's primary result code behind `error`; None if sqlite did not raise it."""
    return next((cause.sqlite_errorcode & 0xFF for cause in causes(error) if is_sqlite(cause)), None)


def is_sqlite(error: BaseException) -> TypeGuard[sqlite3.Error]:
    """Whether sqlite itself raised `error`, which then has a result code."""
    return isinstance(error, sqlite3.Error) and hasattr(error, "sqlite_errorcode")


def is_held(error: BaseException) -> bool:
    """Whether `error` says that another process holds a lock."""
    return sqlite_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or any(
        isinstance(cause, OSError) and cause.errno == errno.EAGAIN for cause in causes(error)
    )


def patiently(path: Path, request: Callable[[], Result]) -> Result:
    """Return the result of `request`, repeated for up to LONGEST_WAIT while another process holds `path`."""
    started, pause, told = time.monotonic(), PAUSES[0], False
    while True:
        try:
            return request()
        except Exception as error:
            waited = time.monotonic() - started
            if not is_held(error) or waited >= LONGEST_WAIT:
                raise
        if waited >= SILENT_WAIT and not told:
            told = True
            logger.warning("%s: waiting, for up to %.0f s: %s holds it", path, LONGEST_WAIT, holder_of(path))
        time.sleep(pause)
        pause = min(2 * pause, PAUSES[1])


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file of `path`, beside it, against other processes of this project; wait for it patiently."""
    beside = path.with_name(f".{path.name}.lock")
    with beside.open("w") as lock:
        patiently(beside, lambda: fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB))
        yield


def holder_of(path: Path) -> str:
    """Name the processes that hold a lock on `path`, as far as the kernel tells: "process 42 (python)"."""
    try:
        stat, table = path.stat(), Path("/proc/locks").read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return "another process"
    file = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}"
    lines = [line.split() for line in table.splitlines() if "->" not in line]  # an arrow marks those that wait
    pids = {fields[4] for fields in lines if len(fields) > 5 and fields[5] == file} - {"0", "-1", str(os.getpid())}
    named = [f"process {pid} ({_program(pid)})" for pid in sorted(pids, key=int)]
    return " and ".join(named) or "another process"


def _program(pid: str) -> str:
    """Return the program's name; its arguments could be secret."""
    try:
        return Path(f"/proc/{pid}/comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "of another container"
