"""Prompt tuning (Lester et al. 2021): P trained vectors beside the text; the whole backbone is frozen.

The prompt methods train it on a target; SPoT, ATTEMPT and MPT also read the prompts that it trained on the sources.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor, nn

from pemt_core.model.attachment import Attachment, copied
from pemt_core.model.prompt import Prompt, TaskPrompt
from pemt_core.model.prompted import PromptedModel
from pemt_core.model.prompting import prompted
from pemt_core.model.signal import ForwardSignal
from pemt_core.model.stacks import embedded, width

FREQUENT_TOKENS = 5000  # vocabularies list frequent pieces first, after special tokens and bytes

PromptInit = Literal["vocab5000", "normal", "text"]


def initial_prompt_tensors(
    backbone: Any, *, length: int, init: PromptInit, ids: Int[Tensor, " N"], generator: torch.Generator
) -> dict[str, Tensor]:
    """Prompt tuning at step 0: `prompt` (P, D) with P = `length`.

    Args:
        init: vocab5000: embeddings of distinct tokens drawn from the first 5,000 (again from all, if P exceeds their
            number); normal: N(0, 1); text: the embeddings of `ids`, repeated and cut to the length.
        ids: tokens of a text, at least one.
    """
    if init == "normal":
        return {"prompt": torch.randn(length, width(backbone), generator=generator)}
    if init == "vocab5000":
        frequent = min(FREQUENT_TOKENS, len(backbone.get_input_embeddings().weight))
        ids = torch.cat([torch.randperm(frequent, generator=generator) for _ in range(0, length, frequent)])
    repeated = ids.repeat(-(-length // len(ids)))[:length]
    return {"prompt": embedded(backbone, repeated)}


def build_prompt_model(backbone: Any, tensors: Mapping[str, Tensor]) -> PromptedModel:
    """Build prompt tuning from the tensor `prompt`: only the prompt is trained."""
    prompt = TaskPrompt(copied(tensors, backbone)["prompt"])
    return behind_prompt(backbone, prompt, {"prompt": prompt.vectors})


def behind_prompt(backbone: Any, prompt: Prompt, trained: Mapping[str, nn.Parameter]) -> PromptedModel:
    """A model that trains nothing but its prompt: no module of the backbone is replaced."""
    with Attachment.whole(backbone) as attachment:
        return prompted(backbone, prompt, attachment, ForwardSignal(), trained)
