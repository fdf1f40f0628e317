"""What a client did, or what the server cannot do now, as an HTTP status with one line of text."""

from pemt_core.errors import PemtError


class RequestError(PemtError):
    """A request is answered with `status` and this message; `code` is its name in MLflow's error bodies."""

    status, code = 400, "BAD_REQUEST"


class MediaTypeError(RequestError):
    """The body is of a type that is not read."""

    status, code = 415, "UNSUPPORTED_MEDIA_TYPE"


class TooLargeError(RequestError):
    """The body, or its number of rows, would never be accepted."""

    status, code = 413, "REQUEST_TOO_LARGE"


class UnknownTargetError(RequestError):
    """There is no target, or no version of it, of this name."""

    status, code = 404, "RESOURCE_DOES_NOT_EXIST"


class VersionError(RequestError):
    """A version cannot be served; what is served stays."""

    status, code = 409, "RESOURCE_CONFLICT"


class ForbiddenError(RequestError):
    """The server was started without calls that change it."""

    status, code = 403, "PERMISSION_DENIED"


class BusyError(RequestError):
    """The server cannot take the request now; `seconds` later it may."""

    status, code = 503, "TEMPORARILY_UNAVAILABLE"

    def __init__(self, message: str, seconds: int) -> None:
        super().__init__(message)
        self.seconds = seconds
