"""Write docs/comparison.md and the files beside it from the reports of `pemt compare`; of `make real`, the files alone.

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
from operator import itemgetter
from pathlib import Path

import comparison_claims as claims
import comparison_facts as facts
import pandas as pd
from ruamel.yaml import YAML

DOCS = Path(__file__).parent
PAGE, FILES = DOCS / "comparison.md", DOCS / "comparison"
REAL = Path("real/transfer"), DOCS / "real_language"  # the report of `make real`, and what its page shows of it
EXPERIMENTS = ("router_swap", "table1", "controls", "few_shot", "ablations")  # on the embedded T5
DECODERS = ("decoder", "layouts")  # on the embedded decoder-only backbone
KEPT = ("rows.csv", "table.csv", "comparisons.csv", "paragraph.md", "table.md", "made.md")
FIGURES = ("by_k", "points", "ranks", "ranks_above_floor", "matrix", "gates")

HEAD = """\
# The comparison on the embedded suite

Every number here comes from `pemt compare` on generated data and the embedded backbone of about a million parameters:
{targets}, seeds from 51 on, which played no part in development, and k = 32 examples
per class unless another k is named. They show how the methods compare under equal conditions, not what they reach on
real language. Where points are drawn against trained parameters, methods with nearly equal numbers stand side by side;
the tables have the numbers. [comparing.md](comparing.md) has the rules, the statistics and how to trace a number.
`python docs/comparison.py` writes this page.

`pemt compare learning_rates` found the learning rates with seed 11 and k = 32 on cola, mrpc and cb. A method has the
two adjacent rates of its range whose better one, per target, scores most on validation; pairs within 0.2 points of the
best count as equal, and that of params.yaml is then kept, as by PEMT. Its variants in `controls` and `ablations` have
PEMT's pair. Prompt tuning, DePT and SPoT are best at 3 or 10, and worse at 30, where their range ends.

All tables come from runs with `search: halving`: the worse half of a cell's configurations stopped after a third of the
steps. On the 34 cells of the demo, halving kept the learning rate of a full search in 29
([methods.md](methods.md#configurations-and-search)).

RTE, CB, SciTail and YELP share label words with a source. With other words, PEMT gains half as much on them, and its
gates prefer other sources ([demo.md](demo.md#the-related-source-or-the-same-words)).

{origin}
"""
SELECTION = """\
At every k, selection reads up to 64 validation rows of a target: at k = 4, far more rows than training does."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project", type=Path, default=Path(), help="folder that has comparison/ (%(default)s)")
    project = parser.parse_args().project
    for name, folder in (*((Path(each), FILES / each) for each in (*EXPERIMENTS, *DECODERS)), REAL):
        whole = project / "comparison" / name
        for report in (whole / "part", whole):
            if (report / "report.html").is_file():
                keep(report, folder, project)
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """docs/comparison.md, from the files in docs/comparison/."""
    rows = facts.rows_in(FILES, EXPERIMENTS)
    head = HEAD.format(targets=facts.targets(rows), origin=facts.origin(rows))
    return "\n".join([head, claims.section(FILES, rows), *(section(name) for name in (*EXPERIMENTS, *DECODERS))])


def notes(name: str) -> list[str]:
    """What a reader of an experiment's numbers has to know."""
    rows = pd.read_csv(FILES / name / "rows.csv")
    texts = {"few_shot": [SELECTION]}.get(name, [])
    if name == "table1":
        texts.append(facts.last_steps(rows))
    if name == "decoder":
        texts.append(decoder(rows))
    if name == "layouts":
        texts.append(layouts(rows))
    since = facts.other_grids(rows, grids())
    return [*texts, since] if since else texts


def decoder(rows: pd.DataFrame) -> str:
    """How far each method is above the control, and PEMT on the T5."""
    gaps = {name: facts.gap(rows, name, "control") for name in rows["method"].unique() if name != "control"}
    of_t5 = facts.gap(pd.read_csv(FILES / "controls" / "rows.csv"), "pemt", "control")
    return f"""\
The backbone is the embedded Llama ([embedded_world.md](embedded_world.md)), with the prompt behind the text. Source
adapters take 1,200 steps at 0.003, as in the recipe `decoder`; targets have the T5's 60 steps and learning rates. Minus
control, in points: {_signed(gaps)}. On the T5, PEMT has {of_t5:+.1f} in `controls`."""


def layouts(rows: pd.DataFrame) -> str:
    """How far each method is above the control in the same layout."""
    named = [name for name in rows["method"].unique() if not name.startswith("control_")]
    gaps = {name: facts.gap(rows, name, f"control_{name.rpartition('_')[2]}") for name in named}
    return f"""\
[backbones.md](backbones.md) explains the layouts. Minus the control in the same layout, in points: {_signed(gaps)}.
This was run on the embedded Llama after 12,000 steps, with source adapters of 400 steps at 0.001. Since then it has
had 36,000 steps, source adapters take 1,200 at 0.003, and the experiment has the methods that did best in `decoder`."""


def _signed(gaps: dict[str, float]) -> str:
    by_gap = sorted(gaps.items(), key=itemgetter(1), reverse=True)
    return ", ".join(f"{gap:+.1f} with `{name}`".replace("-", "−") for name, gap in by_gap)


def grids() -> dict[str, list[float]]:
    """The learning rates of the methods of experiments/shared.yaml; of those without any, the rates of params.yaml."""
    read = YAML(typ="safe").load
    usual = read(DOCS.parent / "params.yaml")["transfer"]["learning_rates"]
    methods = read(DOCS.parent / "experiments" / "shared.yaml")["methods"]
    return {name: entry.get("learning_rates", usual) for name, entry in methods.items()}


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
    lines += [(folder / "made.md").read_text(encoding="utf-8"), *(f"{note}\n" for note in notes(name))]
    lines.append((folder / "paragraph.md").read_text(encoding="utf-8"))
    for kind in FIGURES:
        for path in sorted(folder.glob(f"{kind}.png")) + sorted(folder.glob(f"{kind}-k*.png"), key=_examples):
            if k := _examples(path):
                lines += [f"{kind.replace('_', ' ').capitalize()}, k = {k}:", ""]
            lines += [f"![{kind.replace('_', ' ')}: {definition['title']}](comparison/{name}/{path.name})", ""]
    rows = f"[rows.csv](comparison/{name}/rows.csv) has every cell"
    others = {"table.csv": "every mean with its intervals", "comparisons.csv": "every test"}
    linked = [f"[{file}](comparison/{name}/{file}) {has}" for file, has in others.items() if (folder / file).is_file()]
    files = ", ".join([rows, *linked])
    return "\n".join([*lines, (folder / "table.md").read_text(encoding="utf-8"), f"{files}.", ""])


def _examples(path: Path) -> int:
    """The k in a figure's name."""
    return int(re.sub(r"\D", "", path.stem.rpartition("-")[2]) or 0)


if __name__ == "__main__":
    main()
