"""The paths of a project's settings and of its pipeline's outputs. Loads without torch."""

from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Project:
    """Paths of a project; the defaults are those of dvc.yaml in the working directory."""

    params: Path = Path("params.yaml")
    adapters: Path = Path("adapters/targets")  # one folder of cells per target
    data: Path = Path("data")
    backbone: Path = Path("backbone")
    experts: Path = Path("experts")

    @classmethod
    def at(cls, folder: Path | str) -> "Project":
        """The project in `folder`."""
        return cls(**{name: Path(folder) / place for name, place in asdict(cls()).items()})
