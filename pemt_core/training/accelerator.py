"""accelerate's view of the machine, and several processes that share a training."""

import logging
from collections.abc import Sequence

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState

from pemt_core.backbone.processor import warn_if_slow
from pemt_core.errors import SettingsError, TrainingError
from pemt_core.interruption import Interrupted

PRECISIONS = {"float32": "no", "bfloat16": "bf16"}


def make_accelerator(precision: str) -> Accelerator:
    """accelerate's view of the machine: one CPU, one GPU, or the processes of `accelerate launch`.

    Logs a warning if `precision` is slow on this machine.
    """
    if precision == "bfloat16":
        warn_if_slow("training.precision or evaluate.precision")
    state = AcceleratorState
    if state._shared_state and state().mixed_precision != PRECISIONS[precision]:
        state._reset_state()  # accelerate keeps one precision per process; a target's methods may differ
    exchange = DistributedDataParallelKwargs(broadcast_buffers=False)  # the experts are equal in all processes
    return Accelerator(mixed_precision=PRECISIONS[precision], kwargs_handlers=[exchange])


def launch_options(processes: int) -> tuple[list[str], dict[str, str]]:
    """The options by which `accelerate launch` runs a module in `processes` processes, one per GPU or all on the CPU.

    Returns them up to the module's name, and the environment variables that it needs. Raises SettingsError if
    `processes` is less than 1, or more than the GPUs of a machine with GPUs.
    """
    found = torch.cuda.device_count()
    if processes < 1 or 0 < found < processes:
        expected = f"1 to {found}, the number of GPUs" if found else "at least 1"
        raise SettingsError(f"processes is {processes}: expected {expected}")
    # With --cpu, accelerate starts only one process; a variable selects the CPU without that
    variables = {} if found else {"ACCELERATE_USE_CPU": "true"}
    counts = ["--multi_gpu", "--num_processes", str(processes), "--num_machines", "1", "--main_process_port", "0"]
    options = [*counts, "--mixed_precision", "no", "--dynamo_backend", "no"]  # the settings choose the precision
    return [*options, "--module"], variables


def launch(words: Sequence[str]) -> int:
    """Run `accelerate launch` with these words until its processes end, and return the exit code for all of them.

    The processes print why they end; a signal that stops this one stops them. Raises TrainingError if one was killed.
    """
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed.elastic").setLevel(logging.ERROR)
    try:
        launch_command(launch_command_parser().parse_args(words))
    except Interrupted as stopped:
        return stopped.exit_code
    except SignalException as stopped:  # torch's handlers replace this program's once the processes run
        return 128 + stopped.sigval
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode < 0:
            raise TrainingError(
                f"process {rank} was killed by {failure.signal_name()}, perhaps for lack of memory; the last "
                "checkpoint is kept"
            ) from error
        return failure.exitcode
    return 0
