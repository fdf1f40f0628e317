"""What a check is given and what it gives back, and the two ways in which checks ask others."""

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

ANSWER_SECONDS = 4.0  # a server that has not answered by then is reported as silent
PROGRAM_SECONDS = 10.0  # likewise a program, whose start alone takes seconds on a busy machine


class Status(StrEnum):
    """FAILURE alone stops `make demo`, or what the settings ask for."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """What one check found of `name`, and how to mend it; empty where nothing is to be mended."""

    name: str
    status: Status
    found: str
    mend: str = ""


@dataclass(frozen=True)
class Surroundings:
    """What the checks look at. `settings` is None where params.yaml cannot be used; `problem` says why."""

    params: Path
    variables: Mapping[str, str]  # of the environment
    kubeflow_host: str | None
    settings: Settings | None
    problem: str

    @classmethod
    def of(cls, params: Path, variables: Mapping[str, str], kubeflow_host: str | None) -> "Surroundings":
        """With the settings of `params`, where they can be used."""
        try:
            return cls(params, variables, kubeflow_host, load_settings(params), "")
        except SettingsError as error:
            return cls(params, variables, kubeflow_host, None, str(error))

    @property
    def folder(self) -> Path:
        """The project's."""
        return self.params.resolve().parent


Answer = subprocess.CompletedProcess[str]
Check = Callable[[Surroundings], Iterator[Finding]]


class SilenceError(Exception):
    """Nothing answers."""


def ask(*command: str, folder: Path | None = None, seconds: float = PROGRAM_SECONDS) -> Answer:
    """Run a program to its end. SilenceError where it does not start, or takes longer."""
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
    """Status and text of an answer. SilenceError where there is none."""
    try:
        request = urllib.request.Request(url, body, dict(headers or {}), method=method)
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
            return answer.status, answer.read().decode(errors="replace")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(errors="replace")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise SilenceError(first_line(error)) from error
