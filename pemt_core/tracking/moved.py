"""A store that was copied or moved with its project: its records follow to the files beside it.

MLflow records absolute places of files. In a copy these are the original's, which must never be written to.
"""

import logging
import os
import shlex
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pemt_core.tracking.address import TrackingError

ARTIFACTS = "mlartifacts"  # the folder beside a database with the files of its runs
FOLDERS = (ARTIFACTS, "mlruns", "backbone")  # of a project; "mlruns" is where MLflow's own experiment has its files
PLACES = {  # every column in which the schema records where files are; of tags, those of traces and pemt.backbone_dir
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "logged_models": ("artifact_location",),
    "model_versions": ("source", "storage_location"),
    "model_version_tags": ("value",),
    "trace_tags": ("value",),
}

logger = logging.getLogger(__name__)


def follow(connection: sqlite3.Connection, path: Path) -> None:
    """Make the records of the store at `path` name the folders beside it, if it came here from elsewhere.

    A place that the user chose stays. TrackingError if the files of the runs are still in the original project only.
    The transaction is the caller's.
    """
    for origin in _origins(connection, path.parent):
        if _came_from(connection, origin, path):
            moved = _point(connection, origin, path.parent)
            logger.warning("%s: came from %s; %d records now name files in %s", path, origin, moved, path.parent)


def _origins(connection: sqlite3.Connection, here: Path) -> list[Path]:
    """Return the other folders whose ARTIFACTS experiments of this store name."""
    locations = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
    found = {_project_of(location) for (location,) in locations if location}
    return sorted(origin for origin in found if origin and origin != here)


def _project_of(location: str) -> Path | None:
    """Return the folder that holds the ARTIFACTS of `location`; None for a place of another kind."""
    parts = urlsplit(location)
    path = Path(unquote(parts.path) if parts.scheme == "file" else location)
    artifacts = next((folder for folder in (path, path.parent) if folder.name == ARTIFACTS), None)
    return artifacts.parent if artifacts and path.is_absolute() else None


def _came_from(connection: sqlite3.Connection, origin: Path, path: Path) -> bool:
    """Whether the store at `path` was copied or moved from the project `origin`; if not, the user chose that place."""
    kept = {run for (run,) in connection.execute("SELECT run_uuid FROM runs")} | {"models", "traces"}
    is_original = any(os.path.isfile(origin / name) for name in {path.name, "mlflow.db", "params.yaml"})
    if _holds(path.parent / ARTIFACTS, kept):
        return True
    if not _holds(origin / ARTIFACTS, kept):
        return is_original or not os.path.isdir(origin)
    if is_original:
        command = shlex.join(["cp", "-r", str(origin / ARTIFACTS), str(path.parent)])
        raise TrackingError(
            f"{path}: it was copied from {origin} without the files of its runs: copy them too, by `{command}`, and "
            "run this again"
        )
    return False


def _holds(folder: Path, names: Iterable[str]) -> bool:
    """Whether `folder` has a folder of one of these names; an original that may not be read has none."""
    return any(os.path.isdir(folder / name) for name in names)


def _point(connection: sqlite3.Connection, origin: Path, here: Path) -> int:
    """Replace FOLDERS of `origin` by those of `here` in all records; return how many records were changed."""
    changed = 0
    for folder in FOLDERS:
        old, new = origin / folder, here / folder
        changed += _replace(connection, old.as_uri(), new.as_uri()) + _replace(connection, str(old), str(new))
    return changed


def _replace(connection: sqlite3.Connection, old: str, new: str) -> int:
    """Replace `old` where it is a place, or the beginning of one; return how many records were changed."""
    changed = 0
    for table, columns in PLACES.items():
        for column in columns:
            where = f"{column} = :old OR substr({column}, 1, length(:old) + 1) = :old || '/'"
            update = f"UPDATE {table} SET {column} = :new || substr({column}, length(:old) + 1) WHERE {where}"
            changed += connection.execute(update, {"old": old, "new": new}).rowcount
    return changed
