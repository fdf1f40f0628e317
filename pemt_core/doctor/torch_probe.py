"""Print what torch detects as JSON: `python -m pemt_core.doctor.torch_probe`.

It runs in a separate process, since a broken driver may kill it.
"""

import json
import warnings

import torch

from pemt_core.backbone.processor import slowdown_of_bfloat16


def see() -> dict[str, object]:
    """Return torch's version, its CUDA version, threads, GPUs, the first warning about them, and the CPU's slowdown."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gpus = [_describe(index) for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "warning": " ".join(str(caught[0].message).split()) if caught else "",
        "slowdown_of_bfloat16": slowdown_of_bfloat16(),
    }


def _describe(index: int) -> str:
    device = torch.cuda.get_device_properties(index)
    bfloat16 = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
    return f"{device.name} ({device.total_memory / 2**30:.0f} GiB, {bfloat16})"


if __name__ == "__main__":
    print(json.dumps(see()))
