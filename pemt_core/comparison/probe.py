"""Time a few steps of both stages on this machine, with random experts and tokens, to estimate an experiment."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pemt_core.backbone.checkpoint import fetch_backbone
from pemt_core.backbone.store import load_backbone
from pemt_core.backbone.tokenizer import obtain_tokenizer
from pemt_core.comparison.plan import VariantPlan
from pemt_core.comparison.stand_ins import ANSWER, random_answers, random_experts, random_texts, untrained_model
from pemt_core.model.assemble import Expert, build_source_model
from pemt_core.model.prompted import PromptedModel
from pemt_core.processes.schedule import SINGLE_THREADED

ROWS, FEW_ROWS = 32, 8  # of a probed batch; few with a backbone that is not small
STEPS = 2  # timed, after one that is not


@dataclass(frozen=True)
class Speed:
    """Processor seconds per row, over all threads."""

    step: float  # of a training step
    answer: float  # of a generated answer


@dataclass(frozen=True)
class Speeds:
    """What was timed on a backbone."""

    stage_1: Speed  # of an adapter with its prompt
    methods: Mapping[str, Speed]


def backbone_to_probe(variant: VariantPlan, made: Path) -> Any:
    """The model in the folder `made`, or that of a checkpoint on this machine; None if there is neither."""
    if made.is_dir():
        return load_backbone(made).model
    settings = variant.settings.backbone
    if settings.kind == "package" or (settings.kind == "hub" and Path(settings.name).is_dir()):
        tokenizer = obtain_tokenizer(settings.of_tokenizer, made)
        return fetch_backbone(settings, tokenizer)[0]
    return None


def probe(variant: VariantPlan, methods: Sequence[str], model: Any) -> Speeds:
    """Time stage 1 and every method on a backbone."""
    threads, is_small = torch.get_num_threads(), model.num_parameters() < SINGLE_THREADED
    batch = random_texts(model, variant.settings, ROWS if is_small else FEW_ROWS)
    try:
        if is_small:
            torch.set_num_threads(1)
        experts = random_experts(model, variant.settings)
        with build_source_model(model, experts[0].tensors, scale=1.0) as built:
            stage_1 = _speed(built, batch)
        return Speeds(stage_1, {name: _speed_of(model, variant, name, experts, batch) for name in methods})
    finally:
        torch.set_num_threads(threads)


def _speed_of(
    model: Any, variant: VariantPlan, name: str, experts: Sequence[Expert], batch: dict[str, torch.Tensor]
) -> Speed:
    method = variant.settings.method(name)
    with untrained_model(model, method, experts) as built:
        return _speed(built, batch, trains=method.training.max_steps != 0)


def _speed(model: PromptedModel, batch: dict[str, torch.Tensor], *, trains: bool = True) -> Speed:
    rows, labels = len(batch["input_ids"]), random_answers(model.backbone, len(batch["input_ids"]))
    optimizer = torch.optim.AdamW(model.trained.values(), lr=0.0)

    def step() -> None:
        model.train()
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def answer() -> None:
        model.eval()
        model.generate(**batch, max_new_tokens=ANSWER, min_new_tokens=ANSWER)

    return Speed(_seconds(step) / rows if trains else 0.0, _seconds(answer) / rows)


def _seconds(call: Callable[[], None]) -> float:
    call()
    begin = time.process_time()
    for _ in range(STEPS):
        call()
    return (time.process_time() - begin) / STEPS
