"""One line for each way in which a tracking store fails: a full disk, a held or damaged file, no permission."""

import errno
import os
import sqlite3
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pemt_core.tracking.address import first_line, refusal, sqlite_path, without_password
from pemt_core.tracking.patience import LONGEST_WAIT, causes, holder_of, is_held, is_sqlite, sqlite_code

FULL = (errno.ENOSPC, errno.EDQUOT)
NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
NOT_A_FOLDER = (errno.EEXIST, errno.ENOTDIR)
ALMOST_FULL = 2_000_000  # bytes, as many as MLflow's tables take; with less, sqlite reports other errors too
DAMAGED = (
    "keep a copy of it before you try anything; `dvc repro -f -s record register` writes the runs of all results into "
    "the file that tracking.uri names"
)


def file_of(uri: str) -> Path | None:
    """Return the file of an absolute sqlite URI; None for any other."""
    return sqlite_path(uri, Path("/"))


def explain(error: BaseException, uri: str, status: int, user: str | None) -> str:
    """Explain a store's failure in one line. `uri` is absolute; see `refusal` for `status` and `user`."""
    path = file_of(uri)
    code = sqlite_code(error)
    system = next((cause for cause in causes(error) if isinstance(cause, OSError) and cause.errno), None)
    folders = [path.parent if path else Path.cwd(), Path(tempfile.gettempdir())]
    if _is_full(error, folders):
        return f"{_place(path, uri)}: {full_disk(folders)}"
    if path and (is_held(error) or code is not None):
        return explain_sqlite(error, path)
    if system and system.filename and system.errno in NOT_WRITABLE:
        return not_writable(Path(os.fsdecode(system.filename)), os.strerror(system.errno or 0))
    if system and system.filename and system.errno in NOT_A_FOLDER:
        return f"{os.fsdecode(system.filename)}: is a file where tracking needs a folder; correct tracking.uri"
    return f"{_place(path, uri)}: {refusal(status, first_line(error), user)}"


def explain_sqlite(error: BaseException, path: Path) -> str:
    """Explain an error of sqlite, or of the lock beside its file, in one line."""
    code, text = sqlite_code(error), first_line(next((each for each in causes(error) if is_sqlite(each)), error))
    if is_held(error):
        holder = holder_of(path) if code is not None else holder_of(path.with_name(f".{path.name}.lock"))
        return (
            f"{path}: {holder} held it for more than {LONGEST_WAIT:.0f} s; wait for it, or stop it, and run this again"
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return f"{path}: not usable as an sqlite database ({text}): {DAMAGED}"
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_CANTOPEN):
        blocked = next((each for each in (path, path.parent) if not os.access(each, os.W_OK)), path)
        return not_writable(blocked, text)
    return f"{path}: the database failed ({text})"


def not_writable(path: Path, reason: str) -> str:
    """Say that the file `path`, or the folder in which it would be, cannot be written to."""
    blocked = next((place for place in (path, *path.parents) if os.path.exists(place)), path)
    return f"{blocked}: cannot be written to ({reason}): get permission, or set tracking.uri to a file elsewhere"


def full_disk(folders: Iterable[Path]) -> str:
    """Say that the disk of one of `folders`, the one with the least space, is full."""
    free, folder = min((_free(folder), folder) for folder in folders if folder.is_dir())
    amount = f"{free / 1e6:.1f} MB free" if free else "nothing free, or no more files allowed"
    return f"the disk is full ({amount} in {folder}); free some space and run this again"


def _is_full(error: BaseException, folders: Iterable[Path]) -> bool:
    """Whether `error` comes from a full disk, which sqlite also reports as an unreadable or missing file."""
    if sqlite_code(error) == sqlite3.SQLITE_FULL:
        return True
    if sqlite_code(error) in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        return any(_free(folder) < ALMOST_FULL for folder in folders if folder.is_dir())
    return any(isinstance(cause, OSError) and cause.errno in FULL for cause in causes(error))


def _free(folder: Path) -> int:
    """The bytes that can still be written to the disk of `folder`: 0 if it takes no more files."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize if disk.f_favail or not disk.f_files else 0


def _place(path: Path | None, uri: str) -> str:
    return str(path) if path else without_password(uri)
