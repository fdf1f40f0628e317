"""MLflow's scoring app behind a check of each request; `pemt serve` runs it under uvicorn.

MLflow's parser answers some requests with status 500 (JSON that is nested too deeply, numbers of thousands of digits,
halves of characters, no content type), and reads null in `inputs` and `instances` as the text "None". This module
imports nothing of pemt_core, so that a served version is loaded by its own code.
"""

import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Mapping[str, Any], Receive, Send], Awaitable[None]]

MOST_LEVELS = 20  # of JSON; a request with lists in its rows has five
_FORMS = ("dataframe_records", "dataframe_split", "inputs", "instances")  # of rows in a request
_SURROGATE = re.compile("[\ud800-\udfff]")


class RequestError(Exception):
    """A request cannot be read; the message says why."""


class CheckedRequests:
    """An ASGI app that answers requests it cannot read with status 400, or 415, and passes others on."""

    def __init__(self, app: App) -> None:
        self.app = app

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        body = await _body_of(receive)
        content_type = dict(scope["headers"]).get(b"content-type", b"").partition(b";")[0].strip()
        if not content_type:
            await _refuse(send, 415, "the request has no content type, expected application/json")
            return
        try:
            checked = _checked(body) if content_type == b"application/json" else body
        except RequestError as error:
            await _refuse(send, 400, str(error))
            return
        await self.app(scope, _replayed(checked, receive), send)


async def _body_of(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    messages = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def next_message() -> Message:
        return next(messages, None) or await receive()

    return next_message


async def _refuse(send: Send, status: int, message: str) -> None:
    content = json.dumps({"error_code": "BAD_REQUEST", "message": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def _checked(body: bytes) -> bytes:
    """Return the request in a form of which MLflow keeps nulls and types. Raises RequestError if it is unreadable."""
    try:
        request = json.loads(body, object_pairs_hook=_with_unique_keys)
    except RecursionError as error:
        raise _too_deep() from error
    except ValueError as error:  # no UTF-8, no JSON, or a number of thousands of digits
        raise RequestError(f"the request is not readable as JSON ({error})") from error
    level = [("", request)]
    for _ in range(1 + MOST_LEVELS):
        for place, value in level:
            if isinstance(value, str) and _SURROGATE.search(value):
                raise RequestError(
                    f"{place[1:]} is {value[:80]!r}, expected Unicode text: it has half of a surrogate pair"
                )
        level = [(f"{place}.{key}", child) for place, each in level for key, child in _children(each)]
    if level:
        raise _too_deep()
    return _as_records(request, body)


def _with_unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"the key {key[:80]!r} occurs twice")
        values[key] = value
    return values


def _too_deep() -> RequestError:
    return RequestError(f"the request is not readable as JSON (nested deeper than {MOST_LEVELS} levels)")


def _children(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        yield from value.items()
        yield from (("a key", key) for key in value)
    elif isinstance(value, list):
        yield from enumerate(value)


def _as_records(request: Any, body: bytes) -> bytes:
    """Write rows in `inputs` or `instances` as `dataframe_records`; other requests stay as they are.

    Raises RequestError if there are rows in several forms: the server would answer one and ignore the others.
    """
    forms = [form for form in _FORMS if isinstance(request, dict) and form in request]
    if len(forms) > 1:
        raise RequestError(f"the request has {' and '.join(forms)}, expected rows in one of them")
    if not forms or forms[0] not in ("inputs", "instances"):
        return body
    rows = request[forms[0]] if isinstance(request[forms[0]], list) else [request[forms[0]]]
    if not all(isinstance(row, dict) for row in rows):
        return body
    others = {key: value for key, value in request.items() if key != forms[0]}
    return json.dumps({**others, "dataframe_records": rows}).encode()


def make_app() -> CheckedRequests:
    """Load the model that MLflow's environment variable names, and return the app that serves it."""
    return CheckedRequests(import_module("mlflow.pyfunc.scoring_server.app").app)
