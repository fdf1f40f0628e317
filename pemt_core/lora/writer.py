"""Write a source adapter as a LoRA that PEFT loads, with its prompt and a page that explains both."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from pemt_core.artifacts.adapter import Adapter
from pemt_core.artifacts.description import SourceDescription
from pemt_core.artifacts.files import atomic_directory, write_json
from pemt_core.errors import ArtifactError
from pemt_core.lora.layout import BACKBONE, CARD, CONFIG, PROMPT, PROMPT_TENSOR, TENSORS, module_name, pair_names

PAGE = """\
---
library_name: peft
---
# {task}: a source adapter and its prompt

Trained on the task "{description}", on the T5 with the fingerprint {backbone}.
The adapter is a LoRA on every feed-forward's `wo`; the prompt goes in front of the text's embeddings:

```python
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

model = PeftModel.from_pretrained(AutoModelForSeq2SeqLM.from_pretrained("{base_model}"), "{folder}").eval()
text = AutoTokenizer.from_pretrained("{base_model}")(["a text of the task"], return_tensors="pt")
prompt = load_file("{folder}/{prompt}")["{prompt_tensor}"].expand(len(text.input_ids), -1, -1)
embeddings = torch.cat([prompt, model.get_input_embeddings()(text.input_ids)], dim=1)
mask = torch.cat([text.attention_mask.new_ones(prompt.shape[:2]), text.attention_mask], dim=1)
ids = model.generate(inputs_embeds=embeddings, attention_mask=mask, max_new_tokens=8)
```
"""


def save_lora(directory: Path, adapter: Adapter[SourceDescription], base_model: str) -> None:
    """Write the folder whole or not at all. PEFT loads the backbone by `base_model`, a name or a folder.

    Raises ArtifactError if `directory` holds something other than a LoRA.
    """
    directory, description = Path(directory), adapter.description
    if directory.exists() and not (directory / CONFIG).is_file():
        raise ArtifactError(f"{directory}: already exists and has no {CONFIG}; expected a new folder, or a LoRA's")
    page = PAGE.format(
        task=description.task,
        description=description.prompt,
        backbone=description.backbone[:12],
        base_model=base_model,
        folder=directory,
        prompt=PROMPT,
        prompt_tensor=PROMPT_TENSOR,
    )
    with atomic_directory(directory) as temporary:
        # One key of metadata each: safetensors writes several in random order, and transformers needs "format"
        save_file(_pairs(adapter.tensors), temporary / TENSORS, {"format": "pt"})
        save_file({PROMPT_TENSOR: adapter.tensors["prompt"]}, temporary / PROMPT, {BACKBONE: description.backbone})
        write_json(temporary / CONFIG, _config(adapter.tensors, description.scale, base_model))
        (temporary / CARD).write_text(page, encoding="utf-8")


def _pairs(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A and B of every layer, by PEFT's names."""
    pairs = {}
    for name, tensor in tensors.items():
        if name != "prompt":
            stack, layer, matrix = name.split(".")
            down, up = pair_names(module_name(stack, int(layer)))
            pairs[down if matrix == "down" else up] = tensor
    return pairs


def _config(tensors: Mapping[str, Tensor], scale: float, base_model: str) -> dict[str, Any]:
    """adapter_config.json; PEFT takes absent keys as off."""
    rank = len(tensors["encoder.0.down"])  # the same in all layers
    alpha = scale * rank
    return {
        "base_model_name_or_path": base_model,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": round(alpha) if round(alpha) / rank == scale else alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": ["wo"],  # in a T5 the second matrix of every feed-forward, and nothing else
        "task_type": "SEQ_2_SEQ_LM",
    }
