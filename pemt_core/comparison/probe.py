"""Time a few steps of every method on this machine, with random experts and tokens, to estimate an experiment."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pemt_core.backbone.checkpoint import fetch_backbone
from pemt_core.backbone.store import load_backbone
from pemt_core.backbone.tokenizer import obtain_tokenizer
from pemt_core.comparison.plan import VariantPlan
from pemt_core.methods import Method
from pemt_core.model.assemble import Expert, initial_source_tensors
from pemt_core.model.stacks import width
from pemt_core.training.workers import SINGLE_THREADED

ROWS, TOKENS, ANSWER = 32, 48, 6  # of a probed batch: rows, tokens of text, tokens of an answer
STEPS = 2  # timed, after one that is not
PROMPT = 25  # tokens of a task's description


@dataclass(frozen=True)
class Speed:
    """Processor seconds, over all threads."""

    step: float  # of a training step of ROWS rows
    answer: float  # of one generated answer


def backbone_to_probe(variant: VariantPlan, made: Path) -> Any:
    """The model in the folder `made`, or that of a checkpoint on this machine; None if there is neither."""
    if made.is_dir():
        return load_backbone(made).model
    settings = variant.settings.backbone
    if settings.kind == "package" or (settings.kind == "hub" and Path(settings.name).is_dir()):
        tokenizer = obtain_tokenizer(settings.of_tokenizer, made)
        return fetch_backbone(settings, tokenizer)[0]
    return None


def probe(variant: VariantPlan, methods: Sequence[str], model: Any) -> dict[str, Speed]:
    """Time every method on a backbone."""
    threads = torch.get_num_threads()
    ids = torch.randint(3, model.config.vocab_size, (ROWS, TOKENS), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    try:
        if model.num_parameters() < SINGLE_THREADED:
            torch.set_num_threads(1)
        experts = _experts(model, variant)
        return {name: _speed(model, variant.settings.method(name), experts, batch) for name in methods}
    finally:
        torch.set_num_threads(threads)


def _experts(model: Any, variant: VariantPlan) -> list[Expert]:
    """Experts of all sources as they are before stage 1."""
    generator, rank = torch.Generator().manual_seed(0), variant.settings.train_source.rank
    found = []
    for name in variant.settings.sources:
        prompt = torch.randn(PROMPT, width(model), generator=generator)
        tensors = initial_source_tensors(model, prompt, rank=rank, init="kaiming", generator=generator)
        found.append(Expert(name, tensors, 1.0, lone_prompt=prompt))
    return found


def _speed(model: Any, method: Method, experts: Sequence[Expert], batch: dict[str, torch.Tensor]) -> Speed:
    option = method.options([expert.task for expert in experts])[0]
    used = option.draws_on([expert.task for expert in experts])
    drawn = [expert for expert in experts if expert.task in used]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, model.config.vocab_size, (PROMPT,), generator=generator)
    tensors = option.initial_tensors(model, ids, drawn, generator)
    labels = torch.randint(3, model.config.vocab_size, (ROWS, ANSWER), generator=generator)
    with option.build(model, tensors, drawn) as built:
        optimizer = torch.optim.AdamW(built.trained.values(), lr=0.0)

        def step() -> None:
            built.train()
            built(**batch, labels=labels).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        def answer() -> None:
            built.eval()
            built.generate(**batch, max_new_tokens=ANSWER, min_new_tokens=ANSWER)

        return Speed(_seconds(step), _seconds(answer) / ROWS)


def _seconds(call: Callable[[], None]) -> float:
    call()
    begin = time.process_time()
    for _ in range(STEPS):
        call()
    return (time.process_time() - begin) / STEPS
