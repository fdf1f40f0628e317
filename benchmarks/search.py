"""Compare `transfer.search: halving` with `full` on the cells of a project.

    python benchmarks/search.py [PROJECT] [--rates 3e-3 1e-2 3e-2] [--targets cb rte] [--rows trainings.csv]

PROJECT (default: this folder) has params.yaml and what `dvc repro collect_experts` writes: data, backbone, experts.
Every configuration of every cell is trained, first as far as halving trains all, then to the end, so both searches are
known from one set of trainings. Without --rates the learning rates are those of params.yaml. Prints for each set of
rates, all of them and each pair of neighbours, in how many cells both searches keep the same configuration, the mean
loss on validation where they do not, and the steps and processor seconds that halving saves. Cells in which one
configuration alone has the best score are also counted apart: in the others, the order decides which one is kept.
--rows keeps the trainings as CSV, and trains only targets that it lacks.
"""

import argparse
import csv
import tempfile
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from pemt_core.artifacts.experts import load_experts
from pemt_core.backbone.store import load_backbone
from pemt_core.data.prepared import PreparedTask
from pemt_core.settings import Settings, load_settings
from pemt_core.settings.settings import cells_of
from pemt_core.training.accelerator import make_accelerator
from pemt_core.training.configuration import CellTraining, Trial
from pemt_core.training.run import SilentRun
from pemt_core.training.search import better_half
from pemt_core.training.target import Target
from pemt_core.training.workers import Schedule


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


def trainings(project: Path, settings: Settings, rates: list[float], targets: Sequence[str]) -> Iterator[Training]:
    backbone = load_backbone(project / "backbone")
    bank = load_experts(project / "experts", backbone)
    for task in targets:
        prepared, transfer = PreparedTask.load(project / "data" / task, task), settings.transfer_for(task)
        methods = {n: m.model_copy(update={"learning_rates": rates}) for n, m in settings.methods_for(task).items()}
        with tempfile.TemporaryDirectory() as folder:
            target = Target(
                prepared, backbone, bank, settings.evaluate.answer, Path(folder), "pemt_core.steps.transfer"
            )
            cells = cells_of(task, list(methods), transfer.k, transfer.seeds)
            for training in target.trainings({cell: methods[cell.method] for cell in cells}):
                schedule = Schedule.make(
                    1, 1, backbone.model.num_parameters(), make_accelerator(training.method.training.precision)
                )
                with schedule.threads():
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
        )


def report(rows: Sequence[Training], rates: Sequence[float]) -> str:
    """One line of the table for a set of learning rates."""
    cells: dict[tuple[str, str], list[Training]] = {}
    for row in rows:
        if row.rate in rates:
            cells.setdefault((row.task, row.cell), []).append(row)
    same, clear, same_clear, lost, steps, seconds = 0, 0, 0, [], [0, 0], [0.0, 0.0]
    for found in cells.values():
        kept = better_half([row.early for row in found])
        best = max(found, key=lambda row: row.final)
        by_halving = max((found[place] for place in kept), key=lambda row: row.final)
        is_clear = [row.final for row in found].count(best.final) == 1
        same, clear = same + (best is by_halving), clear + is_clear
        same_clear += best is by_halving and is_clear
        lost += [best.final - by_halving.final] if best is not by_halving else []
        for place, row in enumerate(found):
            goes_on = place in kept
            steps = [steps[0] + row.steps, steps[1] + (row.steps if goes_on else row.early_steps)]
            seconds = [seconds[0] + row.seconds, seconds[1] + (row.seconds if goes_on else row.early_seconds)]
    total, mean = len(cells), sum(lost) / len(lost) if lost else 0.0
    values = [
        ", ".join(f"{rate:g}" for rate in rates),
        f"{same} of {total} ({100 * same / total:.0f} %)",
        f"{same_clear} of {clear}",
        f"{mean:.1f}",
        f"{100 * (1 - steps[1] / steps[0]):.0f} %",
        *(f"{number:.0f}" for number in seconds),
        f"{100 * (1 - seconds[1] / seconds[0]):.0f} %",
    ]
    return f"| {' | '.join(values)} |"


def read(path: Path | None) -> list[Training]:
    if path is None or not path.is_file():
        return []
    with path.open(newline="") as file:
        return [
            Training(*(kind(text) for kind, text in zip(Training.__annotations__.values(), line, strict=True)))
            for line in csv.reader(file)
        ]


def main(arguments: argparse.Namespace) -> None:
    settings = load_settings(arguments.project / "params.yaml")
    rates = arguments.rates or settings.transfer.learning_rates
    rows = read(arguments.rows)
    left = [task for task in arguments.targets or settings.tasks.targets if task not in {row.task for row in rows}]
    for row in trainings(arguments.project, settings, rates, left):
        rows.append(row)
        if arguments.rows:
            with arguments.rows.open("a", newline="") as file:
                csv.writer(file).writerow(row)
    print("| learning rates | same configuration kept | of those with one best | points lost elsewhere | fewer steps "
          "| seconds, full | halving | less time |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for some in dict.fromkeys([tuple(rates), *pairwise(rates)]):
        print(report(rows, some))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path, nargs="?", default=Path())
    parser.add_argument("--rates", type=float, nargs="+")
    parser.add_argument("--targets", nargs="+")
    parser.add_argument("--rows", type=Path, help="CSV of the trainings, to be written and continued")
    main(parser.parse_args())
