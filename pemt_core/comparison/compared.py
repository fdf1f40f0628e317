"""A finished comparison, as its report reads it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pemt_core.artifacts.cell import Cell
from pemt_core.artifacts.result import CellResult
from pemt_core.comparison.definition import Definition
from pemt_core.settings import Settings
from pemt_core.settings.steps import MethodNaming


@dataclass(frozen=True)
class CellCost:
    """What one cell took: all the configurations that were tried for it together."""

    configurations: int  # pairs of an option and a learning rate that were started
    steps: int | None  # optimizer steps over all configurations; None: not measured
    seconds: float | None  # of training on one core, the sum over the configurations; None: not measured
    peak_memory_mib: int | None  # of the process that trained it; None: not measured
    stored_bytes: int  # of the trained tensors' folder


@dataclass(frozen=True)
class CellSearch:
    """How validation chose what a cell holds."""

    best_step: int  # of the kept checkpoint
    trials: Mapping[str, float | None]  # validation score in points by configuration; None: it diverged


@dataclass(frozen=True)
class SourcePart:
    """What one training of stage 1 made: an adapter with its prompt, or a prompt alone."""

    parameters: int
    steps: int
    seconds: float | None  # of the processor, over all threads; None: not known, as if it was trained elsewhere


@dataclass(frozen=True)
class SourceCost:
    """What stage 1 of one source took, and what it left."""

    adapter: SourcePart  # with its prompt
    lone_prompt: SourcePart | None  # the prompt that was trained without an adapter, if a method reads it
    stored_bytes: int


@dataclass(frozen=True)
class Compared:
    """Everything that a report of a comparison shows.

    Results have the name of a column in the place of the method: the method itself, or, if an experiment has several
    variants of stage 1, "<method>_<variant>" for every variant but `base`. All mappings by cell use it as well.
    """

    name: str  # of the experiment, and of its file and folder
    definition: Definition  # title, about, reference, family
    settings: Settings  # of params.yaml with the experiment's differences
    results: Sequence[CellResult]  # every cell of the experiment, in the order of targets and columns
    columns: Mapping[str, MethodNaming]  # title and explanation of every column, in the order of the file
    variants: Mapping[str, str]  # the variant of stage 1 of every column
    on_lone_prompts: Collection[str]  # columns that read prompts trained alone, instead of source adapters
    candidates: Mapping[str, Sequence[str]]  # the sources of every column; a cell draws on these, or one chosen of them
    scores: Mapping[Cell, Path]  # the folder of a cell's result.json and predictions.jsonl
    cells: Mapping[Cell, Path]  # the folder of a cell's adapter.json, training.json and tensors
    costs: Mapping[Cell, CellCost]
    searches: Mapping[Cell, CellSearch]
    added_flops: Mapping[str, int]  # of every column: operations per row beyond those of the bare backbone
    sources: Mapping[str, Mapping[str, SourceCost]]  # by variant, then source
    backbones: Mapping[str, int]  # the parameters of every backbone, by what it is
    chance: Mapping[str, float]  # points that guessing scores, of targets where no constant answer shows it
    data_dir: Path  # with the folder of every target's prepared rows

    @property
    def reference(self) -> str:
        """The column that the others are compared with."""
        return self.definition.reference

    @property
    def family(self) -> list[str]:
        """The columns that are tested against the reference, fixed beforehand by the experiment's file."""
        listed = self.definition.family
        return [name for name in self.columns if name != self.reference] if listed is None else listed
