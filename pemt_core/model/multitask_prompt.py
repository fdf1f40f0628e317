"""The prompt of MPT (Wang et al. 2023): a prompt that tasks share, scaled by a matrix of rank 1 for each task."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pemt_core.model.attachment import copied
from pemt_core.model.prompt import TaskPrompt
from pemt_core.model.prompt_tuning import behind_prompt
from pemt_core.model.prompted import PromptedModel


class MultitaskPrompt(TaskPrompt):
    """P* o (u v^T), element by element: P* is `vectors`; a target trains all three."""

    def __init__(self, vectors: Float[Tensor, "P D"], u: Float[Tensor, " P"], v: Float[Tensor, " D"]) -> None:
        super().__init__(vectors)
        self.u, self.v = nn.Parameter(u), nn.Parameter(v)

    def forward(self) -> Float[Tensor, "P D"]:
        return self.vectors * self.u.unsqueeze(1) * self.v


def initial_multitask_prompt_tensors(shared: Float[Tensor, "P D"]) -> dict[str, Tensor]:
    """A target at step 0: u = v = 1, so its prompt is the shared one."""
    return {"prompt": shared, "prompt.u": torch.ones(shared.shape[0]), "prompt.v": torch.ones(shared.shape[1])}


def build_multitask_prompt_model(backbone: Any, tensors: Mapping[str, Tensor]) -> PromptedModel:
    """Build MPT on a target from the tensors `prompt` (P*), `prompt.u` and `prompt.v`."""
    copies = copied(tensors, backbone)
    prompt = MultitaskPrompt(*(copies[name] for name in ("prompt", "prompt.u", "prompt.v")))
    return behind_prompt(backbone, prompt, {"prompt": prompt.vectors, "prompt.u": prompt.u, "prompt.v": prompt.v})
