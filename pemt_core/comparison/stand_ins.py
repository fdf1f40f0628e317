"""Random texts, answers and experts of an experiment's sizes, by which its methods are measured before any training."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pemt_core.comparison.scale import TOKENS
from pemt_core.methods import Method
from pemt_core.model.assemble import Expert, initial_source_tensors
from pemt_core.model.prompted import PromptedModel
from pemt_core.model.stacks import width
from pemt_core.settings import EMBEDDED, Settings

EMBEDDED_TOKENS, ANSWER = 48, 6  # of a text of the embedded suite, and of an answer
PROMPT = 25  # tokens of a task's description


def random_texts(backbone: Any, settings: Settings, rows: int) -> dict[str, Tensor]:
    """input_ids and attention_mask (rows, T) of texts without padding."""
    ids = _random_ids(backbone, rows, _text_tokens(settings))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def random_answers(backbone: Any, rows: int) -> Tensor:
    """Labels (rows, ANSWER)."""
    return _random_ids(backbone, rows, ANSWER)


def random_experts(backbone: Any, settings: Settings) -> list[Expert]:
    """Experts of all sources as they are before stage 1, each with a prompt as if trained alone."""
    generator, rank = torch.Generator().manual_seed(0), settings.train_source.rank
    found = []
    for name in settings.sources:
        prompt = torch.randn(PROMPT, width(backbone), generator=generator)
        tensors = initial_source_tensors(backbone, prompt, rank=rank, init="kaiming", generator=generator)
        found.append(Expert(name, tensors, 1.0, lone_prompt=prompt))
    return found


def untrained_model(backbone: Any, method: Method, experts: Sequence[Expert]) -> PromptedModel:
    """Build a method's model as it is before stage 2; of several options, the first."""
    option = method.options([expert.task for expert in experts])[0]
    used = option.draws_on([expert.task for expert in experts])
    drawn = [expert for expert in experts if expert.task in used]
    tensors = option.initial_tensors(backbone, _random_ids(backbone, PROMPT), drawn, torch.Generator().manual_seed(0))
    return option.build(backbone, tensors, drawn)


def _random_ids(backbone: Any, *shape: int) -> Tensor:
    return torch.randint(3, backbone.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))


def _text_tokens(settings: Settings) -> int:
    """The mean length of a text over the tasks whose datasets are known, as far as it is read."""
    known = [TOKENS[task][1] for task in (*settings.tasks.sources, *settings.tasks.targets) if task in TOKENS]
    if settings.prepare.source == EMBEDDED or not known:
        return EMBEDDED_TOKENS
    return round(sum(min(each, settings.transfer.source_length) for each in known) / len(known))
