"""The machine as training and evaluation see it."""

import sys

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState

from pemt_core.errors import SettingsError

PRECISIONS = {"float32": "no", "bfloat16": "bf16"}


def make_accelerator(precision: str) -> Accelerator:
    """accelerate's view of the machine: one CPU, one GPU, or the processes of `accelerate launch`."""
    state = AcceleratorState
    if state._shared_state and state().mixed_precision != PRECISIONS[precision]:
        state._reset_state()  # accelerate keeps one precision for a process; a target's methods may differ
    exchange = DistributedDataParallelKwargs(broadcast_buffers=False)  # the experts are the same in all processes
    return Accelerator(mixed_precision=PRECISIONS[precision], kwargs_handlers=[exchange])


def launch_command(processes: int) -> tuple[list[str], dict[str, str]]:
    """`accelerate launch` of a module in so many processes on this machine, one per GPU or all on the CPU.

    Returns its words up to the module's name, and the variables that it needs. SettingsError where there are GPUs, but
    fewer than processes.
    """
    found = torch.cuda.device_count()
    if processes < 1 or 0 < found < processes:
        most = f" to {found}, the GPUs here" if found else ""
        raise SettingsError(f"processes is {processes}: expected a number from 1{most}")
    # With --cpu accelerate starts one process, however many are asked for; a variable says it to the processes
    variables = {} if found else {"ACCELERATE_USE_CPU": "true"}
    counts = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1", "--main_process_port", "0"]
    options = [*counts, "--mixed_precision", "no", "--dynamo_backend", "no"]  # precision is the settings' affair
    return [sys.executable, "-m", "accelerate.commands.launch", *options, "--module"], variables
