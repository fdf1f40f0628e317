"""Published results in the paper's setting: T5-base, all training data, the whole test split.

They are from the tables of the ULPT paper, which takes them from DePT (Shi and Lipani, ICLR 2024): main metric in
points, each method trained per target. Label conventions and splits differ slightly between papers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from pemt_core.artifacts.result import CellResult
from pemt_core.settings.groups import EMBEDDED, BackboneSettings, PrepareSettings

BACKBONE = "t5-base"
TARGETS = (
    "stsb", "mrpc", "rte", "cola", "multirc", "boolq", "wic", "wsc", "cb", "nq", "hotpotqa", "searchqa", "newsqa",
    "winogrande", "yelp", "scitail", "paws",
)  # fmt: skip
_TABLE = """
full fine-tuning | 220e6 | 89.7 90.2 71.9 61.8 72.8 81.1 70.2 59.6 85.7 75.1 77.5 81.1 65.2 61.9 96.7 95.8 94.1
adapter          | 1.9e6 | 90.7 85.3 71.9 64.0 75.9 82.5 67.1 67.3 85.7 74.2 77.6 81.4 65.6 59.2 96.9 94.5 94.3
BitFit           | 280e3 | 90.9 86.8 67.6 58.2 74.5 79.6 70.0 59.6 78.6 70.7 75.5 77.7 64.1 57.2 94.7 94.7 92.0
LoRA             | 3.8e6 | 90.0 90.1 75.5 63.3 72.6 81.3 68.3 67.3 92.9 72.4 62.3 72.5 56.9 58.2 97.1 94.7 94.0
prompt tuning    | 77e3  | 90.5 88.7 77.7 59.5 72.3 80.4 67.7 67.3 78.6 70.0 74.7 75.3 63.0 49.6 95.6 92.0 57.9
SPoT             | 77e3  | 90.0 79.7 69.8 57.1 74.0 77.2 67.0 50.0 46.4 68.2 74.8 75.3 58.2 50.4 95.4 91.2 91.1
ATTEMPT          | 232e3 | 89.7 85.7 74.3 57.4 74.4 78.8 66.8 53.8 78.6 70.4 75.2 78.5 62.8 57.6 96.7 93.1 92.1
MPT              | 78e3  | 90.4 89.1 79.4 62.4 74.8 79.6 69.0 67.3 79.8 72.0 75.8 77.2 63.7 56.5 96.4 95.5 93.5
DePT             | 77e3  | 90.8 90.7 79.1 63.8 74.3 79.3 68.7 67.3 92.9 73.2 76.0 77.6 64.4 59.0 96.8 95.6 93.7
"""


@dataclass(frozen=True)
class Published:
    """One method as published: trained parameters per target, and points by target."""

    method: str
    parameters: float
    points: dict[str, float]

    def mean(self, targets: Sequence[str]) -> float | None:
        """Return the mean over `targets`; None if one of them was not published."""
        return fmean(self.points[target] for target in targets) if set(targets) <= set(self.points) else None


def _parse(line: str) -> Published:
    method, parameters, points = (part.strip() for part in line.split("|"))
    return Published(
        method, float(parameters), dict(zip(TARGETS, (float(value) for value in points.split()), strict=True))
    )


PUBLISHED = tuple(_parse(line) for line in _TABLE.strip().splitlines())


@dataclass(frozen=True)
class Comparable:
    """The targets whose published points are comparable with the results, or a clause that says why there are none."""

    targets: list[str]
    reason: str

    @property
    def rows(self) -> Sequence[Published]:
        """The published methods, if there are comparable targets."""
        return PUBLISHED if self.targets else ()

    def mean(self, row: Published, targets: Sequence[str]) -> float | None:
        """Return the published mean over `targets`; None if one of them is not comparable."""
        return row.mean(targets) if set(targets) <= set(self.targets) else None

    def over(self, targets: Sequence[str]) -> Sequence[Published]:
        """Return the published methods that have all `targets`."""
        return [row for row in self.rows if self.mean(row, targets) is not None]


def comparable_with(results: Sequence[CellResult], backbone: BackboneSettings, prepare: PrepareSettings) -> Comparable:
    """Return the targets with a result in the paper's setting, in the order of the results."""
    caps = prepare.max_rows.model_dump().values()
    if not any(result.task in TARGETS for result in results):
        return Comparable([], "no published target is included")
    if prepare.source == EMBEDDED:
        return Comparable([], "the data is generated")
    if backbone.kind != "hub" or Path(backbone.name).name != BACKBONE:
        return Comparable([], "the backbone is not T5-base")
    if any(cap is not None for cap in caps):
        return Comparable([], "the datasets were truncated")
    full = [result for result in results if result.k == "full" and result.task in TARGETS]
    if not full:
        return Comparable([], "no published target was trained on all its data")
    whole = list(dict.fromkeys(result.task for result in full if not result.capped))
    return Comparable(whole, "" if whole else "test splits were scored only in part")
