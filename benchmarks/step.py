"""Measure a whole step of stage 2 against PEFT's LoRA on every `wo`, the target adapter alone, and a plain loop.

    python benchmarks/step.py

A backbone of t5-base's shape with random weights in float32, six sources of rank 64, a batch of 8 rows with 128
tokens of text behind a prompt of 20, and 8 labels. A step is forward, backward, clipping and AdamW. LoRA has PEFT's
default rank of 8 and reads as many positions. The variants take turns, so other load affects all alike. Prints JSON:
the processor seconds of each variant's shortest step, the MiB that autograd keeps from forward to backward, and the
median over the turns of its ratio to every other variant. With `--mkl`, frozen matrices are multiplied by MKL too.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterable

import torch
from saved import saved_bytes
from step_models import SMALL, Batch, Sizes, batches_of, trained, variants_of
from torch import Tensor, nn


class Step:
    """A model with its optimizer: a call takes one optimizer step."""

    def __init__(self, model: nn.Module, *, bfloat16: bool = False) -> None:
        self.model, self.parameters, self.bfloat16 = model.train(), trained(model), bfloat16
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, weight_decay=0.0, fused=True)

    def __call__(self, batch: Batch) -> Tensor:
        with torch.autocast(batch["labels"].device.type, torch.bfloat16, enabled=self.bfloat16):
            loss: Tensor = self.model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()


def saved_mib(model: nn.Module, batch: Batch) -> float:
    """What autograd keeps for the backward pass, without weights."""
    return saved_bytes(lambda: model(**batch).loss, tensors_of(model)) / 2**20


def tensors_of(model: nn.Module) -> Iterable[Tensor]:
    yield from model.parameters()
    yield from model.buffers()
    for module in model.modules():
        for down, up, _ in getattr(module, "pairs", []):
            yield from (down, up)
    yield from getattr(model, "sources", [])


def measure(sizes: Sizes, repeats: int, names: list[str]) -> dict[str, dict[str, float]]:
    builders = variants_of(sizes)
    steps = {name: Step(builders[name]()) for name in names}
    batches = {name: batches_of(name, sizes) for name in names}
    found = {name: {"saved_mib": saved_mib(steps[name].model, next(batches[name]))} for name in names}
    turns: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(repeats):
        for name, step in steps.items():
            batch, start = next(batches[name]), time.process_time()
            step(batch)
            turns[name].append(time.process_time() - start)
    for name in names:
        found[name]["cpu_seconds"] = min(turns[name])
        for other in names:
            if other != name:
                ratios = [a / b for a, b in zip(turns[name], turns[other], strict=True)]
                found[name][f"to {other}"] = statistics.median(ratios)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--variants", nargs="+")
    parser.add_argument("--mkl", action="store_true", help="do without oneDNN")
    parser.add_argument("--small", action="store_true", help="tiny sizes, which show only that it runs")
    arguments = parser.parse_args()
    sizes = SMALL if arguments.small else Sizes()
    torch._C._set_mkldnn_enabled(not arguments.mkl)
    found = measure(sizes, arguments.repeats, arguments.variants or list(variants_of(SMALL)))
    rounded = {name: {key: round(value, 3) for key, value in numbers.items()} for name, numbers in found.items()}
    print(json.dumps({"threads": torch.get_num_threads(), "variants": rounded}, indent=2))


if __name__ == "__main__":
    main()
