"""A small server for tests that implements the part of the Hugging Face hub's protocol that loading uses.

    with HubServer() as hub:
        commit = hub.publish("datasets", "nyu-mll/glue", folder)
        ...  # set HF_ENDPOINT to hub.url in a fresh process: the client libraries read it when they are imported

Publishing a name again adds a commit; "main" is the latest one. The server answers requests for the info of a
repository at a revision, the tree and paths-info, and HEAD and GET of a file with ETag, X-Repo-Commit and byte ranges.
"""

import hashlib
import json
import re
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

KINDS = ("datasets", "models")
_API = re.compile(
    r"/api/(?P<kind>datasets|models)/(?P<name>[^/]+/[^/]+)(?:/(?P<verb>revision|tree|paths-info)/(?P<rest>.+))?"
)
_FILE = re.compile(r"/(?:(?P<kind>datasets)/)?(?P<name>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)")


class HubServer:
    """The server, on a free local port, and what it has published: {(kind, name): {commit: folder}}."""

    def __init__(self) -> None:
        self.published: dict[tuple[str, str], dict[str, Path]] = {}
        self.requests: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def publish(self, kind: str, name: str, folder: Path) -> str:
        """Add a commit with the files of `folder` and return its hash, which depends only on the files."""
        assert kind in KINDS
        digest = hashlib.sha1(usedforsecurity=False)
        for path in _files(folder):
            digest.update(path.encode() + b"\0" + _object_id(folder / path).encode())
        commit = digest.hexdigest()
        self.published.setdefault((kind, name), {})[commit] = folder
        return commit

    def publish_mirror(self, folder: Path) -> dict[str, str]:
        """Publish every dataset of a folder in the hub's layout; return the commits by name."""
        names = sorted(f"{path.parent.name}/{path.name}" for path in folder.glob("*/*") if path.is_dir())
        return {name: self.publish("datasets", name, folder / name) for name in names}

    def __enter__(self) -> "HubServer":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _NotFoundError(Exception):
    """Answered with 404; the client distinguishes cases by the code."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def _handler_for(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer()

        def do_HEAD(self) -> None:
            self._answer()

        def do_POST(self) -> None:
            self._answer()

        def log_message(self, format: str, *args: Any) -> None:
            hub.requests.append(format % args)

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = unquote(urlsplit(self.path).path)
            try:
                if match := _API.fullmatch(path):
                    self._send_json(_api(hub, match, urlsplit(self.path).query, body))
                elif match := _FILE.fullmatch(path):
                    self._send_file(*_find_file(hub, match))
                else:
                    raise _NotFoundError("EntryNotFound")
            except _NotFoundError as error:
                self._send(HTTPStatus.NOT_FOUND, b"{}", {"X-Error-Code": error.code, "X-Error-Message": error.code})

        def _send_json(self, value: Any) -> None:
            self._send(HTTPStatus.OK, json.dumps(value).encode(), {"Content-Type": "application/json"})

        def _send_file(self, file: Path, commit: str) -> None:
            headers = {"ETag": f'"{_object_id(file)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
            content = file.read_bytes()
            requested = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            if requested is None:
                self._send(HTTPStatus.OK, content, headers)
                return
            start, end = int(requested[1]), min(int(requested[2] or len(content) - 1), len(content) - 1)
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            self._send(HTTPStatus.PARTIAL_CONTENT, content[start : end + 1], headers)

        def _send(self, status: HTTPStatus, content: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

    return Handler


def _api(hub: HubServer, match: re.Match[str], query: str, body: bytes) -> Any:
    """The JSON answer to a request for metadata."""
    kind, name, verb, rest = match["kind"], match["name"], match["verb"], match["rest"] or "main"
    revision, _, inner = rest.partition("/")
    folder, commit = _find_commit(hub, kind, name, revision)
    entries = [_file_entry(folder, path) for path in _files(folder)]
    if verb == "tree":
        recursive = parse_qs(query).get("recursive", ["false"])[0].lower() in ("true", "1")
        return _listing(folder, inner, recursive)
    if verb == "paths-info":
        requested = _requested_paths(body)
        return [entry for entry in [*entries, *_folder_entries(folder)] if entry["path"] in requested]
    siblings = [{"rfilename": entry["path"]} for entry in entries]
    return {"_id": commit[:24], "id": name, "sha": commit, "private": False, "gated": False, "disabled": False,
            "downloads": 0, "likes": 0, "tags": [], "siblings": siblings}  # fmt: skip


def _find_commit(hub: HubServer, kind: str, name: str, revision: str) -> tuple[Path, str]:
    commits = hub.published.get((kind, name))
    if commits is None:
        raise _NotFoundError("RepoNotFound")
    commit = list(commits)[-1] if revision == "main" else revision
    if commit not in commits:
        raise _NotFoundError("RevisionNotFound")
    return commits[commit], commit


def _find_file(hub: HubServer, match: re.Match[str]) -> tuple[Path, str]:
    folder, commit = _find_commit(hub, match["kind"] or "models", match["name"], match["revision"])
    if match["path"] not in _files(folder):
        raise _NotFoundError("EntryNotFound")
    return folder / match["path"], commit


def _listing(folder: Path, inner: str, recursive: bool) -> list[dict[str, Any]]:
    entries = [*_folder_entries(folder), *(_file_entry(folder, path) for path in _files(folder))]
    prefix = f"{inner}/" if inner else ""
    below = [entry for entry in entries if entry["path"].startswith(prefix)]
    if not below:
        raise _NotFoundError("EntryNotFound")
    return below if recursive else [entry for entry in below if "/" not in entry["path"][len(prefix) :]]


def _requested_paths(body: bytes) -> list[str]:
    """The paths that a paths-info request names, in a form or as JSON."""
    text = body.decode()
    return list(json.loads(text)["paths"]) if text.startswith("{") else parse_qs(text).get("paths", [])


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _file_entry(folder: Path, path: str) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": (folder / path).stat().st_size, "oid": _object_id(folder / path)}


def _folder_entries(folder: Path) -> list[dict[str, Any]]:
    inside = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_dir())
    return [{"type": "directory", "path": path, "size": 0, "oid": "0" * 40} for path in inside]


def _object_id(file: Path) -> str:
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()
