"""The machine as training and evaluation see it."""

from accelerate import Accelerator, DistributedDataParallelKwargs

PRECISIONS = {"float32": "no", "bfloat16": "bf16"}


def make_accelerator(precision: str) -> Accelerator:
    """accelerate's view of the machine: one CPU, one GPU, or the processes of `accelerate launch`."""
    exchange = DistributedDataParallelKwargs(broadcast_buffers=False)  # the experts are the same in all processes
    return Accelerator(mixed_precision=PRECISIONS[precision], kwargs_handlers=[exchange])
