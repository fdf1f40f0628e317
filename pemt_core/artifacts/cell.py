"""The cell: the unit of training in stage 2, which names folders and results."""

from dataclasses import dataclass
from typing import Literal

FewShot = Literal["full"] | int


@dataclass(frozen=True)
class Cell:
    """A target task, a method's name, a few-shot k and a seed."""

    task: str
    method: str
    k: FewShot
    seed: int

    @property
    def run(self) -> str:
        """The name of its tracking run, such as "transfer/cb/pemt/k=full/seed=4096"."""
        return f"transfer/{self.task}/{self.method}/k={self.k}/seed={self.seed}"

    @property
    def name(self) -> str:
        """The name of its folder, such as "pemt-kfull-seed4096"."""
        return f"{self.method}-k{self.k}-seed{self.seed}"
