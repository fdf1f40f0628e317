"""Write a source adapter as a LoRA that PEFT loads, with its prompt and a page that explains both."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from pemt_core.artifacts.adapter import Adapter
from pemt_core.artifacts.description import SourceDescription
from pemt_core.artifacts.files import atomic_directory, check_replaceable, write_json
from pemt_core.backbone.families import family_of
from pemt_core.backbone.store import Backbone
from pemt_core.lora.layout import BACKBONE, CARD, CONFIG, PROMPT, PROMPT_TENSOR, TENSORS, pair_names
from pemt_core.lora.usage import auto_class, quoted, usage
from pemt_core.model.stacks import feed_forwards

GENERATION_LENGTH = 8  # in the page's example
PAGE = """\
---
library_name: peft
---
# {task}: a source adapter and its prompt

Trained on the task "{description}", on the {family} model with the fingerprint {backbone}.
The adapter is a LoRA on every feed-forward's `{target}`; the prompt is {where} the text's embeddings:

```python
{code}```
"""
WHERE = {"front": "in front of", "behind": "behind", "both": "in front of and behind"}


def save_lora(directory: Path, adapter: Adapter[SourceDescription], backbone: Backbone, base_model: str) -> None:
    """Write the folder whole or not at all. PEFT loads the backbone by `base_model`, a name or a folder.

    `backbone` may be on the meta device. Raises ArtifactError if `directory` holds anything but an export.
    """
    directory, description = Path(directory), adapter.description
    check_replaceable(directory, PROMPT, (CONFIG, TENSORS, CARD))  # a LoRA that PEFT trained has no such prompt
    config = _config(adapter, backbone.model, base_model)
    with atomic_directory(directory) as temporary:
        # One key of metadata each: safetensors writes several in random order, and transformers needs "format"
        save_file(_pairs(adapter.tensors, backbone.model), temporary / TENSORS, {"format": "pt"})
        save_file({PROMPT_TENSOR: adapter.tensors["prompt"]}, temporary / PROMPT, {BACKBONE: description.backbone})
        write_json(temporary / CONFIG, config)
        (temporary / CARD).write_text(_page(directory, description, backbone, base_model), encoding="utf-8")


def _page(directory: Path, description: SourceDescription, backbone: Backbone, base_model: str) -> str:
    family, load = family_of(backbone.model), f"{auto_class(backbone)}.from_pretrained({quoted(base_model)})"
    code = usage(
        backbone,
        imports="from peft import PeftModel\n",
        loading=f"model = PeftModel.from_pretrained({load}, {quoted(directory)}).eval()",
        tokenizer=base_model,
        prompt=f"{directory}/{PROMPT}",
        source_length=description.settings["source_length"],
        generation_length=GENERATION_LENGTH,
    )
    return PAGE.format(
        task=description.task,
        description=description.prompt,
        family=family.name,
        backbone=description.backbone[:12],
        target=" and ".join(_targets(backbone.model)),
        where=WHERE["front" if family.has_encoder else backbone.model.config.prompt_layout],
        code=code,
    )


def _pairs(tensors: Mapping[str, Tensor], model: Any) -> dict[str, Tensor]:
    """A and B of every layer, by PEFT's names."""
    pairs: dict[str, Tensor] = {}
    for place in feed_forwards(model):
        matrices = tensors[f"{place.key}.down"], tensors[f"{place.key}.up"]
        pairs |= dict(zip(pair_names(place.name), matrices, strict=True))
    return pairs


def _config(adapter: Adapter[SourceDescription], model: Any, base_model: str) -> dict[str, Any]:
    """adapter_config.json; PEFT takes absent keys as off."""
    first = next(feed_forwards(model)).key  # all layers have the same rank
    scale, rank = adapter.description.scale, len(adapter.tensors[f"{first}.down"])
    alpha = scale * rank
    return {
        "base_model_name_or_path": base_model,
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": round(alpha) if round(alpha) / rank == scale else alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": _targets(model),
        "task_type": "SEQ_2_SEQ_LM" if family_of(model).has_encoder else "CAUSAL_LM",
    }


def _targets(model: Any) -> list[str]:
    """The attributes of `wo`: PEFT takes every module so called, which in these families is in a feed-forward."""
    return sorted({place.attribute for place in feed_forwards(model)})
