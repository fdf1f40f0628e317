"""Tracking URIs: the file behind a relative sqlite URI, whether a server answers, and what its refusal means."""

import http.client
import re
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

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
    """Raise TrackingError where nothing answers at `uri` within PROBE_SECONDS; MLflow itself would retry for long.

    Whether a server that answers knows us, and its certificate is to be trusted, MLflow's first request shows: it
    reads variables of its own for both.
    """
    try:
        _probe(uri)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= 500:
            raise TrackingError(
                f"{without_password(uri)}: answers {error.code} {error.reason}: the tracking server behind it is down, "
                "starting or failing; its log says why"
            ) from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if not isinstance(reason, ssl.SSLError):
            raise TrackingError(
                f"{without_password(uri)}: no tracking server answers there ({_said(reason)}). Start it, correct "
                "tracking.uri (or MLFLOW_TRACKING_URI), use sqlite:///mlflow.db, or set tracking.on_unreachable to "
                "continue"
            ) from error


def _probe(uri: str) -> None:
    """Ask a server for its health, or open a connection to a database's port."""
    try:
        parts = urlsplit(uri)
        port = parts.port or DATABASE_PORTS.get(scheme(uri))
    except ValueError as error:
        raise TrackingError(
            f"{without_password(uri)}: not a tracking address: in a user or password each of : / @ ? # % is written as "
            "% and its code, as in %40 for @"
        ) from error
    if parts.scheme in ("http", "https"):
        if parts.username is not None:
            raise TrackingError(
                f"{without_password(uri)}: a user or password in a server's address would be shown in logs: put them "
                "into MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
            )
        urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=PROBE_SECONDS).close()
    elif parts.hostname and port:
        socket.create_connection((parts.hostname, port), timeout=PROBE_SECONDS).close()


def is_database_server(uri: str) -> bool:
    """Whether `uri` is a database that other machines may use too."""
    return scheme(uri) in DATABASE_PORTS


def scheme(uri: str) -> str:
    """The scheme without a driver: postgresql for postgresql+psycopg2://host/db."""
    return uri.partition(":")[0].partition("+")[0]


def refusal(status: int, said: str, user: str | None) -> str:
    """What a server's answer means for whoever runs the pipeline as `user` (None: without a name or token).

    `status` is HTTP's and `said` what came with it; both empty hands and a wrong password are a 401.
    """
    if status == 401 and user is None:
        advice = "it asks who you are: set MLFLOW_TRACKING_USERNAME and _PASSWORD, or _TOKEN"
    elif status == 401:
        advice = f"it does not accept {user}: correct MLFLOW_TRACKING_USERNAME, _PASSWORD or _TOKEN"
    elif status == 403 and "Host header" in said:
        advice = "it is not told of the name it was called by: HOST_NAME, or MLFLOW_SERVER_ALLOWED_HOSTS, of the server"
    elif status == 403:
        advice = f"{user or 'without a name, you'} may not do this there; its administrator can allow it"
    elif "CERTIFICATE_VERIFY_FAILED" in said:
        advice = "its certificate is not trusted: name the file of its authority in MLFLOW_TRACKING_SERVER_CERT_PATH"
    elif failed := re.search(r"too many (5\d\d) error", said):
        advice = f"it answers {failed[1]}: its database or its artifact store may be away; its log says why"
    else:
        advice = "the tracking store failed"
    return f"{advice}: {said}"


def holds_password(uri: str) -> bool:
    """Whether `uri` says user:password@."""
    return re.search(r"//[^/]*:.*@", uri) is not None


def without_password(uri: str) -> str:
    """`uri` as it may be shown: a database's often holds a user and a password, also in its query."""
    return re.sub(r"//.*@", "//", re.sub(r"[?&]password=.*", "", uri)).partition("?")[0]


def _said(error: BaseException | str) -> str:
    return "its name is not known" if isinstance(error, socket.gaierror) else first_line(error)


def first_line(error: BaseException | str) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
