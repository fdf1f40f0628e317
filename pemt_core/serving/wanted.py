"""What a server is asked to serve, and the versions that it begins with. Loads without torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pemt_core.errors import ArtifactError
from pemt_core.tracking import CELL
from pemt_core.tracking.models import (
    BACKBONE_DIR,
    UnknownModelError,
    Version,
    find_version,
    model_name,
    version_at,
    versions_with,
)
from pemt_core.tracking.store import Store


@dataclass(frozen=True)
class Wanted:
    """Targets of an experiment, by the alias of their versions."""

    experiment: str  # models are named <experiment>-<target>, see `model_name`
    alias: str
    targets: Sequence[str] = ()  # empty: every target whose model has the alias
    backbone_dir: Path | None = None  # instead of the one that versions name or contain

    def model(self, target: str) -> str:
        return model_name(self.experiment, target)

    def numbers(self, store: Store) -> dict[str, int]:
        """The version that has the alias, by target, of all models of the experiment."""
        prefix = self.model("")
        found = versions_with(store, self.alias, prefix)
        return {name.removeprefix(prefix): number for name, number in sorted(found.items())}

    def versions(self, store: Store) -> dict[str, Version]:
        """The versions to begin with, by target.

        Raises TrackingError if there is none, and ArtifactError if the folder that one names as its backbone is gone.
        """
        if self.targets:
            found = {name: find_version(store, f"models:/{self.model(name)}@{self.alias}") for name in self.targets}
        else:
            numbers = self.numbers(store)
            every = {name: version_at(store, self.model(name), number) for name, number in numbers.items()}
            found = {name: version for name, version in every.items() if is_of(version, name)}
        if not found:
            raise UnknownModelError(
                f"{store.place}: no model {self.model('<target>')} has the alias '{self.alias}'; "
                "`dvc repro register` registers the trained targets"
            )
        for name, version in found.items() if self.backbone_dir is None else ():
            backbone = version.tags.get(BACKBONE_DIR)
            if backbone and not Path(backbone).is_dir():
                raise ArtifactError(
                    f"{backbone}: no such folder; models:/{self.model(name)}@{self.alias} needs it as its backbone. "
                    "Restore it by `dvc pull backbone` or `dvc repro backbone`, name another by --backbone, or set "
                    "models.backbone: include to store it in the next version"
                )
        return found


def is_of(version: Version, target: str) -> bool:
    """Whether a version is a cell of this target. Another experiment's name may begin with this one's."""
    return version.tags.get(CELL, "").split("/")[1:2] == [target]
