"""How far an exported target agrees with the original: the rows of a split with the same answer, and the metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pemt_core.answering.split import EvaluationSplit


@dataclass(frozen=True)
class Agreement:
    """What merging the mean gates costs on a split."""

    split: str
    rows: int
    share: float  # of rows that have the same answer
    before: Mapping[str, float]  # every metric in points, of the original
    after: Mapping[str, float]  # of the export

    @classmethod
    def of(cls, name: str, split: EvaluationSplit, before: Sequence[str], after: Sequence[str]) -> "Agreement":
        same = sum(one == other for one, other in zip(before, after, strict=True))
        return cls(name, len(split), same / len(split), split.metrics(before), split.metrics(after))

    def __str__(self) -> str:
        metric, score = next(iter(self.before.items()))
        return (
            f"{100 * self.share:.1f} % of {self.rows:,} {self.split} rows have the same answer; "
            f"{metric} {score:.1f} -> {self.after[metric]:.1f}"
        )
