"""This project's defaults of what MLflow reads from the environment."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

TIMEOUT = "MLFLOW_HTTP_REQUEST_TIMEOUT"  # seconds that a server may take to answer
LONG_SECONDS = 1800  # for files of gigabytes, which it answers for once they are in its bucket


def set_defaults() -> None:
    """Set defaults of environment variables that MLflow reads on import or later; the user's values stay."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")  # the default of 7 waits for minutes
    os.environ.setdefault(TIMEOUT, "10")
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs tracebacks of what it raises too


@contextmanager
def long_requests() -> Iterator[None]:
    """For the block, give a server LONG_SECONDS for each answer, or longer if the environment does."""
    before = os.environ.get(TIMEOUT)
    os.environ[TIMEOUT] = str(max(LONG_SECONDS, int(before or 0)))
    try:
        yield
    finally:
        if before is None:
            del os.environ[TIMEOUT]
        else:
            os.environ[TIMEOUT] = before
