"""Kills, generated inputs and damaged files at scale; prints one line of figures, and exits with 1 if one is wrong.

`make soak` runs the long form. A run is repeated by its seed; failing inputs and logs are kept in --failures.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).parents[2]


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=60, help="runs that are killed (default: 60)")
    parser.add_argument("--inputs", type=int, default=100_000, help="generated inputs (default: 100000)")
    parser.add_argument("--damage", type=int, default=5_000, help="damaged files (default: 5000)")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is drawn (default: 1)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (default: one per core)")
    parser.add_argument("--loaders", nargs="+", default=[], help="generate inputs for these loaders alone")
    parser.add_argument("--failures", type=Path, default=Path("soak-failures"), help="folder of what failed")
    return parser


def main(arguments: argparse.Namespace) -> int:
    from pemt_core.provenance.commit import git_commit
    from soak.damage import damage_files
    from soak.ground import Ground
    from soak.inputs import generate_inputs
    from soak.kills import kill_runs

    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background jobs ignore it, as do their children
    begin, parts, wrong = time.monotonic(), [], 0
    failures = arguments.failures.resolve()
    with TemporaryDirectory(prefix="soak-ground-") as folder:
        ground = Ground.make(Path(folder)) if arguments.inputs or arguments.damage else None
        shared = (arguments.seed, arguments.workers, failures)
        if ground and arguments.inputs:
            inputs = generate_inputs(ground, arguments.inputs, *shared, arguments.loaders)
            parts, wrong = [*parts, str(inputs)], wrong + len(inputs.failures)
        if ground and arguments.damage:
            damage = damage_files(ground, arguments.damage, *shared)
            parts, wrong = [*parts, str(damage)], wrong + len(damage.failures)
    if arguments.kills:
        kills = kill_runs(arguments.kills, *shared)
        parts, wrong = [str(kills), *parts], wrong + len(kills.failures)
    seconds = time.monotonic() - begin
    kept = f"; failures in {failures}" if wrong else ""
    print(f"soak at {git_commit()[:7]}, seed {arguments.seed}: {'; '.join(parts)}; {seconds:.0f} s{kept}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(make_parser().parse_args()))
