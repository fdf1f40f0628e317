"""Measure how long programs take to start, in processor seconds, and in ratio to the bare interpreter.

    python benchmarks/starts.py [PROJECT] [--repeats 5]

PROJECT (default: this folder) is a checkout with what `make demo` writes. Prints a Markdown table of the shortest of
several starts, with `python -c pass` measured in the same run: `pemt --help`; each step's `--help`; what a step
imports, opens and loads before its work; and `dvc repro` with nothing to do. A start is left out if PROJECT lacks its
inputs.
"""

import argparse
import resource
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from pemt_core.settings.groups import STEPS

LIMITS = {"pemt --help": 0.1, "dvc repro, nothing to do": 3.0}  # seconds; of every other start 4
OTHERS = 4.0
FIRST_WORK = """
import sys
from pathlib import Path
from components.command import collect_rarely
collect_rarely()
import pemt_core.steps.{step}
if {opens}:
    from pemt_core.tracking.store import open_store
    open_store("sqlite:///starts.db", "starts", Path(sys.argv[1]))
if {loads}:
    from pemt_core.backbone.store import load_backbone
    load_backbone(Path("backbone"))
"""
TRACKED = ("backbone", "train_source", "transfer", "record", "register")  # steps that open the store
LOADING = ("train_source", "transfer", "evaluate")  # steps that load the backbone


class Start(NamedTuple):
    """A program to start, in the project's folder."""

    name: str
    command: list[str]
    needs: str = ""  # a file of the project


def starts(scratch: str) -> list[Start]:
    python = sys.executable
    found = [Start("python -c pass", [python, "-c", "pass"]), Start("pemt --help", [beside("pemt"), "--help"])]
    found += [Start(f"{step} --help", [python, "-m", f"components.{step}", "--help"]) for step in STEPS]
    for step in STEPS:
        loads = step in LOADING
        code = FIRST_WORK.format(step=step, opens=step in TRACKED, loads=loads)
        needs = "backbone/backbone.json" if loads else ""
        found.append(Start(f"{step}, until its work", [python, "-c", code, scratch], needs))
    return [*found, Start("dvc repro, nothing to do", [beside("dvc"), "repro"], "results/summary.json")]


def beside(program: str) -> str:
    """A program of the same environment as this interpreter."""
    return str(Path(sys.executable).with_name(program))


def seconds(command: list[str], folder: Path) -> float:
    """Processor seconds of a process and its children. Raises CalledProcessError with what it wrote if it fails."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, nargs="?", default=Path())
    parser.add_argument("--repeats", type=int, default=5, help="of each start (default: %(default)s)")
    arguments = parser.parse_args()
    print("| start | seconds | ratio to `python -c pass` | limit |")
    print("| --- | ---: | ---: | ---: |")
    bare = 0.0
    with TemporaryDirectory() as scratch:
        for start in starts(scratch):
            if start.needs and not (arguments.project / start.needs).exists():
                continue
            if (
                "repro" in start.command
                and subprocess.run([beside("dvc"), "status", "--quiet"], cwd=arguments.project).returncode
            ):
                continue  # something is to be done
            best = min(seconds(start.command, arguments.project) for _ in range(arguments.repeats))
            bare = bare or best
            limit = LIMITS.get(start.name, OTHERS) if start.name != "python -c pass" else None
            shown = "" if limit is None else f"{limit:g}"
            print(f"| {start.name} | {best:.2f} | {best / bare:.0f} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
