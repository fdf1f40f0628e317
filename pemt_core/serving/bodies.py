"""The bodies of requests, which are bounded together: the queue counts rows only once they have been read."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from starlette.requests import Request

from pemt_core.serving.errors import BusyError, TooLargeError

MOST_BYTES = 64 * 2**20  # of a request
MOST_TOGETHER = 4 * MOST_BYTES  # of all requests that are being read
LEAST_BYTES = 2**16  # as which a shorter request counts


class Bodies:
    """Reads bodies in one event loop, all together of `most_bytes` at most."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes, self._num_bytes = most_bytes, 0

    @asynccontextmanager
    async def read(self, request: Request) -> AsyncIterator[bytes]:
        """Yield the body of a request, which counts until the block ends. A declared length counts before it is read.

        Raises TooLargeError if the body is longer than MOST_BYTES, BusyError if it does not fit beside the others now.
        """
        counted = 0

        def count(size: int) -> None:
            """Let the request count as `size` bytes, if it has not counted as more."""
            nonlocal counted
            if size > MOST_BYTES:
                raise TooLargeError(
                    f"the request is longer than {MOST_BYTES:,} bytes: send the rows in several requests"
                )
            more = max(0, size - counted)
            if self._num_bytes + more > self._most_bytes:
                raise BusyError(
                    f"{self._num_bytes:,} bytes of requests are being read, and the server reads {self._most_bytes:,} "
                    "at a time: try again in 1 s",
                    1,
                )
            self._num_bytes += more
            counted += more

        try:
            count(max(LEAST_BYTES, int(request.headers.get("content-length", 0))))
            yield await _joined(request, count)
        finally:
            self._num_bytes -= counted


async def _joined(request: Request, count: Callable[[int], None]) -> bytes:
    parts, size = list[bytes](), 0
    async for part in request.stream():
        size += len(part)
        count(size)
        parts.append(part)
    return b"".join(parts)
