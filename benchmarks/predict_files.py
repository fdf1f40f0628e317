"""Measure `pemt predict` by rows per second: one and two workers, and two threads in one process.

Each is alone at first, then beside a busy process that is bound to one of the cores. Run it in a trained project, as
after `make demo`: python benchmarks/predict_files.py [--target cb] [--rows 4000] [--repetitions 3]. It prints a
Markdown table with medians and their ratios to one worker alone; the repetitions of all variants take turns.
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
import json, sys, time
from pathlib import Path
import torch
import pemt_core
from pemt_core.prediction.files import predict_file
from pemt_core.processes import schedule

target, rows, answers, workers = json.loads(sys.argv[1])
if workers is None:
    schedule.SINGLE_THREADED = 0  # every backbone counts as large
    torch.set_num_threads(2)
predictor = pemt_core.load([target])
predictor.predict(["text: a few words"] * 8)
begin = time.perf_counter()
number = predict_file(predictor, Path(rows), Path(answers), workers=workers)
print(number / (time.perf_counter() - begin))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="cb", help="one of the trained targets (%(default)s)")
    parser.add_argument("--rows", type=int, default=4_000, help="rows of the file (%(default)s)")
    parser.add_argument("--repetitions", type=int, default=3, help="of each variant (%(default)s)")
    arguments = parser.parse_args()
    found: dict[tuple[str, bool], list[float]] = {(name, busy): [] for busy in (False, True) for name in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        rows = write_rows(Path(folder, "rows.csv"), arguments.target, arguments.rows)
        for _ in range(arguments.repetitions):
            for (name, busy), speeds in found.items():
                words = json.dumps([arguments.target, str(rows), str(Path(folder, "answers.csv")), VARIANTS[name]])
                with busy_process() if busy else nullcontext():
                    speeds.append(rows_per_second(words))
    medians = {key: statistics.median(speeds) for key, speeds in found.items()}
    print("| variant | rows/s alone | ratio | rows/s beside a busy process | ratio |")
    print("| --- | ---: | ---: | ---: | ---: |")
    first = next(iter(medians.values()))
    for name in VARIANTS:
        cells = [f"{medians[name, busy]:.0f} | {medians[name, busy] / first:.2f}" for busy in (False, True)]
        print(f"| {name} | {' | '.join(cells)} |")


def write_rows(path: Path, target: str, num_rows: int) -> Path:
    """Write the texts of a target's test rows, over and over."""
    texts = pq.read_table(Path("data") / target / "test.parquet")["source"].to_pylist()
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["source"])
        writer.writerows([text] for text in islice(cycle(texts), num_rows))
    return path


def rows_per_second(words: str) -> float:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", PREDICT, words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout.splitlines()[-1])


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
