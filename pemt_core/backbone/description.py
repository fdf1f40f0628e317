"""backbone.json: what the backbone step records about the model beside it. Reading it needs no model."""

from pathlib import Path
from typing import Any

from pemt_core.artifacts.files import read_record
from pemt_core.errors import ArtifactError

DESCRIPTION = "backbone.json"


def recorded_fingerprint(directory: Path) -> str:
    """The fingerprint of the backbone in a folder. Raises ArtifactError if it is missing."""
    return str(_recorded(directory, "fingerprint"))


def recorded_parameters(directory: Path) -> int:
    """The number of parameters of the backbone in a folder. Raises ArtifactError if it is missing."""
    return int(_recorded(directory, "parameters"))


def _recorded(directory: Path, name: str) -> Any:
    path = Path(directory) / DESCRIPTION
    try:
        return read_record(path, "run the backbone step again")[name]
    except KeyError as error:
        raise ArtifactError(f"{path}: not a backbone's description (lacks {error})") from error
