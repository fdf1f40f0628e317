"""accelerate's view of the machine, and the command that starts several processes."""

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
        state._reset_state()  # accelerate keeps one precision per process; a target's methods may differ
    exchange = DistributedDataParallelKwargs(broadcast_buffers=False)  # the experts are equal in all processes
    return Accelerator(mixed_precision=PRECISIONS[precision], kwargs_handlers=[exchange])


def launch_command(processes: int) -> tuple[list[str], dict[str, str]]:
    """The command that runs a module in `processes` processes on this machine, one per GPU or all on the CPU.

    Returns the words of `accelerate launch` up to the module's name, and the environment variables that it needs.
    Raises SettingsError if `processes` is less than 1, or more than the GPUs of a machine with GPUs.
    """
    found = torch.cuda.device_count()
    if processes < 1 or 0 < found < processes:
        expected = f"1 to {found}, the number of GPUs" if found else "at least 1"
        raise SettingsError(f"processes is {processes}: expected {expected}")
    # With --cpu, accelerate starts only one process; a variable selects the CPU without that
    variables = {} if found else {"ACCELERATE_USE_CPU": "true"}
    counts = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1", "--main_process_port", "0"]
    options = [*counts, "--mixed_precision", "no", "--dynamo_backend", "no"]  # the settings choose the precision
    return [sys.executable, "-m", "accelerate.commands.launch", *options, "--module"], variables
