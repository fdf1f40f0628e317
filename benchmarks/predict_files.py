"""Measure `pemt predict` in rows per second, and per second of the processors: one and two workers, and two threads.

Each is alone at first (the left columns), then beside a busy process that is bound to one of the cores. Run it in a
trained project, as after `make demo`:

    python benchmarks/predict_files.py [--target cb] [--rows 1000] [--repetitions 3]

It prints a Markdown table with medians and their ratios to one worker alone; repetitions of all variants take turns.
Seconds of the processors count what is computed, and what threads spend on waiting for one another.
"""

import argparse
import csv
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from itertools import cycle, islice
from pathlib import Path

import pyarrow.parquet as pq

# The number of workers, or None for one process with torch's threads
VARIANTS = {"1 worker": 1, "2 workers": 2, "2 threads in one process": None}

PREDICT = """
import json, os, sys, time
from pathlib import Path
import torch
import pemt_core
from pemt_core.prediction import files
from pemt_core.processes import schedule

target, rows, answers, workers = json.loads(sys.argv[1])
files.CHUNK_ROWS = 100  # so that a short file has many parts
if workers is None:
    schedule.SINGLE_THREADED = 0  # every backbone counts as large
    torch.set_num_threads(2)
predictor = pemt_core.load([target])
predictor.predict(["text: a few words"] * 8)
begin, before = time.perf_counter(), sum(os.times()[:4])
number = files.predict_file(predictor, Path(rows), Path(answers), workers=workers)
print(json.dumps([number / (time.perf_counter() - begin), number / (sum(os.times()[:4]) - before)]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="cb", help="one of the trained targets (%(default)s)")
    parser.add_argument("--rows", type=int, default=1_000, help="rows of the file (%(default)s)")
    parser.add_argument("--repetitions", type=int, default=3, help="of each variant (%(default)s)")
    arguments = parser.parse_args()
    found: dict[tuple[str, bool], list[list[float]]] = {(name, busy): [] for busy in (False, True) for name in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        rows = write_rows(Path(folder, "rows.csv"), arguments.target, arguments.rows)
        for _ in range(arguments.repetitions):
            for (name, busy), speeds in found.items():
                words = json.dumps([arguments.target, str(rows), str(Path(folder, "answers.csv")), VARIANTS[name]])
                with busy_process() if busy else nullcontext():
                    speeds.append(rows_per_second(words))
    print(f"| variant |{' rows/s | ratio | rows per processor second | ratio |' * 2}")
    print(f"| --- |{' ---: |' * 8}")
    medians = {key: [statistics.median(values) for values in zip(*each, strict=True)] for key, each in found.items()}
    first = next(iter(medians.values()))
    for name in VARIANTS:
        both = zip([*medians[name, False], *medians[name, True]], [*first, *first], strict=True)
        print(f"| {name} | {' | '.join(f'{value:.0f} | {value / one:.2f}' for value, one in both)} |")


def write_rows(path: Path, target: str, num_rows: int) -> Path:
    """Write the texts of a target's test rows, over and over."""
    texts = pq.read_table(Path("data") / target / "test.parquet")["source"].to_pylist()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["source"])
        writer.writerows([text] for text in islice(cycle(texts), num_rows))
    return path


def rows_per_second(words: str) -> list[float]:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", PREDICT, words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def busy_process() -> Iterator[None]:
    """A process that computes without a pause on the last of the cores."""
    core = max(os.sched_getaffinity(0))
    program = f"import os\nos.sched_setaffinity(0, [{core}])\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        try:
            yield
        finally:
            process.kill()


if __name__ == "__main__":
    main()
