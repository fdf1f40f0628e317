"""What an answer costs beyond the bare backbone: the operations of one pass over a text and its answer."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from pemt_core.comparison.stand_ins import random_answers, random_experts, random_texts, untrained_model
from pemt_core.model.prompted import PromptedModel
from pemt_core.model.promptless import build_promptless_model
from pemt_core.settings import Settings


def added_flops(settings: Settings, methods: Iterable[str], backbone: Any) -> dict[str, int]:
    """Floating-point operations per row that each method adds to the backbone, as PEFT-Bench counts its inference.

    torch counts products of matrices and attention, two for each multiplication with its addition. Text and answer have
    the lengths in `stand_ins`. The models are untrained, since training does not change what is computed.
    """
    experts = random_experts(backbone, settings)
    with build_promptless_model(backbone, []) as bare:
        before = _flops(bare, settings)
    found = {}
    for name in methods:
        with untrained_model(backbone, settings.method(name), experts) as model:
            found[name] = _flops(model, settings) - before
    return found


def _flops(model: PromptedModel, settings: Settings) -> int:
    batch, labels = random_texts(model.backbone, settings, 1), random_answers(model.backbone, 1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.eval()(**batch, labels=labels)
    return int(counter.get_total_flops())
