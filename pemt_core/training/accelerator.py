"""The machine as training and evaluation see it."""

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from pemt_core.errors import SettingsError

PRECISIONS = {"float32": "no", "bfloat16": "bf16"}


def make_accelerator(precision: str) -> Accelerator:
    """accelerate's view of the machine: one CPU, one GPU, or the processes of `accelerate launch`."""
    exchange = DistributedDataParallelKwargs(broadcast_buffers=False)  # the experts are the same in all processes
    return Accelerator(mixed_precision=PRECISIONS[precision], kwargs_handlers=[exchange])


def launch_options(processes: int) -> list[str]:
    """The options of `accelerate launch` for so many processes on this machine: one per GPU, or all on the CPU.

    SettingsError where there are GPUs, but fewer than processes.
    """
    found = torch.cuda.device_count()
    if processes < 1 or 0 < found < processes:
        raise SettingsError(
            f"processes is {processes}: expected a number from 1" + (f" to {found}, the GPUs here" * bool(found))
        )
    device = "--multi_gpu" if found else "--cpu"
    counts = ["--num_processes", str(processes), "--num_machines", "1", "--main_process_port", "0"]
    return [device, *counts, "--mixed_precision", "no", "--dynamo_backend", "no"]  # precision is the settings' affair
