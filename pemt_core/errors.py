"""Errors that a user can act on: each names the file or key, the value, what was expected and the nearest choice."""

import difflib
from collections.abc import Iterable


class PemtError(Exception):
    """A problem in what the user gave or in the machine, never a bug: programs print its message without a trace."""


class SettingsError(PemtError):
    """params.yaml holds an unknown, missing or ill-typed key, or values that contradict each other."""


class DataError(PemtError):
    """A dataset, a subset, a split, a column or a row is missing or is not what its record says."""


class ArtifactError(PemtError):
    """A stored artifact is missing, incomplete, altered, or belongs to another backbone."""


class TrainingError(PemtError):
    """Training cannot go on; the message says at which step and what was kept."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """A clause naming the choice most like `name`, or all choices where none is: "did you mean 'rte'?"."""
    known = sorted(choices)
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean '{match[0]}'?" if match else f"choose from: {', '.join(known)}"
