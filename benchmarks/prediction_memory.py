"""Measure peak memory and time of `pemt predict` on 1,000, 10,000 and 100,000 rows: memory must not grow with the file.

Run it after `make demo`: python benchmarks/prediction_memory.py [--target yelp]
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
from itertools import cycle, islice
from pathlib import Path

import pyarrow.parquet as pq

SIZES = (1_000, 10_000, 100_000)

PREDICT = """
import json, resource, sys, time
from components.predict import main, make_parser

begin = time.perf_counter()
main(make_parser().parse_args(sys.argv[1:]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"peak_mib": round(peak), "seconds": round(time.perf_counter() - begin, 1)}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="yelp")
    target = parser.parse_args().target
    texts = pq.read_table(Path("data") / target / "test.parquet")["source"].to_pylist()
    print(f"{'rows':>8} {'peak MiB':>9} {'seconds':>8} {'against the first':>18}")
    first = None
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            rows, answers = Path(folder, "rows.csv"), Path(folder, "answers.csv")
            with rows.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(["source"])
                writer.writerows([text] for text in islice(cycle(texts), size))
            command = [sys.executable, "-c", PREDICT, str(rows), "--output", str(answers), "--target", target]
            command += ["--workers", "1"]  # this process answers all
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            first = first or found["peak_mib"]
            print(f"{size:8,} {found['peak_mib']:9} {found['seconds']:8} {found['peak_mib'] / first:18.2f}")


if __name__ == "__main__":
    main()
