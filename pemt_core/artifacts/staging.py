"""Hidden places beside a path, where its next content is written.

    .<name>.<token>.lock   held by a file lock as long as the writer lives; the kernel releases it when the writer ends
    .<name>.<token>.tmp    the new content
    .<name>.<token>.old    the old content, between the two renames that replace a folder

Tokens are random and no process ids are compared, so containers and hosts can share a folder. What a killed writer left
is removed by the next writer of the path; content that it had moved aside is moved back first.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"\.(?P<name>.+)\.(?P<token>[0-9a-f]+)\.(?:tmp|old|lock)")
_FILLED = (errno.EEXIST, errno.ENOTEMPTY)
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_LONGEST_WRITE = 24 * 60 * 60  # seconds; without file locks, what is older belongs to no writer


@dataclass(frozen=True)
class Stage:
    """One writer's places beside `path`."""

    path: Path
    token: str

    @property
    def new(self) -> Path:
        return self._beside("tmp")

    @property
    def old(self) -> Path:
        return self._beside("old")

    @property
    def lock(self) -> Path:
        return self._beside("lock")

    def complete(self, written: Path) -> None:
        """Wait until a new file or folder is on the disk, with the permissions that new files have here.

        safetensors writes files that nobody else may read, whatever the umask says.
        """
        with suppress(OSError):  # a file system without permissions
            found, usual = (stat.S_IMODE(path.stat().st_mode) for path in (written, self.lock))
            if written.is_file() and found | usual != found:
                written.chmod(found | usual)
        sync(written)

    def replace_file(self) -> None:
        """Put the new file in the place of the old one."""
        os.replace(self.new, self.path)
        sync(self.path.parent)

    def replace_folder(self) -> None:
        """Put the new folder in the place of the old one, or of one that another writer puts there meanwhile."""
        while True:
            with suppress(FileNotFoundError):
                os.rename(self.path, self.old)
            try:
                os.rename(self.new, self.path)
            except OSError as error:
                if error.errno not in _FILLED:
                    raise
                remove(self.old)
            else:
                return sync(self.path.parent)

    def settle(self, *, in_use: bool = False) -> None:
        """Move the old content back if the path has none, and remove the rest; the caller holds the lock.

        If another writer uses the path, it may be about to fill it: old content that is still needed stays.
        """
        if os.path.lexists(self.old) and not os.path.lexists(self.path):
            if in_use:
                return
            try:
                os.rename(self.old, self.path)
            except OSError as error:
                if error.errno not in (errno.ENOENT, *_FILLED):
                    raise
            sync(self.path.parent)
        for path in (self.new, self.old, self.lock):
            remove(path)

    def _beside(self, suffix: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{self.token}.{suffix}")


@contextmanager
def staged(path: Path) -> Iterator[Stage]:
    """Yield places beside `path` that no other process touches; nothing but `path` is left behind."""
    recover(path.parent, path.name)
    with ExitStack() as held:
        stage = Stage(path, secrets.token_hex(8))
        while not _created(stage.lock, held):
            stage = Stage(path, secrets.token_hex(8))
        try:
            yield stage
        finally:
            stage.settle()


def recover(directory: Path, name: str | None = None) -> None:
    """Move back or remove what killed writers left in a folder, of all paths in it or of `name` alone.

    What cannot be changed, as on a read-only file system, is left as it is.
    """
    stages = list(_stages(directory, name))
    with ExitStack() as held:
        dead = [stage for stage in stages if _is_dead(stage.lock, held)]
        busy = {stage.path for stage in stages if stage not in dead}
        for stage in dead:
            with suppress(OSError):  # another process settles it too, or it cannot be changed
                stage.settle(in_use=stage.path in busy)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until the content of a file, or the entries of a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF):  # some file systems cannot sync folders
            raise
    finally:
        os.close(handle)


def _stages(directory: Path, name: str | None) -> Iterable[Stage]:
    try:
        entries = os.listdir(directory)
    except OSError:
        return []
    matches = [match for match in map(_NAME.fullmatch, entries) if match and name in (None, match["name"])]
    return {Stage(directory / match["name"], match["token"]) for match in matches}


def _created(lock: Path, held: ExitStack) -> bool:
    """Create and hold a lock file; False if another process took it for a leftover before it was held."""
    handle = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
    held.callback(os.close, handle)
    return _hold(handle, lock) is not False


def _is_dead(lock: Path, held: ExitStack) -> bool:
    """Whether no process writes there; the lock is then held until `held` closes."""
    try:
        handle = os.open(lock, os.O_RDWR)
    except FileNotFoundError:  # a writer creates its lock first and removes it last
        return True
    except OSError:
        return False
    held.callback(os.close, handle)
    found = _hold(handle, lock)
    return time.time() - os.fstat(handle).st_mtime > _LONGEST_WRITE if found is None else found


def _hold(handle: int, lock: Path) -> bool | None:
    """Lock an open file; False if another process has it or removed it, None if the file system has no locks."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    try:
        return os.path.samestat(os.fstat(handle), os.stat(lock))
    except FileNotFoundError:
        return False
