"""The cell: the unit that stage 2 trains, that folders are named by and that results are counted in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pemt_core.errors import ArtifactError, nearest

if TYPE_CHECKING:
    from pemt_core.settings import TransferSettings


def methods_over(sources: Sequence[str]) -> dict[str, list[str]]:
    """Every method that there is with these sources, and which of them it draws on.

    pemt; control: everything of stage 2 that needs no sources; without_<source>: pemt with one of several left out.
    """
    one_less = {f"without_{left_out}": [source for source in sources if source != left_out] for left_out in sources}
    return {"pemt": list(sources), "control": [], **(one_less if len(sources) > 1 else {})}


@dataclass(frozen=True)
class Cell:
    """A target task, a method, a few-shot k and a seed."""

    task: str
    method: str  # one of `methods_over` its sources
    k: Literal["full"] | int
    seed: int

    @property
    def run(self) -> str:
        """The name of its tracking run, such as "transfer/cb/pemt/k=full/seed=4096"."""
        return f"transfer/{self.task}/{self.method}/k={self.k}/seed={self.seed}"

    @property
    def name(self) -> str:
        """The name of its folder, such as "pemt-kfull-seed4096"."""
        return f"{self.method}-k{self.k}-seed{self.seed}"

    def sources(self, known: Sequence[str]) -> list[str]:
        """Those of the `known` sources that its method draws on, in their order; none for control.

        ArtifactError where the method leaves out a source that is not known, or the only one.
        """
        methods = methods_over(known)
        if self.method not in methods:
            raise ArtifactError(
                f"{self.task}: no method '{self.method}' with the experts of {', '.join(known)}; "
                f"{nearest(self.method, methods)}"
            )
        return methods[self.method]


def cells_of(task: str, settings: "TransferSettings") -> list[Cell]:
    """All cells of a target, in a fixed order."""
    cells = [Cell(task, m, k, seed) for m in settings.methods for k in settings.k for seed in settings.seeds]
    return list(dict.fromkeys(cells))
