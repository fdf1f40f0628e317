"""The file of an embedded store: what it must be before MLflow opens it, and its creation without a half-made state."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from pemt_core.tracking.address import TrackingError, sqlite_uri
from pemt_core.tracking.failures import not_writable
from pemt_core.tracking.moved import follow
from pemt_core.tracking.patience import patiently


def check_place(path: Path) -> None:
    """Raise TrackingError if `path` is something else than a file, or may not be written to."""
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "no file"
        raise TrackingError(f"{path}: is {kind}; tracking.uri needs a file, as in sqlite:///mlflow.db")
    if path.exists() and not os.access(path, os.W_OK):
        raise TrackingError(not_writable(path, "read-only"))


def create(path: Path, make: Callable[[Path], None]) -> None:
    """Have `make` write a database under another name, then move it to `path`, so that a crash leaves no half of it.

    The caller holds the lock of `path`, so whatever an earlier process left is removed.
    """
    folder = path.with_name(f".{path.name}.new")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir()
        make(folder / path.name)
        with (folder / path.name).open("rb") as file:
            os.fsync(file.fileno())
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def written_at_the_end(path: Path) -> Iterator[None]:
    """In the block, new SQLAlchemy connections to `path` do not wait for the disk; `create` syncs the file at the end.

    MLflow's migrations are some 500 statements, and a disk takes milliseconds for each.
    """
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def wait_for_nothing(connection: Any, _: object) -> None:
        if isinstance(connection, sqlite3.Connection) and _file_of(connection) == path.resolve():
            connection.execute("PRAGMA synchronous=OFF")

    event.listen(Engine, "connect", wait_for_nothing)
    try:
        yield
    finally:
        event.remove(Engine, "connect", wait_for_nothing)


def _file_of(connection: sqlite3.Connection) -> Path:
    _, _, file = connection.execute("PRAGMA database_list").fetchone()
    return Path(file).resolve()


def adopt(path: Path, revision: str) -> None:
    """Check that `path` is a store with this revision of MLflow's schema, and have its records follow it here.

    It waits for a file that another process holds. Raises TrackingError or sqlite3.Error.
    """
    with _transaction(path) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if not {"alembic_version", "experiments", "runs"} <= tables:
            raise TrackingError(f"{path}: a database, but not MLflow's; set tracking.uri to another file")
        found = [row[0] for row in connection.execute("SELECT version_num FROM alembic_version")]
        if found != [revision]:
            raise TrackingError(
                f"{path}: its schema is {', '.join(found)}, this MLflow has {revision}. Update an older one: copy the "
                f"file, then run `mlflow db upgrade {sqlite_uri(path)}`; read a newer one with its version of MLflow"
            )
        follow(connection, path)


@contextmanager
def _transaction(path: Path) -> Iterator[sqlite3.Connection]:
    """Yield a connection that alone may write, as soon as it can; what it writes is kept if the body succeeds."""
    uri = f"{path.as_uri()}?mode=rw"  # it never creates a file
    with closing(sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)) as connection:
        patiently(path, lambda: connection.execute("BEGIN IMMEDIATE"))
        yield connection
        patiently(path, lambda: connection.execute("COMMIT"))
