"""What benchmarks/gpu.py measures: each part is a function of `Setting`, which returns values for JSON."""

import gc
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from step import Step
from step_models import (
    SMALL,
    Batch,
    PlainTarget,
    Sizes,
    backbone_of,
    batch_of,
    batches_of,
    experts_of,
    shared,
    stage2,
    target_tensors,
)
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from pemt_core.model.grouped.member import Member
from pemt_core.model.grouped.model import build_grouped_model
from pemt_core.training.compiled import compiled_layers
from pemt_core.training.optimizer import GroupedAdamW

CELLS = 15  # of a group
FULL = replace(Sizes(), rows=32, tokens=236)  # 256 positions with the prompt


@dataclass(frozen=True)
class Setting:
    """The device, the sizes, and how often things are repeated."""

    device: str
    sizes: Sizes
    matrix: int  # rows and columns of the matrices whose product is timed
    repeats: int
    curve_steps: int
    answer_batches: int

    @classmethod
    def of(cls, device: str, *, small: bool) -> "Setting":
        return cls(device, SMALL, 128, 2, 6, 1) if small else cls(device, FULL, 8192, 20, 200, 8)

    def synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, run: Callable[[], Any], *, warm_up: int = 3) -> float:
        """The median seconds of a call, after some that are not counted."""
        found = []
        for number in range(warm_up + self.repeats):
            self.synchronize()
            start = time.perf_counter()
            run()
            self.synchronize()
            if number >= warm_up:
                found.append(time.perf_counter() - start)
        return statistics.median(found)

    def target(self, *, seed: int = 2) -> Any:
        backbone = backbone_of(self.sizes, self.device)
        return stage2(backbone, self.sizes, experts_of(backbone, self.sizes), seed)

    def plain(self) -> Any:
        backbone = backbone_of(self.sizes, self.device)
        return PlainTarget(shared(backbone), self.sizes, experts_of(backbone, self.sizes))

    def batches(self, count: int = 4) -> Iterator[Batch]:
        made = list(itertools.islice(batches_of("stage 2", self.sizes, self.device), count))
        return itertools.cycle(made)


def device(setting: Setting) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": setting.device, "torch": torch.__version__, "cuda": torch.version.cuda}
    if setting.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {"name": properties.name, "memory_mib": properties.total_memory >> 20}
    return found


def matrix_rate(setting: Setting, dtype: torch.dtype) -> float:
    """10^12 operations per second of a large product."""
    size = setting.matrix
    first, second = (torch.randn(size, size, device=setting.device).to(dtype) for _ in range(2))
    return 2 * size**3 / setting.seconds(lambda: first @ second) / 1e12


def matrix_rates(setting: Setting) -> dict[str, float]:
    return {str(dtype).removeprefix("torch."): matrix_rate(setting, dtype) for dtype in (torch.bfloat16, torch.float32)}


def operations(setting: Setting, model: Any) -> int:
    """Of forward and backward, counted by torch."""
    with FlopCounterMode(display=False) as counter:
        model.train()(**next(setting.batches(1))).loss.backward()
    model.zero_grad()
    return int(counter.get_total_flops())


def timed_step(setting: Setting, model: Any, *, bfloat16: bool) -> dict[str, float]:
    step, batches = Step(model, bfloat16=bfloat16), setting.batches()
    return measured(setting, lambda: step(next(batches)))


def measured(setting: Setting, run: Callable[[], Any]) -> dict[str, float]:
    """The seconds of a call and, on a GPU, the most memory that torch allocates there."""
    gc.collect()  # models of earlier measurements
    if setting.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found = {"seconds": setting.seconds(run)}
    if setting.device == "cuda":
        found["peak_memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
    return found


def step(setting: Setting) -> dict[str, Any]:
    """A step in bfloat16 and its share of the matrix rate, and one in float32."""
    model = setting.target()
    counted = operations(setting, model)
    found: dict[str, Any] = {"operations": counted}
    for dtype in (torch.bfloat16, torch.float32):
        measured = timed_step(setting, model, bfloat16=dtype == torch.bfloat16)
        rate = counted / measured["seconds"] / 1e12
        share = rate / matrix_rate(setting, dtype)
        found[str(dtype).removeprefix("torch.")] = {**measured, "tera_operations": rate, "share_of_matrix_rate": share}
    return found


def plain_loop(setting: Setting) -> dict[str, Any]:
    """A step of the plain loop over experts in float32, and how long stage 2 takes of it in bfloat16 and float32."""
    loop = timed_step(setting, setting.plain(), bfloat16=False)
    ratios = {
        f"stage 2 {name}": timed_step(setting, setting.target(), bfloat16=name == "bfloat16")["seconds"]
        / loop["seconds"]
        for name in ("bfloat16", "float32")
    }
    return {"float32": loop, "ratios": ratios}


def launches(setting: Setting) -> dict[str, int]:
    """Of a step in bfloat16."""
    one, batches = Step(setting.target(), bfloat16=True), setting.batches()
    return counted(setting, lambda: one(next(batches)))


def counted(setting: Setting, step: Callable[[], Any]) -> dict[str, int]:
    """Kernels that a step starts on a GPU, operators that it calls, and the times that the CPU waits."""
    step()
    on_gpu = setting.device == "cuda"
    setting.synchronize()
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiler:
        step()
        setting.synchronize()
    events = [event for event in profiler.events() if event.name]
    kernels = [event for event in events if event.device_type == torch.autograd.DeviceType.CUDA]
    calls = [event for event in events if event.name.startswith("aten::")]
    waiting = ("cudaStreamSynchronize", "cudaEventSynchronize") if on_gpu else ("aten::_local_scalar_dense",)
    waits = sum(event.name in waiting for event in events)
    return {"kernels": len(kernels), "operators": len(calls), "waits": waits}


def losses(setting: Setting, *, bfloat16: bool, seed: int) -> list[float]:
    """The losses of steps over eight batches, which a model can learn by heart."""
    one, batches = Step(setting.target(seed=2 + seed), bfloat16=bfloat16), setting.batches(8)
    torch.manual_seed(seed)  # of dropout
    return torch.stack([one(next(batches)) for _ in range(setting.curve_steps)]).tolist()


def curves(setting: Setting) -> dict[str, Any]:
    """Losses in bfloat16 and float32, and their difference beside that of two seeds, over the last quarter."""
    runs = {
        "float32": losses(setting, bfloat16=False, seed=0),
        "bfloat16": losses(setting, bfloat16=True, seed=0),
        "float32, another seed": losses(setting, bfloat16=False, seed=1),
    }
    first, *others = (values[-max(1, len(values) // 4) :] for values in runs.values())
    gaps = [statistics.fmean(abs(a - b) for a, b in zip(first, other, strict=True)) for other in others]
    return {"losses": runs, "to bfloat16": gaps[0], "to another seed": gaps[1]}


def answer_rates(setting: Setting, **options: Any) -> dict[str, float]:
    """Rows per second: answers of as many tokens as labels have, two scored candidates, and a whole forward pass.

    The last number is how many times as long as scoring it takes to generate an answer and read it in a second pass.
    """
    model, sizes = setting.target().eval(), setting.sizes
    batches = [batch_of(sizes, setting.device, seed) for seed in range(setting.answer_batches)]
    length = {"max_new_tokens": sizes.labels, "min_new_tokens": sizes.labels, "do_sample": False, "num_beams": 1}

    def generate(batch: Batch) -> None:
        with model.encoded(batch["input_ids"], batch["attention_mask"]) as rows:
            rows.generate(**length, **options)

    def score(batch: Batch) -> None:
        candidates = torch.stack([batch["labels"], batch["labels"].flip(1)], dim=1)
        with model.encoded(batch["input_ids"], batch["attention_mask"]) as rows:
            rows.log_probabilities(candidates).cpu()

    def forward(batch: Batch) -> None:
        with torch.no_grad():
            model(**batch).loss.cpu()

    seconds = {}
    with torch.autocast(setting.device, torch.bfloat16):
        for name, answer in {"generate": generate, "score": score, "forward": forward}.items():
            seconds[name] = setting.seconds(lambda answer=answer: [answer(batch) for batch in batches], warm_up=1)
    rates = {name: sizes.rows * len(batches) / each for name, each in seconds.items()}
    return {**rates, "generate and forward, to score": (seconds["generate"] + seconds["forward"]) / seconds["score"]}


def compiled_step(setting: Setting) -> dict[str, Any]:
    """A step whose layers are compiled; on a CPU, graphs are made of two layers and not turned into kernels."""
    if setting.device == "cpu":
        setting = replace(setting, sizes=replace(setting.sizes, num_layers=1))
    model = setting.target()
    plain = timed_step(setting, model, bfloat16=True)
    start = time.perf_counter()
    with compiled_layers(model, lengths_repeat=True, backend="inductor" if setting.device == "cuda" else "aot_eager"):
        compiled = timed_step(setting, model, bfloat16=True)
    whole = time.perf_counter() - start
    return {"eager": plain, "compiled": compiled, "with compilation": whole, "ratio": ratio(compiled, plain)}


def group_of_cells(setting: Setting) -> dict[str, Any]:
    """A step of one cell in bfloat16, alone and among others that share it, each with a quarter of the rows.

    Launches are those of a step of one cell, memory is that of as many processes as there are cells.
    """
    cells = 3 if setting.device == "cpu" else CELLS
    setting = replace(setting, sizes=replace(setting.sizes, rows=max(1, setting.sizes.rows // 4)))
    sizes, backbone = setting.sizes, backbone_of(setting.sizes, setting.device)
    experts = experts_of(backbone, sizes)
    alone = cell_alone(setting, stage2(shared(backbone), sizes, experts))
    members = [
        Member(target_tensors(backbone, sizes, experts, seed), experts, 1.0, 0.1, "all", 0.0) for seed in range(cells)
    ]
    batches = [batch_of(sizes, setting.device, seed) for seed in range(cells)]
    with build_grouped_model(backbone, members) as group:
        optimizer = GroupedAdamW(group.matrix.values, group.matrix.is_trained)
        rates = torch.full((cells,), 1e-3, device=setting.device)
        steps = torch.ones(cells, device=setting.device)

        def step() -> None:
            with torch.autocast(setting.device, torch.bfloat16):
                loss = group.losses(batches).loss.sum()
            loss.backward()
            optimizer.step(rates, steps, 1.0, steps.bool())

        together = {**measured(setting, step), **counted(setting, step)}
    found = {"cells": cells, "alone": alone, "group": together, "cells per hour, ratio": cells / ratio(together, alone)}
    for name in ("kernels", "operators"):
        found[f"{name} of a cell"] = together[name] / cells
    if "peak_memory_mib" in together:
        found["memory, ratio to processes"] = ratio(together, alone, "peak_memory_mib") / cells
    return found


def cell_alone(setting: Setting, model: Any) -> dict[str, float]:
    step, batch = Step(model, bfloat16=True), batch_of(setting.sizes, setting.device)
    return {**measured(setting, lambda: step(batch)), **counted(setting, lambda: step(batch))}


def ratio(first: dict[str, float], second: dict[str, float], of: str = "seconds") -> float:
    return first[of] / second[of]


# Name, seconds that a part may take, and what it does
PARTS: dict[str, tuple[int, Callable[[Setting], Any]]] = {
    "device": (10, device),
    "matrix rates": (30, matrix_rates),
    "step": (60, step),
    "launches": (40, launches),
    "plain loop": (70, plain_loop),
    "answers": (60, answer_rates),
    "loss curves": (110, curves),
    "answers with a static cache": (40, partial(answer_rates, cache_implementation="static")),
    "group of cells": (60, group_of_cells),
    "compiled step": (240, compiled_step),  # what is left of the time: each layer is a graph of its own
}
