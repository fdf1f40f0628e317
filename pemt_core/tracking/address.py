"""Tracking URIs: from sqlite URIs to files and back, a check that a server answers, and words for its refusals."""

import http.client
import os
import re
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from pemt_core.errors import PemtError

PROBE_SECONDS = 3.0  # a server that has not answered by then counts as down
DATABASE_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}


class TrackingError(PemtError):
    """The tracking store cannot be reached, or refuses a request."""


def sqlite_path(uri: str, base_dir: Path) -> Path | None:
    """Return the absolute path of a sqlite URI's file, relative to `base_dir`; None for any other URI.

    As SQLAlchemy reads it, % and two digits are one character. TrackingError if the URI names no file, has options, or
    a folder's % is not quoted.
    """
    if scheme(uri) != "sqlite":
        return None
    _, _, quoted = uri.partition(":///")
    if quoted in ("", ":memory:"):
        raise TrackingError(f"{uri}: a sqlite store needs a file that all steps share, as in sqlite:///mlflow.db")
    if "?" in quoted:
        raise TrackingError(f"{uri}: options after ? are not supported; write a ? of a file's or folder's name as %3F")
    path = Path(base_dir) / unquote(quoted, errors="surrogateescape")
    as_written = Path(base_dir) / quoted
    if not os.path.isdir(path.parent) and os.path.isdir(as_written.parent):
        raise TrackingError(
            f"{uri}: {path.parent} does not exist, {as_written.parent} does; write a % of its name as %25"
        )
    return _resolved(path)


def sqlite_uri(path: Path) -> str:
    """Return the URI of a sqlite file with any character in its path.

    With the driver's name MLflow does not create the folder of the quoted path, as it does after a plain "sqlite:///".
    """
    return f"sqlite+pysqlite:///{quote(str(path))}"


def _resolved(path: Path) -> Path:
    """Return `path`, absolute. TrackingError names a character that MLflow cannot read back from a URI."""
    text = str(path) if "\0" in str(path) else os.path.realpath(path)
    unfit = re.search("[\0\udc80-\udcff]", text)  # zero, and the bytes that are not UTF-8
    if unfit:
        raise TrackingError(
            f"{ascii(text)[1:-1]}: MLflow cannot keep runs below a name with {unfit[0]!a}, which is not UTF-8; rename "
            "the folder, or set tracking.uri to a file elsewhere"
        )
    return Path(text)


def check_reachable(uri: str) -> None:
    """Raise TrackingError if nothing answers at `uri` within PROBE_SECONDS; MLflow would retry for minutes.

    Login and certificate are left to MLflow's first request, since MLflow reads its own variables for both.
    """
    try:
        _probe(uri)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= 500:
            raise TrackingError(
                f"{without_password(uri)}: answers {error.code} {error.reason}: the tracking server behind it is down, "
                "starting or failing; see its log"
            ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if not isinstance(reason, ssl.SSLError):
            raise TrackingError(
                f"{without_password(uri)}: no tracking server answers ({_reason(reason)}). Start it, correct "
                "tracking.uri (or MLFLOW_TRACKING_URI), use sqlite:///mlflow.db, or set tracking.on_unreachable to "
                "continue"
            ) from error


def _probe(uri: str) -> None:
    """Ask a server for its health, or connect to a database's port."""
    try:
        parts = urlsplit(uri)
        port = parts.port or DATABASE_PORTS.get(scheme(uri))
    except ValueError as error:
        raise TrackingError(
            f"{without_password(uri)}: not a valid tracking address; in a user or password, write each of : / @ ? # % "
            "as % and its code, such as %40 for @"
        ) from error
    if parts.scheme in ("http", "https"):
        if parts.username is not None:
            raise TrackingError(
                f"{without_password(uri)}: a user or password in a server's address would be shown in logs; put them "
                "into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=PROBE_SECONDS).close()
    elif parts.hostname and port:
        socket.create_connection((parts.hostname, port), timeout=PROBE_SECONDS).close()


def is_database_server(uri: str) -> bool:
    """Whether `uri` is a database that other machines can use too."""
    return scheme(uri) in DATABASE_PORTS


def scheme(uri: str) -> str:
    """Return the scheme without a driver: postgresql for postgresql+psycopg2://host/db."""
    return uri.partition(":")[0].partition("+")[0]


def refusal(status: int, message: str, user: str | None) -> str:
    """Explain a server's refusal to someone who runs the pipeline as `user` (None: without name and token).

    `status` and `message` are those of the HTTP answer. A missing and a wrong password both give status 401.
    """
    if status == 401 and user is None:
        advice = "it asks for credentials: set MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN"
    elif status == 401:
        advice = f"it does not accept {user}: correct MLFLOW_TRACKING_USERNAME, _PASSWORD or _TOKEN"
    elif status == 403 and "Host header" in message:
        advice = "it does not know this host name: add it to HOST_NAME, or MLFLOW_SERVER_ALLOWED_HOSTS, of the server"
    elif status == 403:
        advice = f"{user or 'an anonymous user'} may not do this; ask the server's administrator for permission"
    elif "CERTIFICATE_VERIFY_FAILED" in message:
        advice = "its certificate is not trusted: set MLFLOW_TRACKING_SERVER_CERT_PATH to the file of its authority"
    elif failed := re.search(r"too many (5\d\d) error", message):
        advice = f"it answers {failed[1]}: its database or its artifact store may be down; see its log"
    else:
        advice = "the tracking store failed"
    return f"{advice}: {message}"


def holds_password(uri: str) -> bool:
    """Whether `uri` contains user:password@."""
    return re.search(r"//[^/]*:.*@", uri) is not None


def without_password(uri: str) -> str:
    """Return `uri` without user, password and query, so that it can be shown."""
    return re.sub(r"//.*@", "//", re.sub(r"[?&]password=.*", "", uri)).partition("?")[0]


def _reason(error: BaseException | str) -> str:
    return "unknown host name" if isinstance(error, socket.gaierror) else first_line(error)


def first_line(error: BaseException | str) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
