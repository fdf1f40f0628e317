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
from pemt_core.comparison.scale import TOKENS
from pemt_core.methods import Method
from pemt_core.model.assemble import Expert, build_source_model, initial_source_tensors
from pemt_core.model.prompted import PromptedModel
from pemt_core.model.stacks import width
from pemt_core.processes.schedule import SINGLE_THREADED
from pemt_core.settings import EMBEDDED, Settings

ROWS, FEW_ROWS = 32, 8  # of a probed batch; few with a backbone that is not small
EMBEDDED_TOKENS, ANSWER = 48, 6  # of a text of the embedded suite, and of an answer
STEPS = 2  # timed, after one that is not
PROMPT = 25  # tokens of a task's description


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
    shape = ROWS if is_small else FEW_ROWS, _text_tokens(variant.settings)
    ids = torch.randint(3, model.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    try:
        if is_small:
            torch.set_num_threads(1)
        experts = _experts(model, variant)
        with build_source_model(model, experts[0].tensors, scale=1.0) as built:
            stage_1 = _speed(built, batch)
        chosen = {name: variant.settings.method(name) for name in methods}
        return Speeds(stage_1, {name: _speed_of(model, each, experts, batch) for name, each in chosen.items()})
    finally:
        torch.set_num_threads(threads)


def _text_tokens(settings: Settings) -> int:
    """The mean length of a text over the tasks whose datasets are known, as far as it is read."""
    known = [TOKENS[task][1] for task in (*settings.tasks.sources, *settings.tasks.targets) if task in TOKENS]
    if settings.prepare.source == EMBEDDED or not known:
        return EMBEDDED_TOKENS
    return round(sum(min(each, settings.transfer.source_length) for each in known) / len(known))


def _experts(model: Any, variant: VariantPlan) -> list[Expert]:
    """Experts of all sources as they are before stage 1."""
    generator, rank = torch.Generator().manual_seed(0), variant.settings.train_source.rank
    found = []
    for name in variant.settings.sources:
        prompt = torch.randn(PROMPT, width(model), generator=generator)
        tensors = initial_source_tensors(model, prompt, rank=rank, init="kaiming", generator=generator)
        found.append(Expert(name, tensors, 1.0, lone_prompt=prompt))
    return found


def _speed_of(model: Any, method: Method, experts: Sequence[Expert], batch: dict[str, torch.Tensor]) -> Speed:
    option = method.options([expert.task for expert in experts])[0]
    used = option.draws_on([expert.task for expert in experts])
    drawn = [expert for expert in experts if expert.task in used]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, model.config.vocab_size, (PROMPT,), generator=generator)
    tensors = option.initial_tensors(model, ids, drawn, generator)
    with option.build(model, tensors, drawn) as built:
        return _speed(built, batch, trains=option.training.max_steps != 0)


def _speed(model: PromptedModel, batch: dict[str, torch.Tensor], *, trains: bool = True) -> Speed:
    rows, generator = len(batch["input_ids"]), torch.Generator().manual_seed(0)
    labels = torch.randint(3, model.backbone.config.vocab_size, (rows, ANSWER), generator=generator)
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
