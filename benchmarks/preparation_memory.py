"""Measure peak memory and time of preparing 560,000 synthetic reviews, the size of Yelp, from a mirror of the hub.

    python benchmarks/preparation_memory.py

The preparation runs in a separate process, whose peak resident memory is printed as JSON with the time. It includes
memory shared with the page cache, which is most of a memory-mapped dataset.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema([("text", pa.string()), ("label", pa.int64())])
BATCH_ROWS = 10_000
WORDS_IN_REVIEW = (20, 240)  # about 133 words on average, as in Yelp
TEST_DIVISOR = 15  # 38,000 test rows for 560,000 training rows

PREPARE = """
import json, resource, sys, time
from pathlib import Path
from pemt_core.preparation import prepare_task
from pemt_core.tasks import get_task

started = time.perf_counter()
report = prepare_task(
    get_task("yelp"), source=sys.argv[1], embedded_seed=0, split_seed=42, max_rows={}, output_dir=Path(sys.argv[2])
)
print(json.dumps({
    "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    "seconds": round(time.perf_counter() - started, 1),
    "rows": {role: split.rows for role, split in report.splits.items()},
}))
"""


def write_mirror(folder: Path, num_rows: int) -> int:
    """Write a folder of `num_rows` synthetic training reviews; returns the bytes of text in it."""
    repository = folder / "fancyzhx" / "yelp_polarity"
    (repository / "plain_text").mkdir(parents=True)
    (repository / "README.md").write_text(
        "---\nconfigs:\n- config_name: plain_text\n  data_files:\n"
        "  - split: train\n    path: plain_text/train-*\n  - split: test\n    path: plain_text/test-*\n---\n"
    )
    return sum(
        _write_split(repository / "plain_text" / f"{split}-00000-of-00001.parquet", rows)
        for split, rows in (("train", num_rows), ("test", max(1, num_rows // TEST_DIVISOR)))
    )


def _write_split(path: Path, num_rows: int) -> int:
    num_bytes = 0
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for batch in _reviews(num_rows):
            writer.write_batch(pa.RecordBatch.from_pylist(batch, schema=SCHEMA))
            num_bytes += sum(len(row["text"]) for row in batch)
    return num_bytes


def _reviews(num_rows: int) -> Iterator[list[dict[str, object]]]:
    generator = random.Random(0)
    vocabulary = ["".join(generator.choices("abcdefghijklmnopqrstuvwxyz", k=4)) for _ in range(5_000)]
    for start in range(0, num_rows, BATCH_ROWS):
        yield [
            {"text": " ".join(generator.choices(vocabulary, k=generator.randint(*WORDS_IN_REVIEW))), "label": n % 2}
            for n in range(start, min(start + BATCH_ROWS, num_rows))
        ]


def measure(num_rows: int) -> dict[str, object]:
    """Prepare `num_rows` synthetic reviews in a fresh process with empty caches."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        num_bytes = write_mirror(folder / "mirror", num_rows)
        result = subprocess.run(
            [sys.executable, "-c", PREPARE, str(folder / "mirror"), str(folder / "prepared")],
            env=os.environ | {"HF_HOME": str(folder / "cache"), "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
    return {"train_rows_in": num_rows, "text_mb": round(num_bytes / 1e6), **json.loads(result.stdout)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=560_000, help="training reviews (default: %(default)s)")
    print(json.dumps(measure(parser.parse_args().rows), indent=2))


if __name__ == "__main__":
    main()
