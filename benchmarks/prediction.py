"""Answers of trained targets beside what their evaluation generated: how many agree, and how many rows a second.

Run after `make demo`: python benchmarks/prediction.py [--method pemt]
"""

import argparse
import json
import time
from pathlib import Path

import pyarrow.parquet as pq

from pemt_core.prediction.predictor import load_predictor
from pemt_core.settings import load_settings
from pemt_core.tasks import get_task


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", default="pemt")
    method = parser.parse_args().method
    cells = {path.parents[1].name: path.parent for path in sorted(Path("scores").glob(f"*/{method}-*/result.json"))}
    predictor = load_predictor(
        Path("backbone"),
        Path("experts"),
        {task: Path("adapters/targets") / task / cell.name for task, cell in cells.items()},
        {task: Path("data") / task for task in cells},
        {task: get_task(task).conversion for task in cells},
        batch_size=load_settings(Path("params.yaml")).evaluate.batch_size,
    )
    print(f"{'target':12} {'rows':>5} {'same':>5} {'right':>6} {'right, generated':>17} {'rows/s':>7}")
    totals = [0, 0]
    for task, cell in cells.items():
        generated = [json.loads(line) for line in (cell / "predictions.jsonl").read_text().splitlines()]
        rows = pq.read_table(Path("data") / task / "test.parquet").slice(0, len(generated)).to_pylist()
        begin = time.perf_counter()
        found = [each.prediction for each in predictor.predict([row["source"] for row in rows], task)]
        speed = len(rows) / (time.perf_counter() - begin)
        written = [each["prediction"] for each in generated]
        same = sum(a == b for a, b in zip(found, written, strict=True))
        right = [
            sum(text in row["references"] for text, row in zip(own, rows, strict=True)) for own in (found, written)
        ]
        totals = [totals[0] + len(rows), totals[1] + same]
        print(f"{task:12} {len(rows):5} {same:5} {right[0]:6} {right[1]:17} {speed:7.0f}")
    print(f"{totals[1]} of {totals[0]} answers are the same")


if __name__ == "__main__":
    main()
