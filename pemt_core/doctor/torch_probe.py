"""What torch sees, as JSON: `python -m pemt_core.doctor.torch_probe`. A driver that ends its process ends no other."""

import json
import warnings

import torch


def see() -> dict[str, object]:
    """Version, CUDA of the build, threads, GPUs in words, and the first warning about them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        gpus = [_words(index) for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "threads": torch.get_num_threads(),
        "gpus": gpus,
        "warning": " ".join(str(caught[0].message).split()) if caught else "",
    }


def _words(index: int) -> str:
    about = torch.cuda.get_device_properties(index)
    bfloat16 = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
    return f"{about.name} ({about.total_memory / 2**30:.0f} GiB, {bfloat16})"


if __name__ == "__main__":
    print(json.dumps(see()))
