"""The folders that experiments share, and those of their reports."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Folders:
    """Places below `root`; source adapters, experts, cells and scores by variant."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"

    def tokenizer(self, own: str | None) -> Path:
        """As prepared with the data, or that of the variant `own`."""
        return self.data / "tokenizer" if own is None else self.root / "tokenizers" / own

    def backbone(self, own: str | None) -> Path:
        """The one that variants share, or that of the variant `own`."""
        return self.root / "backbone" if own is None else self.root / "backbones" / own

    def sources(self, variant: str) -> Path:
        return self.root / "sources" / variant

    def experts(self, variant: str) -> Path:
        return self.root / "experts" / variant

    def targets(self, variant: str) -> Path:
        return self.root / "targets" / variant

    def scores(self, variant: str) -> Path:
        return self.root / "scores" / variant

    def costs(self, variant: str) -> Path:
        """What trainings took: <target>/<cell>.json."""
        return self.root / "costs" / variant

    @property
    def source_seconds(self) -> Path:
        """What trainings of stage 1 took, by what they made."""
        return self.root / "made" / "seconds"

    def made(self, what: str) -> Path:
        """The file that says what a folder was made of."""
        return self.root / "made" / f"{what}.json"

    def report(self, experiment: str, is_whole: bool = True) -> Path:
        """The report of an experiment, or that of a part, which must not replace it."""
        return self.root / experiment if is_whole else self.root / experiment / "part"
