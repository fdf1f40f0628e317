"""Finished comparisons with planted scores, as files: prepared test rows, predictions, training records and results."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from test_report import REPOSITORY, SUITES

from pemt_core.artifacts.result import CellResult, cell_directory
from pemt_core.comparison.compared import CellCost, CellSearch, Compared, SourceCost, SourcePart
from pemt_core.comparison.definition import Definition, Statistics
from pemt_core.data.prepared import ROW_SCHEMA, SPLITS, TaskDescription, write_description
from pemt_core.metrics import Scored, score
from pemt_core.settings import load_settings
from pemt_core.settings.steps import MethodNaming

SOURCES = ["mnli", "qnli", "sst2"]
SUITE_OF = {task: suite for suite, tasks in SUITES.items() for task in tasks}
ADAPTER, LONE_PROMPT = SourcePart(50_000, 1_000, 60.0), SourcePart(1_500, 2_000, 40.0)
WITHOUT_SOURCES = ("lora", "full", "prompt_tuning", "bitfit")


@dataclass
class Planted:
    """A comparison to make. `accuracy` maps methods to the share of right answers on every target."""

    folder: Path
    accuracy: Mapping[str, float]
    targets: Sequence[str] = tuple(SUITE_OF)
    floor: Sequence[str] = ()  # targets where every method gives the constant answer
    ks: Sequence[Any] = (32,)
    seeds: Sequence[int] = (1, 2, 3)
    rows: int = 120
    family: Sequence[str] | None = None
    titles: Mapping[str, str] = field(default_factory=dict)
    parameters: Mapping[str, int] = field(default_factory=dict)
    controls: Sequence[str] = ()
    statistics: Statistics = field(default_factory=lambda: Statistics(margin=2.0, draws=300, seed=1))
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of methods
    on_lone_prompts: Sequence[str] = ()
    one_source: Sequence[str] = ()  # methods that choose one of SOURCES
    layers: Mapping[str, int] = field(default_factory=lambda: {"encoder": 4, "decoder": 2})  # of the backbone

    def compared(self) -> Compared:
        settings = load_settings(REPOSITORY / "params.yaml")
        results, costs = [], {}
        for target in self.targets:
            references = self._prepare(target)
            for method in self.accuracy:
                for k in self.ks:
                    for seed in self.seeds:
                        result = self._cell(target, method, k, seed, references)
                        results.append(result)
                        costs[result.cell] = CellCost(3, 300, 12.5 + len(method), 400 + len(method), 100_000)
        title = "Synthetic comparison"
        about = "Every answer is drawn with a planted probability of being right."
        definition = Definition(
            title=title, about=about, reference="pemt", family=self.family and list(self.family),
            controls=list(self.controls), statistics=self.statistics,
        )  # fmt: skip
        naming = {m: MethodNaming(title=self.titles.get(m, m), about="") for m in self.accuracy}
        return Compared(
            name="synthetic",
            definition=definition,
            settings=settings,
            results=results,
            columns=naming,
            variants=dict.fromkeys(self.accuracy, "base"),
            on_lone_prompts=self.on_lone_prompts,
            candidates={m: [] if m in WITHOUT_SOURCES else SOURCES for m in self.accuracy},
            scores={r.cell: cell_directory(self.folder / "scores", r) for r in results},
            cells={r.cell: cell_directory(self.folder / "cells", r) for r in results},
            costs=costs,
            searches={r.cell: CellSearch(200, {"lr 0.001": 80.0, "lr 0.003": 79.5}) for r in results},
            added_flops={m: 1_000 * len(m) for m in self.accuracy},
            sources={"base": {s: SourceCost(ADAPTER, LONE_PROMPT, 200_000) for s in SOURCES}},
            backbones={"backbone": 2_000_000},
            chance={},
            data_dir=self.folder / "data",
        )

    def _prepare(self, target: str) -> list[str]:
        """Write a task of two labels, of which "yes" is right for 60 % of the rows."""
        folder = self.folder / "data" / target
        folder.mkdir(parents=True)
        references = ["yes" if row % 5 < 3 else "no" for row in range(self.rows)]
        rows = [
            {"id": f"{target}{row}", "group": f"{target}{row // 2}", "cluster": f"{target}{row // 4}",
             "source": f"text {row}", "target": word, "references": [word]}
            for row, word in enumerate(references)
        ]  # fmt: skip
        for split in SPLITS:
            pq.write_table(pa.Table.from_pylist(rows, ROW_SCHEMA), folder / f"{split}.parquet")
        task = TaskDescription(target, SUITE_OF[target], "Decide.", ["no", "yes"], ["accuracy"], 4)
        write_description(folder, task)
        return references

    def _cell(self, target: str, method: str, k: Any, seed: int, references: Sequence[str]) -> CellResult:
        generator = np.random.default_rng([seed, len(target), sum(map(ord, target + method)), 0 if k == "full" else k])
        few = 0 if k == "full" else max(0.0, 0.02 * (5 - np.log2(k)))
        right = generator.random(len(references)) < self.accuracy[method] - few
        other = {"yes": "no", "no": "yes"}
        answers = [r if hit else other[r] for r, hit in zip(references, right, strict=True)]
        if target in self.floor:
            answers = ["yes"] * len(references)
        scored = Scored(answers, [[r] for r in references], [f"{target}{row // 2}" for row in range(self.rows)],
                        ["no", "yes"])  # fmt: skip
        sources = [] if method in WITHOUT_SOURCES else SOURCES[:1] if method in self.one_source else SOURCES
        experts, gates = planted_gates(generator, method, self.layers) if len(sources) > 1 else (None, None)
        result = CellResult(
            task=target, suite=SUITE_OF[target], method=method, k=k, seed=seed, learning_rate=1e-3, answer="generate",
            main_metric="accuracy", test=score(["accuracy"], scored), unreadable=0, test_rows=self.rows,
            test_rows_available=self.rows, validation={"accuracy": 80.0},
            trained_parameters=self.parameters.get(method, 1_000 * (1 + len(method))), sources=sources,
            expert_weights=experts, artifact=f"artifact of {target} {method} {seed}", key=f"key of {method}",
            data="data", backbone="backbone", settings={"kind": method, **self.settings.get(method, {})}, history=[],
            gates=gates,
        )  # fmt: skip
        folder = cell_directory(self.folder / "scores", result)
        result.save(folder)
        lines = [
            json.dumps({"id": f"{target}{row}", "text": f"text {row}", "prediction": answer, "references": [right]})
            for row, (answer, right) in enumerate(zip(answers, references, strict=True))
        ]
        (folder / "predictions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return result


def planted_gates(generator: np.random.Generator, method: str, shape: Mapping[str, int]) -> tuple[Any, Any]:
    """Mean weights and statistics of every layer."""
    if method == "uniform":
        experts = {stack: [[1 / len(SOURCES)] * len(SOURCES)] * layers for stack, layers in shape.items()}
        gates = {s: [{"entropy": 1.0, "one_hot": 0.0, "deviation": 0.0}] * n for s, n in shape.items()}
        return experts, gates
    experts = {
        stack: [list(map(float, generator.dirichlet([0.4] * len(SOURCES)))) for _ in range(layers)]
        for stack, layers in shape.items()
    }
    gates = {
        stack: [
            {"entropy": float(generator.uniform(0.1, 0.9)), "one_hot": float(generator.uniform()),
             "deviation": float(generator.uniform(0, 0.02))}
            for _ in range(layers)
        ]
        for stack, layers in shape.items()
    }  # fmt: skip
    return experts, gates
