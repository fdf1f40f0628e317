"""Compare `transfer.search: halving` with `full` on the cells of a project.

    python benchmarks/search.py [PROJECT] [--rates 3e-3 1e-2 3e-2] [--targets cb rte] [--rows trainings.jsonl]

PROJECT (default: this folder) has params.yaml and what `dvc repro collect_experts` writes: data, backbone, experts.
Every configuration of every cell is trained, first as far as halving trains all, then to the end, so both searches are
known from one set of trainings. Without --rates the learning rates are those of params.yaml.

Prints for each set of rates, all of them and each pair of neighbours, and for each evaluation at which the worse half
could stop (`halving` stops it at the first at or after a third of the steps): in how many cells both searches keep the
same configuration, in how many of those in which one configuration alone has the best score (in the others, the order
decides which one is kept), the points on validation that halving loses in the mean over all cells and at most, and the
share of the steps that it saves. Then the processor seconds of both searches. --rows keeps the trainings, with their
curves, as JSON lines, and trains only targets that it lacks.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from pemt_core.artifacts.experts import load_experts
from pemt_core.backbone.store import load_backbone
from pemt_core.data.prepared import PreparedTask
from pemt_core.processes.schedule import Schedule
from pemt_core.settings import Settings, load_settings
from pemt_core.settings.settings import cells_of
from pemt_core.training.accelerator import make_accelerator
from pemt_core.training.configuration import CellTraining, Trial
from pemt_core.training.run import SilentRun
from pemt_core.training.search import better_half
from pemt_core.training.target import Target


class Training(NamedTuple):
    """One configuration of a cell."""

    task: str
    cell: str
    rate: float
    early: float  # best score until the pause
    final: float
    early_steps: int
    steps: int
    early_seconds: float
    seconds: float
    history: list[dict[str, float]]


def trainings(project: Path, settings: Settings, rates: list[float], task: str) -> Iterator[Training]:
    """All trainings of one target."""
    backbone = load_backbone(project / "backbone")
    bank = load_experts(project / "experts", backbone)
    prepared, transfer = PreparedTask.load(project / "data" / task, task), settings.transfer_for(task)
    methods = {n: m.model_copy(update={"learning_rates": rates}) for n, m in settings.methods_for(task).items()}
    accelerator = make_accelerator(transfer.training.precision)
    schedule = Schedule.make(1, 1, backbone.model.num_parameters(), accelerator)
    with tempfile.TemporaryDirectory() as folder, schedule.threads():
        target = Target(prepared, backbone, bank, settings.evaluate.answer, Path(folder), "pemt_core.steps.transfer")
        cells = cells_of(task, list(methods), transfer.k, transfer.seeds)
        for training in target.trainings({cell: methods[cell.method] for cell in cells}):
            yield from of_cell(target, training)


def of_cell(target: Target, training: CellTraining) -> Iterator[Training]:
    for place, configuration in enumerate(training.configurations):
        log = SilentRun().log
        early = target.train(Trial(training, place, to_end=False), log, progress_bar=False)
        final = target.train(Trial(training, place, to_end=True), log, progress_bar=False)
        yield Training(
            training.cell.task,
            training.cell.name,
            configuration.learning_rate,
            early.early_score or 0.0,
            final.best_score or 0.0,
            early.step,
            final.step,
            round(early.seconds, 2),
            round(final.seconds, 2),
            final.history,
        )


def best_until(row: Training, step: int) -> float:
    """The best main metric on validation up to a step."""
    return max(p["validation/main"] for p in row.history if p["step"] <= step and "validation/main" in p)


def by_cell(rows: Sequence[Training], rates: Sequence[float]) -> list[list[Training]]:
    """The trainings of each cell at these learning rates, in their order."""
    cells: dict[tuple[str, str], list[Training]] = {}
    for row in sorted((row for row in rows if row.rate in rates), key=lambda row: rates.index(row.rate)):
        cells.setdefault((row.task, row.cell), []).append(row)
    return list(cells.values())


def agreement(cells: Sequence[Sequence[Training]], step: int) -> list[str]:
    """How often both searches keep the same if the worse half stops at this step, and what differs."""
    same, clear, same_clear, lost, steps = 0, 0, 0, [], [0, 0]
    for found in cells:
        kept = better_half([best_until(row, step) for row in found])
        best = max(found, key=lambda row: row.final)
        by_halving = max((found[place] for place in kept), key=lambda row: row.final)
        is_clear = [row.final for row in found].count(best.final) == 1
        same, clear = same + (best is by_halving), clear + is_clear
        same_clear += best is by_halving and is_clear
        lost.append(best.final - by_halving.final)
        for place, row in enumerate(found):
            steps = [steps[0] + row.steps, steps[1] + (row.steps if place in kept else min(step, row.steps))]
    return [
        f"{same} of {len(cells)} ({100 * same / len(cells):.0f} %)",
        f"{same_clear} of {clear}",
        f"{sum(lost) / len(lost):.1f}",
        f"{max(lost):.1f}",
        f"{100 * (1 - steps[1] / steps[0]):.0f} %",
    ]


def seconds_of(cells: Sequence[Sequence[Training]]) -> str:
    """The processor time of both searches, as measured."""
    full = sum(row.seconds for found in cells for row in found)
    halving = full
    for found in cells:
        kept = better_half([row.early for row in found])
        halving -= sum(row.seconds - row.early_seconds for place, row in enumerate(found) if place not in kept)
    return f"{full:.0f} s with full, {halving:.0f} s with halving ({100 * (1 - halving / full):.0f} % less)"


def read(path: Path | None) -> list[Training]:
    if path is None or not path.is_file():
        return []
    return [Training(**json.loads(line)) for line in path.read_text().splitlines()]


def main(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.project / "params.yaml")
    rates = arguments.rates or settings.transfer.learning_rates
    rows = read(arguments.rows)
    targets = arguments.targets or settings.tasks.targets
    for task in [target for target in targets if target not in {row.task for row in rows}]:
        trained = list(trainings(arguments.project, settings, rates, task))
        rows += trained
        if arguments.rows:
            with arguments.rows.open("a") as file:
                file.writelines(json.dumps(row._asdict()) + "\n" for row in trained)
    heads = ["learning rates", "worse half stops after", "same configuration kept", "where one is best", "points lost"]
    print(f"| {' | '.join([*heads, 'at most', 'fewer steps'])} |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    sets = {some: by_cell(rows, some) for some in dict.fromkeys([tuple(rates), *pairwise(rates)])}
    evaluated = sorted({int(p["step"]) for row in rows for p in row.history if "validation/main" in p})
    for some, cells in sets.items():
        for step in evaluated[:-1]:
            print(f"| {named(some)} | {step} steps | {' | '.join(agreement(cells, step))} |")
    for some, cells in sets.items():
        print(f"\n{named(some)}: {seconds_of(cells)}")


def named(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:g}" for rate in rates)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, nargs="?", default=Path())
    parser.add_argument("--rates", type=float, nargs="+")
    parser.add_argument("--targets", nargs="+")
    parser.add_argument("--rows", type=Path, help="JSON lines of the trainings, to be written and continued")
    main(parser.parse_args())
