"""Measure how the time and memory of a stage-2 step grow with sources, rows and lengths.

    python benchmarks/growth.py [--repeats 5]

PEMT trains on the embedded backbone (width 96, three layers per stack) with random experts of rank 32 and random
tokens, on one thread. Each table varies one number. It has the processor seconds of forward, backward and optimizer in
the fastest repeat, and the memory that autograd keeps between forward and backward: activations, not weights. The last
row has the slope of each column, fitted to the logarithms: 1 is in proportion, 0 does not grow.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from evaluation import embedded_backbone
from saved import saved_bytes

from pemt_core.backbone.store import Backbone
from pemt_core.model.assemble import Expert, initial_source_tensors
from pemt_core.model.prompted import PromptedModel
from pemt_core.settings import Settings, load_settings

POWERS = (1, 2, 4, 8, 16, 32)
SOURCES, ROWS, LENGTH, ANSWER, PROMPT = 6, 16, 32, 4, 20  # where a table does not vary them
RANK, SEED = 32, 0


class Shape(NamedTuple):
    """The size of a step."""

    sources: int = SOURCES
    rows: int = ROWS
    length: int = LENGTH  # tokens of every text


class Cost(NamedTuple):
    """What a step takes."""

    seconds: float
    mib: float


Table = tuple[str, Sequence[int], Callable[[int], Cost]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5, help="of each step (default: %(default)s)")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    settings = load_settings(Path("params.yaml"))
    backbone = embedded_backbone(settings)

    def step(shape: Shape) -> Cost:
        return cost_of_step(settings, backbone, shape, repeats)

    tables: list[Table] = [  # what varies, its values, and how one is measured
        ("sources", POWERS, lambda number: step(Shape(sources=number))),
        ("rows", POWERS, lambda number: step(Shape(rows=number))),
        ("tokens of a text", [16 * power for power in POWERS], lambda number: step(Shape(length=number))),
    ]
    for name, values, measure in tables:
        print_table(name, values, measure)


def cost_of_step(settings: Settings, backbone: Backbone, shape: Shape, repeats: int) -> Cost:
    """Measure steps of one shape, after one that is not timed."""
    generator = torch.Generator().manual_seed(SEED)
    vocabulary = backbone.model.config.vocab_size
    ids = torch.randint(3, vocabulary, (shape.rows, shape.length), generator=generator)
    labels = torch.randint(3, vocabulary, (shape.rows, ANSWER), generator=generator)
    with target_model(settings, backbone, shape.sources, generator) as model:
        model.train()
        optimizer = torch.optim.AdamW(model.trained.values(), lr=1e-3, fused=True)
        seconds = float("inf")
        for repeat in range(repeats + 1):
            begin = time.process_time()
            model(ids, torch.ones_like(ids), labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if repeat:
                seconds = min(seconds, time.process_time() - begin)
        saved = saved_bytes(
            lambda: model(ids, torch.ones_like(ids), labels).loss, (*model.parameters(), *model.buffers())
        )
    return Cost(seconds, saved / 2**20)


def target_model(settings: Settings, backbone: Backbone, sources: int, generator: torch.Generator) -> PromptedModel:
    """PEMT at step 0 with random experts."""
    method = settings.method("pemt")
    names = [f"source{number}" for number in range(sources)]
    experts = [random_expert(name, backbone, generator) for name in names]
    ids = torch.randint(3, backbone.model.config.vocab_size, (PROMPT,), generator=generator)
    return method.build(backbone.model, method.initial_tensors(backbone.model, ids, experts, generator), experts)


def random_expert(name: str, backbone: Backbone, generator: torch.Generator) -> Expert:
    width = backbone.model.get_input_embeddings().weight.shape[1]
    prompt = torch.randn(PROMPT, width, generator=generator)
    tensors = initial_source_tensors(backbone.model, prompt, rank=RANK, init="kaiming", generator=generator)
    return Expert(
        name, {n: tensor + 0.02 * torch.randn(tensor.shape, generator=generator) for n, tensor in tensors.items()}, 1.0
    )


def print_table(name: str, values: Sequence[int], measure: Callable[[int], Cost]) -> None:
    """Print a table with a row per value, and the slopes."""
    print(f"| {name} | milliseconds | ratio | activations (MiB) | ratio |\n| ---: | ---: | ---: | ---: | ---: |")
    costs: list[Cost] = []
    for value in values:
        costs.append(measure(value))
        now, first = costs[-1], costs[0]
        times = f"{1000 * now.seconds:.0f} | {now.seconds / first.seconds:.1f}"
        print(f"| {value} | {times} | {now.mib:.1f} | {now.mib / first.mib:.1f} |", flush=True)
    slopes = [f"{slope(values, column):.2f}" for column in zip(*costs, strict=True)]
    print(f"| slope | {slopes[0]} | | {slopes[1]} | |\n")


def slope(values: Sequence[int], measured: Sequence[float]) -> float:
    """The exponent of the power law that fits best."""
    return float(np.polyfit(np.log(values), np.log(measured), 1)[0])


if __name__ == "__main__":
    main()
