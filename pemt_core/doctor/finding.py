"""The input and the results of checks, and the functions by which they query programs and servers."""

import http.client
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pemt_core.errors import SettingsError
from pemt_core.settings import Settings, load_settings
from pemt_core.tracking.address import first_line

ANSWER_SECONDS = 4.0  # a server that has not answered by then counts as silent
PROGRAM_SECONDS = 10.0  # the same for a program, whose start alone takes seconds on a busy machine


class Status(StrEnum):
    """The result of a check. Only a FAILURE blocks `make demo`, or something that the settings ask for."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """What a check found about `name`. `fix` says what to do, and is empty where nothing needs fixing."""

    name: str
    status: Status
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Surroundings:
    """What the checks examine. `settings` is None if params.yaml is invalid; `problem` then says why."""

    params: Path
    variables: Mapping[str, str]  # environment variables
    kubeflow_host: str | None
    settings: Settings | None
    problem: str

    @classmethod
    def of(cls, params: Path, variables: Mapping[str, str], kubeflow_host: str | None) -> "Surroundings":
        """Load the settings of `params` if they are valid."""
        try:
            return cls(params, variables, kubeflow_host, load_settings(params), "")
        except SettingsError as error:
            return cls(params, variables, kubeflow_host, None, str(error))

    @property
    def folder(self) -> Path:
        """The project folder."""
        return self.params.resolve().parent


Answer = subprocess.CompletedProcess[str]
Check = Callable[[Surroundings], Iterator[Finding]]


class SilenceError(Exception):
    """A program or a server does not answer."""


def ask(*command: str, folder: Path | None = None, seconds: float = PROGRAM_SECONDS) -> Answer:
    """Run a program. SilenceError if it does not start, or takes longer than `seconds`."""
    try:
        return subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise SilenceError(f"{command[0]} did not answer within {seconds:g} s") from error
    except OSError as error:
        raise SilenceError(f"{command[0]} did not start ({error.strerror})") from error


def fetch(
    url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> tuple[int, str]:
    """Return the status and the text of a server's answer. SilenceError if it does not answer."""
    try:
        request = urllib.request.Request(url, body, dict(headers or {}), method=method)
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(errors="replace")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise SilenceError(first_line(error)) from error
