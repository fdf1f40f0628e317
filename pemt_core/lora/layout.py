"""The names in PEFT's folder of a LoRA, from utils/constants.py and save_and_load.py of peft 0.21.

The prompt has a separate file, because a PEFT model has a LoRA or a prompt, not both.
"""

CONFIG, TENSORS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PROMPT, CARD = "prompt.safetensors", "README.md"
PROMPT_TENSOR = "prompt"  # (P, D)
BACKBONE = "backbone"  # in the metadata of the prompt's file: the fingerprint

_PREFIX = "base_model.model."


def pair_names(module: str) -> tuple[str, str]:
    """The tensors A (R, in) and B (out, R) of the LoRA on a module, which a source adapter calls down and up."""
    return f"{_PREFIX}{module}.lora_A.weight", f"{_PREFIX}{module}.lora_B.weight"


def module_of(tensor: str) -> str | None:
    """The module that a tensor belongs to; None if its name is not one of `pair_names`."""
    module = tensor.removeprefix(_PREFIX).removesuffix(".lora_A.weight").removesuffix(".lora_B.weight")
    return module if tensor in pair_names(module) else None
