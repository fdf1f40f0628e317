"""Tracking URIs: the file behind a relative sqlite URI, and whether anything answers at a server's."""

import http.client
import socket
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pemt_core.errors import PemtError

PROBE_SECONDS = 3.0  # a server that has not answered by then is reported as down
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


class TrackingError(PemtError):
    """The tracking store cannot be reached or refuses what it is sent."""


def sqlite_path(uri: str, base_dir: Path) -> Path | None:
    """The absolute path of a sqlite URI's file, relative ones counting from `base_dir`; None for any other URI."""
    if not uri.startswith("sqlite:"):
        return None
    path = uri.removeprefix("sqlite:///")
    if path == uri or path in ("", ":memory:"):
        raise TrackingError(f"{uri}: a sqlite store needs a file that all steps share, as in sqlite:///mlflow.db")
    return (Path(base_dir) / path).resolve()


def check_reachable(uri: str) -> None:
    """Raise TrackingError where nothing answers at `uri` within PROBE_SECONDS; MLflow itself would retry for long."""
    parts = urlsplit(uri)
    try:
        if parts.scheme in ("http", "https"):
            urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=PROBE_SECONDS).close()
        elif parts.hostname and (port := parts.port or DATABASE_PORTS.get(parts.scheme.split("+")[0])):
            socket.create_connection((parts.hostname, port), timeout=PROBE_SECONDS).close()
    except urllib.error.HTTPError as error:
        error.close()  # something answers; whether it is MLflow, the first request shows
    except (OSError, http.client.HTTPException) as error:
        raise TrackingError(
            f"{without_password(uri)}: no tracking server answers there ({first_line(error)}). Start it, correct "
            "tracking.uri, use sqlite:///mlflow.db, or set tracking.on_unreachable to continue"
        ) from error


def without_password(uri: str) -> str:
    """`uri` as it may be shown: a database URI often holds a user and a password."""
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else uri


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
