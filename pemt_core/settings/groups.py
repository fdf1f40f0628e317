"""The groups of params.yaml as typed values. Nothing here has a default: params.yaml is the only home of numbers."""

import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from pemt_core.answering.rule import AnswerRule
from pemt_core.schema.group import Group
from pemt_core.schema.numbers import (
    LARGEST,
    Amount,
    Bound,
    Count,
    FewShot,
    Fraction,
    Name,
    Natural,
    Precision,
    Rate,
    Seed,
    Short,
    matching,
)
from pemt_core.tasks import JOINT
from pemt_core.tasks.entry import Filled
from pemt_core.training.settings import FixedRateTraining, GroupRows, Search, SelectBy, TrainingSettings

IMAGE = r"([\w.-]+(:\d+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*"  # the name of one in a registry
OBJECT = "[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?"  # the name of one in Kubernetes
A_NAME = "a name of lower-case letters, digits, - and ."
HUB, EMBEDDED = "hub", "embedded"  # values of prepare.source that are not folders

PromptInit = Literal["vocab", "normal"]
STEPS = (
    "plan", "prepare", "backbone", "train_source", "collect_experts",
    "transfer", "evaluate", "record", "register", "report",
)  # fmt: skip


class TaskSettings(Group):
    sources: list[Short]
    targets: list[Short]

    @model_validator(mode="after")
    def _distinct(self) -> "TaskSettings":
        for name, tasks in (("sources", self.sources), ("targets", self.targets)):
            repeated = [task for task, count in Counter(tasks).items() if count > 1]
            if repeated:
                raise ValueError(f"{name} lists {sorted(repeated)} more than once")
        both = sorted({*self.sources} & {*self.targets})
        if both:
            raise ValueError(f"sources and targets both list {both}; an expert trained on a target has seen its rows")
        if JOINT in self.targets:
            raise ValueError(f"targets lists {JOINT}, which can only be a source: the other sources together")
        if JOINT in self.sources and len(self.joined) < 2:
            raise ValueError(f"sources lists {JOINT}, the other sources together; expected at least two others")
        return self

    @property
    def joined(self) -> list[str]:
        """The sources that the source `joint` is made of; empty if it is not listed."""
        return [name for name in self.sources if name != JOINT] if JOINT in self.sources else []


class MaxRows(Group):
    """The most rows per split, for every task."""

    train: Bound
    validation: Bound
    test: Bound


class PrepareSettings(Group):
    source: Annotated[str, Field(min_length=1)]  # HUB, EMBEDDED, or a folder
    embedded_seed: Seed
    split_seed: Seed
    max_rows: MaxRows
    corpus_rows_per_task: Count
    plain_texts: Natural
    label_words: dict[str, dict[Filled, Filled]]  # by task and label; pemt_core.tasks.label_words checks the names

    @property
    def folder(self) -> Path | None:
        """The source folder in the hub's layout; None if the source is the hub or embedded."""
        return None if self.source in (HUB, EMBEDDED) else Path(self.source)


class TokenizerSettings(Group):
    """The part of the group `backbone` that determines its tokenizer."""

    kind: Literal["hub", "package", "scratch"]
    name: str
    revision: str
    tokenizer: str
    vocab_size: Annotated[int, Field(ge=300, le=LARGEST)]
    chat: bool


class BackboneSettings(TokenizerSettings):
    dtype: Literal["float32", "bfloat16"]
    layout: Literal["auto", "front", "behind", "both"]
    family: Literal["T5", "Llama"]  # names of records in pemt_core.backbone.families
    size: Literal["nano", "tiny", "mini", "small"]
    dropout: Fraction
    noise_density: Annotated[float, Field(gt=0, lt=1)]
    mean_span_length: Annotated[float, Field(ge=1, le=LARGEST)]
    continuation_share: Annotated[float, Field(ge=0, le=1)]
    text_weight: Amount
    packed: bool
    length: Annotated[int, Field(ge=8, le=LARGEST)]
    seed: Seed
    training: FixedRateTraining

    @property
    def title(self) -> str:
        """The name of the checkpoint, or what was pretrained from scratch; the layout if it is not the default."""
        title = f"{self.size} {self.family}, pretrained here" if self.kind == "scratch" else self.name
        return title if self.layout == "auto" else f"{title}, layout {self.layout}"

    @property
    def of_tokenizer(self) -> TokenizerSettings:
        return TokenizerSettings(**{name: getattr(self, name) for name in TokenizerSettings.model_fields})


class TransferSettings(Group):
    """The cells of a target, and the settings that its methods share; an entry of `methods` may override them."""

    methods: Annotated[list[Name], Field(min_length=1)]  # keys of the group `methods`
    seeds: Annotated[list[Seed], Field(min_length=1)]
    k: Annotated[list[FewShot], Field(min_length=1)]
    rare_class: Literal["error", "all"]
    reduction_factor: Count
    prompt_init: PromptInit
    prompt_dropout: Fraction
    sparsity_coefficient: Amount
    sparsity_positions: Literal["all", "unpadded"]
    source_length: Count
    select_by: SelectBy
    learning_rates: Annotated[list[Rate], Field(min_length=1)]
    search: Search
    group: GroupRows
    training: TrainingSettings


class EvaluateSettings(Group):
    answer: AnswerRule
    batch_size: Count
    precision: Precision
    max_rows: Bound


class ReportSettings(Group):
    confidence: Annotated[float, Field(gt=0, lt=1)]
    layer_groups: Count


def _alias(name: str) -> str:
    if name == "latest" or re.fullmatch(r"v\d+", name):
        raise ValueError("expected another name: MLflow keeps latest, v1 and so on for versions themselves")
    return name


class ModelSettings(Group):
    """How trained targets are registered in MLflow."""

    enabled: bool
    metric: str  # MAIN_METRIC, or a metric's name
    alias: Annotated[
        str,
        matching("[a-z][a-z0-9_-]*", "a letter, then letters, digits, _ and -, in lower case"),
        AfterValidator(_alias),
    ]
    backbone: Literal["include", "refer"]


class TrackingSettings(Group):
    uri: str
    experiment: Annotated[  # registered models' names begin with it
        str,
        matching(
            r"[^\x00-\x20]([^\x00-\x1f]{0,198}[^\x00-\x20])?",
            "one line of 1 to 200 characters without blanks around it",
        ),
    ]
    on_unreachable: Literal["stop", "continue"]


class Toleration(Group):
    """A toleration of Kubernetes; "" for a field that does not matter."""

    key: str
    operator: Literal["Equal", "Exists"]
    value: str
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"]


class Resources(Group):
    """A container's requests, which are also its limits."""

    cpu: Annotated[str, matching(r"(?=.*[1-9])\d+(\.\d+|m)?", "cores, or thousandths of one, as in '2' or '500m'")]
    memory: Annotated[str, matching(r"(?=.*[1-9])\d+(\.\d+)?([KMGT]i?)?", "bytes with a unit, as in 512Mi, 8Gi or 8G")]
    gpus: Natural
    node_selector: dict[str, str]
    tolerations: list[Toleration]


class Nodes(Group):
    """How many nodes share the batches of each training step."""

    backbone: Count
    train_source: Count
    transfer: Count


class Retry(Group):
    """How often a failed step is retried, and after which wait."""

    times: Natural
    seconds: Count  # before the first retry
    factor: Annotated[float, Field(ge=1, le=LARGEST)]  # each later wait is this many times longer


class KubeflowSettings(Group):
    """How the steps run as containers. Only trainings that share steps change, by rounding."""

    image: Annotated[str, matching(IMAGE, "an image's name without a tag, as in ghcr.io/team/pemt")]
    torch: Annotated[str, matching(r"cpu|cu\d+|rocm[\d.]+", "cpu, or a build for GPUs, as in cu130 or rocm6.4")]
    parallelism: Count
    targets_per_branch: Count
    retry: Retry
    secret: Annotated[str, matching(f"({OBJECT})?", f"{A_NAME}, or nothing")]
    volume: Annotated[str, matching(f"({OBJECT})?", f"{A_NAME}, or nothing")]
    gpu_resource: Annotated[str, matching(r"[a-z0-9.-]+/[\w.-]+", "a resource of pods, as in nvidia.com/gpu")]
    runtime: Annotated[str, matching(OBJECT, A_NAME)]
    nodes: Nodes
    resources: dict[str, Resources]  # by step; params.yaml has the differences from `every_step`

    @model_validator(mode="after")
    def _shared_volume(self) -> "KubeflowSettings":
        several = [step for step, nodes in self.nodes if nodes > 1]
        if several and not self.volume:
            raise ValueError(f"{several[0]} runs on several nodes, which share a volume: set volume to its claim")
        return self
