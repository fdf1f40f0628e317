"""One process at a time trains what a folder of checkpoints belongs to.

The kernel keeps the lock and releases it however the process ends, so it holds across containers and hosts that share a
volume, and a killed process leaves no obstacle.
"""

import errno
import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import TextIO

from pemt_core.errors import ArtifactError, TrainingError

logger = logging.getLogger(__name__)

FILE = "lock"
WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # of some network file systems


@contextmanager
def training_lock(folder: Path) -> Iterator[None]:
    """Hold the lock of a training's folder, which is created if necessary and removed if it stays empty.

    Raises TrainingError, which names the other process, if one holds the lock, and ArtifactError if the folder cannot
    be written to.
    """
    try:
        lock = _locked(folder)
    except OSError as error:
        raise ArtifactError(f"{folder}: cannot be written to ({error.strerror or error})") from error
    with lock:
        try:
            yield
        finally:
            if _is_at(folder / FILE, lock):
                (folder / FILE).unlink()
            with suppress(OSError):  # it holds a checkpoint, or is gone
                folder.rmdir()


@contextmanager
def training_locks(folders: Iterable[Path], is_main: bool) -> Iterator[None]:
    """Hold several locks, in the first of the processes that share a training alone."""
    with ExitStack() as locks:
        for folder in folders if is_main else ():
            locks.enter_context(training_lock(folder))
        yield


def _locked(folder: Path) -> TextIO:
    """The open lock file, with the lock: closing it releases the lock."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = (folder / FILE).open("a+", encoding="utf-8")
        except FileNotFoundError:  # whoever had the lock removed the folder just now
            continue
        try:
            _lock(lock, folder)
            if _is_at(folder / FILE, lock):
                return lock
        except BaseException:
            lock.close()
            raise
        lock.close()


def _lock(lock: TextIO, folder: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise TrainingError(
            f"{folder}: another process is training this{_holder(lock)}; wait for it or stop it"
        ) from error
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        _warn(folder.parent, error.strerror)
    lock.truncate(0)
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="minutes")
    lock.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}) + "\n")
    lock.flush()


@cache
def _warn(place: Path, reason: str | None) -> None:
    logger.warning("%s: its file system has no locks (%s); do not start the same training twice", place, reason)


def _holder(lock: TextIO) -> str:
    """The process that wrote the file, in parentheses; nothing if it has not written it yet."""
    lock.seek(0)
    try:
        holder = json.loads(lock.read())
        return f" (pid {holder['pid']} on {holder['host']}, since {holder['since']})"
    except (ValueError, KeyError, TypeError):
        return ""


def _is_at(path: Path, lock: TextIO) -> bool:
    """Whether the open file is still the one at `path`: the one that had it before may have removed it."""
    try:
        return os.path.samestat(path.stat(), os.fstat(lock.fileno()))
    except FileNotFoundError:
        return False
