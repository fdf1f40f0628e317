"""The full study on T5-base, on paper: `python benchmarks/scale.py --data data --provenance provenance`.

ARITHMETIC AND SIMULATION: NOTHING HERE WAS MEASURED ON A GPU. It counts the floating-point operations of all trainings
and of their generation, divides them by a share of a GPU's peak, and schedules the steps of pipelines/pipeline.py by
list scheduling on n nodes with one GPU each. It does the same with the measured step times of a finished embedded demo.

--data: prepared with recipe `paper`, for lengths in tokens and bytes per row; a few thousand rows of a task are enough.
--provenance: written by the demo's steps; the adapters, experts and backbone beside it check the formula of sizes.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

from scale_simulation import NODES, Job, Study, critical_path, used, wall
from scale_work import (
    demo_seconds,
    full_study,
    measured_lengths,
    predicted_bytes,
    provenance_of,
    tensor_bytes,
    total,
    works_of,
)

from pemt_core.artifacts.files import read_json
from pemt_core.comparison.scale import Gpu, Lengths, Shape, rows_of
from pemt_core.steps.plan import make_plan
from pipelines.command import load

SEEDS = [4096, 4097, 4098]  # the recipe has the first
MORE_LEARNING_RATES = [2e-3, 1.5e-4]  # beside the recipe's three
HOURS = (0.25, 0.5, 1, 2, 5, 10, 20, 50)  # marked in the figure
MFU = (0.1, 0.2, 0.35, 0.5)  # the share of its peak that a GPU sustains: an assumption
LAUNCHES = (0.0, 5e-6, 10e-6, 20e-6)  # seconds of CPU time per operator: an assumption
PEAK = {"H200 bfloat16": 989e12, "A100 bfloat16": 312e12, "H200 float32": 67e12, "A100 float32": 19.5e12}  # data sheets
WORK_HEAD = " work | rows | tokens: prompt + text | target | steps | operations (10^15) | hours "
SHOWN = ("adapters/sources/mnli", "adapters/targets/cb/pemt", "adapters/targets/cb/control", "experts", "backbone")


def table(title: str, head: str, rows: Iterable[Sequence[Any]]) -> None:
    columns = head.split("|")
    print(f"\n### {title}\n\n|{head}|\n|{'|'.join(' --- ' for _ in columns)}|")
    for row in rows:
        print("| " + " | ".join(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row) + " |")


def show_work(study: Study) -> None:
    steps = Counter(job.name.split("/")[0] for job in study.t5_base())
    table("Containers", " step | containers ", [*steps.items(), ("all", sum(steps.values()))])
    rows = []
    for key, work in study.works.items():
        step, name = key.split("/")
        length, num_rows = study.lengths[name], rows_of(name)["test" if step == "evaluate" else "train"]
        tokens = f"{length.prompt} + {length.source:.0f}", f"{length.target:.1f}"
        rows.append((key, num_rows, *tokens, work.steps, f"{work.flops / 1e15:.1f}", f"{work.seconds / 3600:.2f}"))
    table("Work; `transfer` is one cell with all its learning rates", WORK_HEAD, rows)
    seeds = len(study.settings.transfer.seeds)
    print(f"\nOperations of the run: {total(study.works, seeds, 'flops') / 1e18:.2f} * 10^18")


def show_gpu_hours(study: Study, mfu: float, launch: float) -> None:
    settings = study.settings
    limits = {name: settings.train_source_for(name).source_length for name in settings.tasks.sources}
    limits |= {name: settings.transfer_for(name).source_length for name in settings.tasks.targets}
    full = {name: replace(one, source=limits[name]) for name, one in study.lengths.items()}

    def hours(device: str, share: float, seconds: float, lengths: Mapping[str, Lengths] = study.lengths) -> str:
        works = works_of(settings, lengths, Gpu(share * PEAK[device], seconds))
        return f"{total(works, len(settings.transfer.seeds)) / 3600:.0f}"

    head = " device |" + "|".join(f" {share:.0%} of the peak " for share in MFU)
    for title, launches, lengths in (
        (f"{launch * 1e6:g} us to launch an operator", launch, study.lengths),
        ("nothing to launch one: the operations alone", 0.0, study.lengths),
        ("the operations alone, all texts as long as source_length", 0.0, full),
    ):
        rows = [(device, *(hours(device, share, launches, lengths) for share in MFU)) for device in PEAK]
        table(f"GPU hours of the run, {title}", head, rows)
    rows = [(device, *(hours(device, mfu, one) for one in LAUNCHES)) for device in PEAK]
    head = " device |" + "|".join(f" {one * 1e6:g} us " for one in LAUNCHES)
    table(f"GPU hours at {mfu:.0%} of the peak, by the time to launch an operator", head, rows)


def show_simulation(study: Study) -> None:
    designs = study.designs()
    head = " nodes | " + " | ".join(designs) + " "
    runs = {nodes: [(jobs, nodes, most) for jobs, most in designs.values()] for nodes in NODES}
    table("Hours", head, [(nodes, *(f"{wall(*run) / 3600:.2f}" for run in runs[nodes])) for nodes in NODES])
    rows = [(nodes, *(f"{used(*run):.0%}" for run in runs[nodes])) for nodes in NODES]
    table("Share of the nodes' time that is work", head, rows)
    rows = []
    for name, (jobs, _) in designs.items():
        path = critical_path(jobs)
        long = [job for job in path if job.seconds > sum(one.seconds for one in path) / 20]
        longest = ", ".join(f"{job.name} {job.seconds / 3600:.2f}" for job in long)
        sums = [f"{sum(job.seconds for job in some) / 3600:.2f}" for some in (jobs, path)]
        rows.append((name, *sums, longest))
    table("Bounds, hours: one node; any number of nodes", " design | sum | longest chain | its longest ", rows)


def show_replay(provenance: Path) -> None:
    """Compare the demo as it ran, two processes at a time on two cores, with a simulation of the same jobs."""
    runs = provenance_of(provenance)
    begun = {name: datetime.fromisoformat(run["started"]).timestamp() for name, run in runs.items()}
    ended = {name: begun[name] + run["seconds"] for name, run in runs.items()}
    in_order = sorted(runs, key=begun.__getitem__)
    phases = [list(names) for _, names in groupby(in_order, lambda name: name.split("/")[0])]
    starts = [begun[after[0]] - max(ended[name] for name in phase) for phase, after in pairwise(phases)]
    start = sum(starts) / len(starts)
    jobs = [
        Job(name, runs[name]["seconds"], start if needs else 0.0, tuple(needs))
        for phase, needs in zip(phases, [[], *phases], strict=False)
        for name in phase
    ]
    simulated, measured = wall(jobs, 2, len(jobs)), max(ended.values()) - min(begun.values())
    print(f"\nThe demo as it ran, {start:.1f} s to start a process (mean of {len(starts)} changes of step):")
    print(f"simulated on 2 nodes {simulated:.0f} s, measured {measured:.0f} s")


def show_storage(study: Study, root: Path) -> None:
    each, rows = study.sizes, list[tuple[Any, ...]]()
    counts = {"data": 1, "backbone": 1, "source adapter": len(study.plan.train_source), "experts": 1}
    counts["cell"] = len(study.plan.branches)
    for name, count in counts.items():
        rows.append((name, count, f"{each[name] / 1e6:.1f}", f"{count * each[name] / 1e6:.0f}"))
    rows.append(("all", "", "", f"{sum(count * each[name] for name, count in counts.items()) / 1e6:.0f}"))
    table("Artifacts of the run, MB", " artifact | number | each | together ", rows)
    shape = Shape.of(read_json(root / "backbone/config.json"))
    sources = sorted(root.glob("adapters/sources/*/adapter.safetensors"))
    formula = {path: predicted_bytes(path, shape) for path in sources}
    formula[root / "experts/experts.safetensors"] = sum(formula.values())
    formula[root / "backbone/model.safetensors"] = 4 * shape.backbone()
    cells = sorted(root.glob("adapters/targets/*/*/adapter.safetensors"))
    formula |= {path: predicted_bytes(path, shape) for path in cells}
    shown = {path.parent.relative_to(root).as_posix().split("-")[0]: path for path in formula}
    rows = [
        (name, formula[path], tensor_bytes(path), path.stat().st_size) for name, path in shown.items() if name in SHOWN
    ]
    table("The formula against files of the demo, bytes", " folder | formula | tensors in the file | file ", rows)
    equal = sum(tensor_bytes(path) == found for path, found in formula.items())
    print(f"\nThe formula gives the tensors of {equal} of {len(formula)} files.")


def show_limits(study: Study, params: Path) -> None:
    settings, branches = study.settings, study.plan.parameters()["branches"]
    per_rate = []
    for rate in settings.transfer.learning_rates:
        one = settings.transfer.model_copy(update={"learning_rates": [rate]})
        per_rate += make_plan(settings.model_copy(update={"transfer": one}), Path()).parameters()["branches"]
    jobs = study.t5_base()
    moved, alone = (
        sum(study.moved(job.name.split("/")[0], data) for job in jobs) / 1e9 for data in ("data", "data of one task")
    )
    writes = total(study.works, len(settings.transfer.seeds), "writes")
    rows = [
        ("params.yaml as JSON, characters", len(load(params)[1])),
        (f"the list of {len(branches)} branches, characters", len(json.dumps(branches))),
        ("one of them, at most", max(len(json.dumps(branch)) for branch in branches)),
        (f"with a branch per rate, {len(per_rate)} branches", len(json.dumps(per_rate))),
        ("loaded and stored by all containers, GB", round(moved)),
        ("the same if each loaded the data of its task alone", round(alone)),
        ("writes to the tracking store", int(writes)),
        ("hours of waiting for them, at 10 ms each", f"{writes * 0.01 / 3600:.1f}"),
        ("writes a second, on 16 nodes", f"{writes / wall(jobs, 16, settings.kubeflow.parallelism):.0f}"),
    ]
    table("Against limits", " what | number ", rows)


def draw(study: Study, title: str, path: Path) -> None:
    """Plot wall time and use of the nodes against their number, for every design."""
    from matplotlib.figure import Figure

    from pemt_core.report.palette import COLOURS, LINES, MARKERS, drop_frame

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for index, (name, (jobs, most)) in enumerate(study.designs().items()):
        marker = (*MARKERS, "v")[index]
        style = {"color": COLOURS[index], "linestyle": LINES[index % len(LINES)], "marker": marker, "markersize": 5}
        left.plot(NODES, [wall(jobs, nodes, most) / 3600 for nodes in NODES], label=name, **style)
        right.plot(NODES, [100 * used(jobs, nodes, most) for nodes in NODES], **style)
    left.set(yscale="log", ylabel="hours from start to report", title="Wall time")
    left.set_yticks(HOURS, [f"{hours:g}" for hours in HOURS])
    left.minorticks_off()
    right.set(ylim=(0, 100), ylabel="share of the nodes' time that is work (%)", title="Use of the nodes")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(NODES, [str(nodes) for nodes in NODES])
        axes.set_xlabel("nodes of one GPU")
        drop_frame(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="prepared data; beside it provenance/prepare.json")
    parser.add_argument("--provenance", type=Path, required=True, help="provenance/ of a finished demo")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--more-learning-rates", type=float, nargs="*", default=MORE_LEARNING_RATES)
    parser.add_argument("--device", choices=PEAK, default="A100 bfloat16", help="device of the simulation")
    parser.add_argument("--mfu", type=float, default=0.35, help="share of its peak that the device sustains")
    parser.add_argument("--launch-us", type=float, default=10.0, help="time to launch an operator")
    parser.add_argument("--start-seconds", type=float, default=60.0, help="start of a container: pod, image, imports")
    parser.add_argument("--megabytes-per-second", type=float, default=200.0, help="when loading or storing artifacts")
    parser.add_argument("--plot", type=Path, help="PNG to write")
    arguments = parser.parse_args()
    settings = full_study(arguments.params, arguments.seeds, arguments.more_learning_rates)
    launch = arguments.launch_us / 1e6
    lengths = measured_lengths(arguments.data, settings)
    works = works_of(settings, lengths, Gpu(arguments.mfu * PEAK[arguments.device], launch))
    statistics = read_json(arguments.data / "statistics.json").values()
    prepared = sum(split["rows"] for task in statistics for split in task["splits"].values())
    seconds = read_json(arguments.data.parent / "provenance/prepare.json")["seconds"]
    prepare = seconds / prepared * sum(sum(rows_of(name).values()) for name in lengths)
    overhead = arguments.start_seconds, 1e6 * arguments.megabytes_per_second
    study = Study(settings, lengths, works, demo_seconds(arguments.provenance), prepare, *overhead)
    title = f"Arithmetic and simulation, not measured on GPUs: {arguments.device} at {arguments.mfu:.0%} of its peak"
    print(f"{title}, {arguments.launch_us:g} us an operator, {prepare:.0f} s to prepare")
    show_work(study)
    show_gpu_hours(study, arguments.mfu, launch)
    show_simulation(study)
    show_replay(arguments.provenance)
    show_storage(study, arguments.provenance.parent)
    show_limits(study, arguments.params)
    if arguments.plot:
        draw(study, title, arguments.plot)


if __name__ == "__main__":
    main()
