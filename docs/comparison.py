"""Write docs/comparison.md and the files beside it from the reports of `pemt compare`.

`python docs/comparison.py` in the folder that has `comparison/`, or `python docs/comparison.py --project FOLDER`. The
report of a part of an experiment is taken if there is none of the whole. An experiment without any is left as it is in
docs/comparison/, or is named as not run.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from ruamel.yaml import YAML

DOCS = Path(__file__).parent
PAGE, FILES = DOCS / "comparison.md", DOCS / "comparison"
EXPERIMENTS = ("router_swap", "table1", "controls", "few_shot", "ablations")
KEPT = ("rows.csv", "paragraph.md", "table.md", "made.md")
FIGURES = ("by_k", "points", "ranks", "ranks_above_floor", "matrix", "gates")

HEAD = """\
# The comparison on the embedded suite

Every number here comes from `pemt compare` on generated data and the embedded backbone of about a million parameters:
17 targets, seeds from 51 on, which played no part in development, and k = 32 examples per class unless another k is
named. They show how the methods compare under equal conditions, not what they reach on real language. Where points are
drawn against trained parameters, methods with nearly equal numbers stand side by side; the tables have the numbers.
[comparing.md](comparing.md) has the rules, the statistics and how to trace a number. The learning rates of all methods
were found by `pemt compare learning_rates` on other seeds. `python docs/comparison.py` writes this page.

Experiments were run on different machines, each with its own source adapters. Rounding differs between processors, and
training amplifies it, so the same cell may differ by points between sections. Compare methods within a section.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", type=Path, default=Path(), help="folder that has comparison/ (%(default)s)")
    project = parser.parse_args().project
    for name in EXPERIMENTS:
        whole = project / "comparison" / name
        for report in (whole / "part", whole):
            if (report / "report.html").is_file():
                keep(report, FILES / name, project)
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """docs/comparison.md, from the files in docs/comparison/."""
    return "\n".join([HEAD, *(section(name) for name in EXPERIMENTS)])


def keep(report: Path, folder: Path, project: Path) -> None:
    """Copy what the page shows, and note what it was made with."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (report / "made.md").write_text(made(report, project), encoding="utf-8")
    for path in sorted(report.iterdir()):
        if path.name in KEPT or (path.suffix == ".png" and path.stem.partition("-")[0] in FIGURES):
            shutil.copy(path, folder / path.name)


def made(report: Path, project: Path) -> str:
    """Date, code and machine of a report."""
    git = ["git", "-C", str(project), "log", "-1", "--format=%h"]
    commit = subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    day = datetime.fromtimestamp((report / "report.html").stat().st_mtime, UTC).date()
    cores = len(os.sched_getaffinity(0))
    memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    rows = pd.read_csv(report / "rows.csv")
    seeds = sorted(rows["seed"].unique())
    done = f"{rows['target'].nunique()} targets, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    part = " This is a part: other seeds or targets are still to run." if report.name == "part" else ""
    return f"{done}; {day}, commit {commit}; {processor()}, {cores} cores, {memory} GiB, no GPU.{part}\n"


def processor() -> str:
    """Its name: source adapters differ in the last bits between processors, and cells in some points."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    named = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return re.sub(r"\((R|TM)\)", "", named[1]) if named else platform.machine()


def section(name: str) -> str:
    """An experiment's part of the page."""
    definition = YAML(typ="safe").load(DOCS.parent / "experiments" / f"{name}.yaml")
    lines = [f"## {definition['title']}", "", f"{definition['about']}: `pemt compare {name}`.", ""]
    folder = FILES / name
    if not folder.is_dir():
        return "\n".join([*lines, "Not run yet.", ""])
    lines += [(folder / "made.md").read_text(encoding="utf-8"), (folder / "paragraph.md").read_text(encoding="utf-8")]
    for kind in FIGURES:
        for path in sorted(folder.glob(f"{kind}.png")) + sorted(folder.glob(f"{kind}-k*.png"), key=_examples):
            if k := _examples(path):
                lines += [f"{kind.replace('_', ' ').capitalize()}, k = {k}:", ""]
            lines += [f"![{kind.replace('_', ' ')}: {definition['title']}](comparison/{name}/{path.name})", ""]
    rows = f"[rows.csv](comparison/{name}/rows.csv) has every cell."
    return "\n".join([*lines, (folder / "table.md").read_text(encoding="utf-8"), rows, ""])


def _examples(path: Path) -> int:
    """The k in a figure's name."""
    return int(re.sub(r"\D", "", path.stem.rpartition("-")[2]) or 0)


if __name__ == "__main__":
    main()
