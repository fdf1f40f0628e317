"""Errors that a user can act on: each names the file or key, the value, what was expected and the nearest choice."""

import difflib
from collections.abc import Iterable


class PemtError(Exception):
    """A problem with the user's input or the machine, never a bug: programs print the message without a traceback."""


class SettingsError(PemtError):
    """params.yaml holds an unknown, missing or ill-typed key, or values that contradict each other."""


class DataError(PemtError):
    """A dataset, subset, split, column or row is missing or does not match its record."""


class ArtifactError(PemtError):
    """A stored artifact is missing, incomplete, altered, or belongs to another backbone."""


class TrainingError(PemtError):
    """Training cannot continue; the message names the step and what was kept."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Suggest the choice most similar to `name`, as in "did you mean 'rte'?", or list all if none is similar."""
    known = sorted(choices)
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean '{match[0]}'?" if match else f"choose from: {', '.join(known)}"
