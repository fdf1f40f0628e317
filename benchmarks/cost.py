"""Print where the time of a finished pipeline went: `python benchmarks/cost.py [PROVENANCE_FOLDER]`.

The Markdown table shows what every step wrote to provenance/: its wall time (without imports) and the peak memory of
its processes.
"""

import json
import sys
from pathlib import Path

from pemt_core.settings.groups import STEPS


def main(folder: Path) -> None:
    print("| step | processes | seconds | slowest | peak memory (MiB) |")
    print("| --- | --- | --- | --- | --- |")
    total, peak = 0.0, 0
    for step in STEPS:
        paths = (
            [folder / f"{step}.json"] if (folder / f"{step}.json").is_file() else sorted(folder.glob(f"{step}/*.json"))
        )
        runs = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}
        seconds = sum(run["seconds"] for run in runs.values())
        memory = max(run["peak_memory_mib"] + run.get("workers_memory_mib", 0) for run in runs.values())
        slowest = max(runs, key=lambda name: runs[name]["seconds"])
        named = f"{slowest}: {runs[slowest]['seconds']:.0f}" if len(runs) > 1 else ""
        print(f"| {step} | {len(runs)} | {seconds:.0f} | {named} | {memory:,} |")
        total, peak = total + seconds, max(peak, memory)
    print(f"| all | | {total:.0f} | | {peak:,} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("provenance"))
