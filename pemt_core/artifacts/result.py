"""The result of one cell (a target task, a method, a k and a seed), which the evaluate step writes and reports read.

results/<target>/<method>-k<k>-seed<seed>/result.json       CellResult, every key required, no other allowed
results/<target>/<method>-k<k>-seed<seed>/predictions.jsonl
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ConfigDict, JsonValue, ValidationError, model_validator
from pydantic.dataclasses import dataclass

from pemt_core.answering.rule import AnswerRule
from pemt_core.artifacts.cell import Cell
from pemt_core.artifacts.files import read_record, sha256_of_json, write_record
from pemt_core.errors import ArtifactError, nearest

STACKS = ("encoder", "decoder")  # of a backbone, in this order; a decoder-only one lacks the first
GATE_VALUES = ("entropy", "one_hot", "deviation")  # of `pemt_core.answering.gates`; only the last is always a number
RESULT_FILE = "result.json"
_Layer = TypeVar("_Layer")


@dataclass(frozen=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))
class CellResult:
    """One row of every table. Values are checked on creation, so that saved results can be loaded."""

    task: str
    suite: str  # GLUE, SuperGLUE, MRQA, Others or Own
    method: str
    k: Literal["full"] | int  # training rows per class; full: all rows
    seed: int
    learning_rate: float  # the best on validation
    answer: AnswerRule  # the rule that answered the test
    main_metric: str  # a key of `test`
    test: dict[str, float]  # metric to points
    unreadable: int  # test predictions that are not an answer
    test_rows: int  # rows that were scored
    test_rows_available: int  # rows that the test split has
    validation: dict[str, float]  # metric to points, of the checkpoint that was kept
    trained_parameters: int
    sources: list[str]  # in the order of the experts; empty for methods without them
    expert_weights: dict[str, list[list[float]]] | None  # per stack of STACKS: [layer][expert], means over the test
    artifact: str  # hash of the adapter that was scored
    key: str  # hash of all that the adapter comes from
    data: str  # hash of the prepared task
    backbone: str  # fingerprint of the backbone
    settings: dict[str, JsonValue]  # of the method
    history: list[dict[str, int | float]]  # points of the learning curves, each with a "step"
    gates: dict[str, list[dict[str, float | None]]] | None = None  # per stack: [layer], the values of GateStatistics

    @model_validator(mode="after")
    def _agree(self) -> "CellResult":
        if self.k != "full" and self.k < 1:
            raise ValueError(f"k is {self.k}; expected 'full' or at least 1 row")
        if self.main_metric not in self.test:
            raise ValueError(f"main_metric '{self.main_metric}' is not in test; {nearest(self.main_metric, self.test)}")
        if not 0 < self.test_rows <= self.test_rows_available:
            raise ValueError(f"test_rows is {self.test_rows}; expected 1 to {self.test_rows_available} (all rows)")
        if any("step" not in point for point in self.history):
            raise ValueError("a point of history has no step")
        self._check_expert_weights()
        self._check_gates()
        return self

    def _check_expert_weights(self) -> None:
        if self.expert_weights is None:
            return
        if set(self.expert_weights) not in ({*STACKS}, {*STACKS[1:]}):
            expected = f"{' and '.join(STACKS)}, or {STACKS[1]} alone"
            raise ValueError(f"expert_weights has {sorted(self.expert_weights)}; expected {expected}")
        for stack, layers in self.expert_weights.items():
            if not layers or any(len(weights) != len(self.sources) for weights in layers):
                raise ValueError(
                    f"expert_weights of the {stack}: expected {len(self.sources)} weights per layer, one per source"
                )

    def _check_gates(self) -> None:
        if self.gates is None:
            return
        layers = {stack: len(weights) for stack, weights in (self.expert_weights or {}).items()}
        if {stack: len(gates) for stack, gates in self.gates.items()} != layers:
            raise ValueError("gates: expected an entry for each layer in expert_weights")
        for name in {name for gates in self.gates.values() for gate in gates for name in {*gate} ^ {*GATE_VALUES}}:
            raise ValueError(f"gates: each layer has {', '.join(GATE_VALUES)}, but '{name}' is missing or unknown")

    @property
    def cell(self) -> Cell:
        return Cell(self.task, self.method, self.k, self.seed)

    @property
    def score(self) -> float:
        """The main metric on the test split, in points."""
        return self.test[self.main_metric]

    @property
    def capped(self) -> bool:
        """Whether rows of the test split were left out."""
        return self.test_rows < self.test_rows_available

    def content_hash(self) -> str:
        """A hash of all values: equal exactly if a report would show the same."""
        return sha256_of_json(asdict(self))

    def save(self, directory: Path) -> None:
        """Write `directory`/result.json, atomically."""
        write_record(Path(directory) / RESULT_FILE, asdict(self))

    @classmethod
    def load(cls, directory: Path) -> "CellResult":
        """Read `directory`/result.json. Raises ArtifactError on a missing, unknown, ill-typed or contradictory key."""
        path = Path(directory) / RESULT_FILE
        values = read_record(path, "run the evaluate step again")
        known = [field.name for field in fields(cls)]
        for key in values:
            if key not in known:
                raise ArtifactError(f"{path}: unknown key '{key}'; {nearest(key, known)}")
        missing = [key for key in known if key not in values]
        if missing:
            raise ArtifactError(f"{path}: key '{missing[0]}' is missing; another version wrote it, evaluate again")
        try:
            return cls(**values)
        except ValidationError as error:
            raise ArtifactError(f"{path}: {_first_problem(error)}") from error


def _first_problem(error: ValidationError) -> str:
    """Describe the problem of the first bad key, and the value found."""
    first = error.errors()[0]
    if not first["loc"]:
        return first["msg"].removeprefix("Value error, ")
    return f"{first['loc'][0]}: {first['msg']}, found {first['input']!r}"


def named_layers(values: Mapping[str, Sequence[_Layer]] | None) -> dict[str, _Layer]:
    """Values per stack of a result by layer: "encoder 1" and so on, the encoder first."""
    return {f"{stack} {number}": layer for stack in STACKS if values and stack in values
            for number, layer in enumerate(values[stack], start=1)}  # fmt: skip


def cell_directory(results_dir: Path, result: CellResult) -> Path:
    """The folder of one cell's result below `results_dir`."""
    return Path(results_dir) / result.task / result.cell.name


def load_results(results_dir: Path) -> list[CellResult]:
    """Every result below `results_dir`, by suite, target, method, k and seed.

    Raises ArtifactError if there is none, if one is unreadable, or if one is in another cell's folder.
    """
    paths = sorted(Path(results_dir).glob(f"[!.]*/[!.]*/{RESULT_FILE}"))
    if not paths:
        raise ArtifactError(
            f"{results_dir}: no result.json in any <target>/<cell> folder; the evaluate step has not run for any cell"
        )
    results = [CellResult.load(path.parent) for path in paths]
    for path, result in zip(paths, results, strict=True):
        expected = cell_directory(results_dir, result)
        if path.parent != expected:
            raise ArtifactError(f"{path}: belongs in {expected}; it was copied or renamed")
    return sorted(results, key=sort_key)


def sort_key(result: CellResult) -> tuple[str, str, str, float, int]:
    """Suite, target, method, k (full last), seed."""
    k = float("inf") if result.k == "full" else result.k
    return result.suite, result.task, result.method, k, result.seed
