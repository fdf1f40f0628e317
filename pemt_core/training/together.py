"""Trainings of one or several targets in groups that share each pass of the backbone, up to a number of rows.

On a GPU, small trainings one after another leave it idle: what takes the time is starting operators. A CPU gains
nothing, and trains in workers (`pemt_core.training.workers`).
"""

import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from accelerate import Accelerator

from pemt_core.answering.split import predict_together
from pemt_core.backbone.families import family_of
from pemt_core.errors import TrainingError
from pemt_core.methods import Method
from pemt_core.model.grouped.member import Member, partition
from pemt_core.model.grouped.model import GroupedModel, build_grouped_model
from pemt_core.model.stacks import width
from pemt_core.training.accelerator import make_accelerator
from pemt_core.training.configuration import Trial
from pemt_core.training.course import Course, Evaluation, Log
from pemt_core.training.group import GroupTrainer
from pemt_core.training.settings import GroupRows
from pemt_core.training.target import Extent, Target

logger = logging.getLogger(__name__)

# Numbers that one position of a layer keeps for the backward pass, divided by D: 18 on a T5-base (docs/speed.md)
KEPT_PER_POSITION = 20
PROMPT_POSITIONS = 128  # of prompt and answer beside the text
SHARE_OF_MEMORY = 0.5  # of what is free on the GPU


@dataclass(frozen=True)
class Job:
    """A training of a target, and where the points of its curve go."""

    target: Target
    trial: Trial
    log: Log
    flush: Callable[[], None]  # called after each checkpoint

    @cached_property
    def extent(self) -> Extent:
        return self.target.extent(self.trial.configuration)

    @property
    def rows(self) -> int:
        """The rows of a step."""
        return self.extent.rows

    def wastes_little_beside(self, other: "Job") -> bool:
        """Whether a batch of both is mostly text and not padding, and neither trains alone for most of its steps.

        Trainings of one target always share their steps.
        """
        return self.target is other.target or self.extent.is_near(other.extent)


@dataclass(frozen=True)
class _Candidate:
    job: Job
    member: Member | None  # None: only alone

    @property
    def settings(self) -> Any:
        return self.job.trial.configuration.option.training


def rows_of(asked: GroupRows, backbone: Any, methods: Sequence[Method]) -> int:
    """The most rows of a group's step; 0: every training by itself.

    "auto" takes what half of a GPU's free memory holds, and is off on a CPU and in several processes.
    """
    if asked == "off" or not methods:
        return 0
    accelerator = make_accelerator(methods[0].training.precision)
    if accelerator.num_processes > 1:
        return 0
    if asked != "auto":
        return asked
    if accelerator.device.type != "cuda":
        return 0
    source_length = max(method.source_length for method in methods)
    num_layers = sum(len(backbone.get_submodule(stack.layers)) for stack in family_of(backbone).stacks)
    numbers = KEPT_PER_POSITION * width(backbone) * num_layers * (source_length + PROMPT_POSITIONS)
    free, _ = torch.cuda.mem_get_info(accelerator.device)
    return int(SHARE_OF_MEMORY * free // (4 * numbers))


def train_together(jobs: deque[Job], most_rows: int) -> Iterator[tuple[Job, TrainingError | None]]:
    """Train every job as far as its trial says, and yield it when it ends, with the error if its loss diverged.

    Jobs may be added while it is iterated over. The results are in the checkpoints, as `Target.train_silently` leaves
    them. Jobs that can only be trained alone are trained alone. A group that a GPU's memory cannot hold goes on as two.
    """
    while jobs:
        group = _next_group(jobs, most_rows)
        if len(group) == 1:
            yield group[0].job, _trained_alone(group[0].job)
            continue
        try:
            errors = _train_group(group)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            most_rows = sum(each.job.rows for each in group) // 2
            logger.warning("the GPU has no memory for %d trainings at a time; going on with fewer", len(group))
            jobs.extendleft(each.job for each in reversed(group))
            continue
        yield from ((each.job, errors.get(place)) for place, each in enumerate(group))


def _next_group(jobs: deque[Job], most_rows: int) -> list[_Candidate]:
    """Take the first job, and those that can be trained together with it, until the group is full."""
    group = [_candidate(jobs.popleft())]
    others: list[Job] = []
    while jobs and max(each.job.rows for each in group) * (len(group) + 1) <= most_rows:
        job = jobs.popleft()
        near = all(job.wastes_little_beside(each.job) for each in group)
        if near and _fits(candidate := _candidate(job), group, most_rows):
            group.append(candidate)
        else:
            others.append(job)
    jobs.extendleft(reversed(others))
    return group


def _candidate(job: Job) -> _Candidate:
    configuration = job.trial.configuration
    settings = configuration.option.training
    if settings.gradient_accumulation > 1 or settings.max_steps == 0 or settings.compile:
        return _Candidate(job, None)
    tensors, experts = job.target.initial(configuration)
    if configuration.option.learning_rate_factors(list(tensors)):
        return _Candidate(job, None)
    member = configuration.option.member(tensors, experts)
    return _Candidate(job, member if member and _is_trainable(member, job.target.backbone.model) else None)


def _is_trainable(member: Member, backbone: Any) -> bool:
    """In a decoder-only model, the sparsity loss of a group is over unpadded positions alone."""
    over_padding = member.sparsity_coefficient > 0 and member.sparsity_positions == "all"
    return family_of(backbone).has_encoder or not over_padding


def _fits(candidate: _Candidate, group: Sequence[_Candidate], most_rows: int) -> bool:
    members = [each.member for each in (*group, candidate) if each.member is not None]
    if len(members) <= len(group):
        return False
    first, own = group[0].settings, candidate.settings
    alike = (first.precision, first.max_grad_norm) == (own.precision, own.max_grad_norm)
    most = max(each.job.rows for each in (*group, candidate))
    return alike and most * len(members) <= most_rows and len(partition(members)) == 1


def _trained_alone(job: Job) -> TrainingError | None:
    try:
        job.target.train(job.trial, job.log, progress_bar=False, flush=job.flush)
    except TrainingError as error:
        return error
    return None


def _train_group(group: Sequence[_Candidate]) -> dict[int, TrainingError]:
    """Train the models of a group; returns the errors of those that diverged, by place."""
    first = group[0]
    target, accelerator = first.job.target, make_accelerator(first.settings.precision)
    members = [each.member for each in group if each.member is not None]
    names = dict.fromkeys(each.job.target.prepared.task.name for each in group)
    with build_grouped_model(target.backbone.model, members) as model:
        trainer = GroupTrainer(
            model,
            [_course(each.job, model, place, accelerator) for place, each in enumerate(group)],
            lambda due: _evaluated({place: group[place].job for place in due}, model, accelerator),
            accelerator,
            max_grad_norm=first.settings.max_grad_norm,
            title=f"transfer {', '.join(names)}: {len(group)} trainings",
        )
        trainer.fit()
    return trainer.errors


def _course(job: Job, model: GroupedModel, place: int, accelerator: Accelerator) -> Course:
    target, configuration = job.target, job.trial.configuration
    cell = configuration.description.cell
    return Course(
        model.matrix.tensors(place),
        target.rows(configuration),
        lambda: Evaluation(0.0, {}),
        configuration.option.training,
        accelerator,
        target.store(configuration),
        learning_rate=configuration.learning_rate,
        seed=cell.seed,
        log=job.log,
        title=f"transfer {cell.task} {cell.name}",
        flush=job.flush,
        until=job.trial.until,
    )


def _evaluated(jobs: Mapping[int, Job], model: GroupedModel, accelerator: Accelerator) -> dict[int, Evaluation]:
    """Score validation by the models at these places."""
    options = {place: job.trial.configuration.option for place, job in jobs.items()}
    data = {place: job.target.data(options[place]) for place, job in jobs.items()}
    target = next(iter(jobs.values())).target
    texts = predict_together(
        model,
        {place: each.validation for place, each in data.items()},
        target.backbone.tokenizer,
        accelerator,
        rule=target.answer,
        batch_size=max(option.training.batch_size for option in options.values()),
    )
    return {place: data[place].evaluation(texts[place], options[place].select_by) for place in jobs}
