"""Measure a group of trainings that share their steps against the same trainings one by one.

    python benchmarks/groups.py [--cells 1 2 4 8 16 32 64] [--repeats 3]

PEMT trains on the embedded backbone with six random experts of rank 32 and random tokens, 8 rows of 32 tokens per cell,
on one thread. A step is forward, backward, clipping and optimizer. The tables have, per step of a cell, the operators
that torch calls (on a GPU, each is a launch or none; views count), the processor seconds, and the memory that autograd
keeps; then the peak memory of a process with 15 cells against that of 15 processes with one.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from evaluation import embedded_backbone
from growth import ANSWER, LENGTH, PROMPT, SEED, SOURCES, random_expert, slope
from saved import saved_bytes
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from pemt_core.backbone.store import Backbone
from pemt_core.model.assemble import Expert, fold_experts
from pemt_core.model.grouped.model import GroupedModel, build_grouped_model
from pemt_core.model.prompted import PromptedModel
from pemt_core.settings import Settings, load_settings
from pemt_core.training.optimizer import GroupedAdamW, make_optimizer

CELLS = (1, 2, 4, 8, 16, 32, 64)
ROWS = 8  # per cell
ALONE = 15

Batch = dict[str, Tensor]


class Cost(NamedTuple):
    """What a step of one cell takes."""

    operators: float
    seconds: float
    mib: float


class Bench:
    """Cells of PEMT with the same experts, each with its own seed and batch."""

    def __init__(self, settings: Settings, backbone: Backbone) -> None:
        self.method, self.backbone = settings.method("pemt"), backbone
        generator = torch.Generator().manual_seed(SEED)
        self.experts: list[Expert] = [random_expert(f"source{n}", backbone, generator) for n in range(SOURCES)]
        self.folded = fold_experts(backbone.model, self.experts)

    def tensors(self, seed: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(3, self.backbone.model.config.vocab_size, (PROMPT,), generator=generator)
        return self.method.initial_tensors(self.backbone.model, ids, self.experts, generator)

    def batch(self, seed: int) -> Batch:
        generator, vocabulary = torch.Generator().manual_seed(seed), self.backbone.model.config.vocab_size
        ids = torch.randint(3, vocabulary, (ROWS, LENGTH), generator=generator)
        labels = torch.randint(3, vocabulary, (ROWS, ANSWER), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}

    def alone(self, repeats: int) -> Cost:
        """A cell by itself."""
        with self.method.build(self.backbone.model, self.tensors(0), self.experts, self.folded) as model:
            optimizer, batch = make_optimizer(model.trained, 1e-3, {}), self.batch(0)

            def step() -> None:
                model.train()(**batch).loss.backward()
                torch.nn.utils.clip_grad_norm_(model.trained.values(), 1.0)
                optimizer.step()
                optimizer.zero_grad()

            return cost(step, saved_bytes(lambda: model(**batch).loss, constants_of(model)), repeats)

    def together(self, cells: int, repeats: int) -> Cost:
        """A cell among `cells` of a group."""
        members = [self.method.member(self.tensors(seed), self.experts) for seed in range(cells)]
        with build_grouped_model(self.backbone.model, [each for each in members if each], self.folded) as group:
            optimizer = GroupedAdamW(group.matrix.values, group.matrix.is_trained)
            batches, rates = [self.batch(seed) for seed in range(cells)], torch.full((cells,), 1e-3)
            moves = torch.ones(cells, dtype=torch.bool)

            def step() -> None:
                group.losses(batches).loss.sum().backward()
                optimizer.step(rates, torch.ones(cells), 1.0, moves)

            whole = cost(step, saved_bytes(lambda: loss_of(group, batches), constants_of(group.model)), repeats)
        return Cost(*(each / cells for each in whole))


def constants_of(model: PromptedModel) -> tuple[Tensor, ...]:
    return (*model.parameters(), *model.buffers())


def loss_of(group: GroupedModel, batches: Sequence[Batch]) -> Tensor:
    return group.losses(batches).loss.sum()


def cost(step: Callable[[], None], kept: int, repeats: int) -> Cost:
    """The fastest of some steps, after one that is not timed, and the operators of another."""
    step()
    seconds = []
    for _ in range(repeats):
        begin = time.process_time()
        step()
        seconds.append(time.process_time() - begin)
    return Cost(operators_of(step), min(seconds), kept / 2**20)


def operators_of(step: Callable[[], None]) -> int:
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    return sum(event.name.startswith("aten::") for event in profiler.events())


def peak_mib(cells: int) -> float:
    """The peak memory of a process that takes steps of a group with so many cells."""
    words = [sys.executable, __file__, "--memory-of", str(cells)]
    return float(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=int, nargs="+", default=CELLS, help="sizes of groups (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="of each step (default: %(default)s)")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(1)
    settings = load_settings(Path("params.yaml"))
    bench = Bench(settings, embedded_backbone(settings))
    if given.memory_of:
        _ = bench.together(given.memory_of, 1) if given.memory_of > 1 else bench.alone(1)
        status = Path("/proc/self/status").read_text(encoding="ascii")
        print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)  # since the program was loaded
        return
    print_steps(bench, given.cells, given.repeats)
    one, group = peak_mib(1), peak_mib(ALONE)
    print(f"| process | peak memory (MiB) |\n| --- | ---: |\n| one cell | {one:.0f} |")
    print(f"| {ALONE} of these | {ALONE * one:.0f} |\n| a group of {ALONE} cells | {group:.0f} |")
    print(f"| ratio | {group / (ALONE * one):.2f} |")


def print_steps(bench: Bench, cells: Sequence[int], repeats: int) -> None:
    """Print what a step of one cell takes alone and in groups, and their ratios."""
    print("| cells | operators | ratio | milliseconds | ratio | activations (MiB) | ratio |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    first = bench.alone(repeats)
    rows = {"alone": first} | {str(number): bench.together(number, repeats) for number in cells}
    for name, found in rows.items():
        parts = [f"{found.operators:.0f}", f"{1000 * found.seconds:.1f}", f"{found.mib:.2f}"]
        ratios = [f"{a / b:.3f}" for a, b in zip(found, first, strict=True)]
        print(f"| {name} | " + " | ".join(f"{p} | {r}" for p, r in zip(parts, ratios, strict=True)) + " |")
    whole = {number: rows[str(number)] for number in cells}
    if len(whole) > 1:
        slopes = [slope(list(whole), [n * each[i] for n, each in whole.items()]) for i in range(3)]
        print(f"| slope of the group | {slopes[0]:.2f} | | {slopes[1]:.2f} | | {slopes[2]:.2f} | |\n")


if __name__ == "__main__":
    main()
