"""The groups of params.yaml as typed values. Nothing here has a default: params.yaml is the only home of numbers."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pemt_core.answering.rule import AnswerRule
from pemt_core.schema.group import Group
from pemt_core.schema.validation import with_differences
from pemt_core.settings.own_tasks import OwnTask

HUB, EMBEDDED = "hub", "embedded"  # prepare.source where it is no folder

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Bound = Count | None
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Precision = Literal["float32", "bfloat16"]
SelectBy = Literal["mean", "main"]
PromptInit = Literal["vocab", "normal"]
SourceName = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]  # of methods and folders too


class TaskSettings(Group):
    sources: list[str]
    targets: list[str]

    @model_validator(mode="after")
    def _distinct(self) -> "TaskSettings":
        for name, tasks in (("sources", self.sources), ("targets", self.targets)):
            repeated = {task for task in tasks if tasks.count(task) > 1}
            if repeated:
                raise ValueError(f"{name} lists {sorted(repeated)} more than once")
        both = sorted({*self.sources} & {*self.targets})
        if both:
            raise ValueError(f"sources and targets both list {both}; an expert on the target would know its rows")
        return self


class PrepareSettings(Group):
    source: str  # HUB, EMBEDDED, or a folder
    embedded_seed: Annotated[int, Field(ge=0)]
    split_seed: Seed
    max_train_rows: Bound
    max_validation_rows: Bound
    max_test_rows: Bound
    corpus_rows_per_task: Count
    plain_texts: Annotated[int, Field(ge=0)]

    @property
    def folder(self) -> Path | None:
        """The folder in the hub's layout that is the source; None where it is the hub, or embedded."""
        return None if self.source in (HUB, EMBEDDED) else Path(self.source)


class TrainingSettings(Group):
    """What the training loop needs, whatever it trains."""

    batch_size: Count
    gradient_accumulation: Count
    epochs: Count
    max_steps: Bound
    warmup_steps: Annotated[int, Field(ge=0)]
    max_grad_norm: Rate
    precision: Precision
    evaluate_every: Literal["epoch"] | Count
    validation_rows: Bound
    early_stop: Bound
    checkpoint_every: Count


class FixedRateTraining(TrainingSettings):
    learning_rate: Rate


class BackboneSettings(Group):
    kind: Literal["hub", "scratch"]
    name: str
    revision: str
    size: Literal["nano", "tiny", "mini", "small"]
    tokenizer: str
    vocab_size: Annotated[int, Field(ge=300)]
    dropout: Fraction
    noise_density: Annotated[float, Field(gt=0, lt=1)]
    mean_span_length: Annotated[float, Field(ge=1)]
    continuation_share: Annotated[float, Field(ge=0, le=1)]
    packed: bool
    length: Annotated[int, Field(ge=8)]
    seed: Seed
    training: FixedRateTraining


class TrainSourceSettings(Group):
    seed: Seed
    rank: Count
    alpha: Rate
    init: Literal["zero", "kaiming"]
    prompt_init: PromptInit
    source_length: Count
    select_by: SelectBy
    training: FixedRateTraining

    @property
    def scale(self) -> float:
        """s = alpha / R."""
        return self.alpha / self.rank


class ImportedSource(Group):
    """A LoRA in PEFT's layout that becomes an expert."""

    adapter: Annotated[str, Field(min_length=1)]  # its folder
    description: Annotated[str, Field(min_length=1)] | None  # of its task, in place of a prompt; null: the folder's own


class TransferSettings(Group):
    methods: Annotated[list[str], Field(min_length=1)]
    seeds: Annotated[list[Seed], Field(min_length=1)]
    k: Annotated[list[Literal["full"] | Count], Field(min_length=1)]
    rare_class: Literal["error", "all"]
    reduction_factor: Count
    prompt_init: PromptInit
    prompt_dropout: Fraction
    sparsity_coefficient: Annotated[float, Field(ge=0)]
    sparsity_positions: Literal["all", "unpadded"]
    source_length: Count
    select_by: SelectBy
    learning_rates: Annotated[list[Rate], Field(min_length=1)]
    training: TrainingSettings


class EvaluateSettings(Group):
    answer: AnswerRule
    batch_size: Count
    precision: Precision
    max_rows: Bound


class ReportSettings(Group):
    confidence: Annotated[float, Field(gt=0, lt=1)]
    layer_groups: Count


class ModelSettings(Group):
    """What trained targets become in MLflow's registry."""

    enabled: bool
    metric: str  # MAIN_METRIC, or a metric's name
    alias: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]*$")]
    backbone: Literal["include", "refer"]


class TrackingSettings(Group):
    uri: str
    experiment: str
    on_unreachable: Literal["stop", "continue"]


class Toleration(Group):
    """As Kubernetes has it; with "" for what does not matter."""

    key: str
    operator: Literal["Equal", "Exists"]
    value: str
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"]


class Resources(Group):
    """What a container asks for, and gets no more than."""

    cpu: Annotated[str, Field(pattern=r"^\d+(\.\d+|m)?$")]
    memory: Annotated[str, Field(pattern=r"^\d+(\.\d+)?([KMGT]i?)?$")]
    gpus: Annotated[int, Field(ge=0)]
    node_selector: dict[str, str]
    tolerations: list[Toleration]


class StepResources(Group):
    plan: Resources
    prepare: Resources
    backbone: Resources
    train_source: Resources
    collect_experts: Resources
    transfer: Resources
    evaluate: Resources
    report: Resources


class Nodes(Group):
    """How many nodes share the batches of a step that trains."""

    backbone: Count
    train_source: Count
    transfer: Count


class KubeflowSettings(Group):
    """How the steps run as containers: nothing here changes a result."""

    image: Annotated[str, Field(pattern=r"^([\w.-]+(:\d+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*$")]
    torch: Annotated[str, Field(pattern=r"^(cpu|cu\d+|rocm[\d.]+)$")]
    parallelism: Count
    retries: Annotated[int, Field(ge=0)]
    retry_seconds: Count
    retry_factor: Annotated[float, Field(ge=1)]
    secret: str
    volume: str
    gpu_resource: str
    runtime: str
    nodes: Nodes
    resources: StepResources

    @model_validator(mode="after")
    def _shared_volume(self) -> "KubeflowSettings":
        several = [step for step, nodes in self.nodes if nodes > 1]
        if several and not self.volume:
            raise ValueError(f"{several[0]} is to run on several nodes, which share a volume: volume must name it")
        return self


class Settings(Group):
    """The whole of params.yaml with the chosen recipe laid over it."""

    recipe: str
    tasks: TaskSettings
    imported_sources: dict[SourceName, ImportedSource]
    own_tasks: dict[str, OwnTask]
    prepare: PrepareSettings
    backbone: BackboneSettings
    train_source: TrainSourceSettings
    transfer: TransferSettings
    per_source: dict[str, dict[str, Any]]
    per_target: dict[str, dict[str, Any]]
    evaluate: EvaluateSettings
    report: ReportSettings
    models: ModelSettings
    tracking: TrackingSettings
    kubeflow: KubeflowSettings
    recipes: dict[str, dict[str, dict[str, Any]]]

    @property
    def listed_own_tasks(self) -> dict[str, OwnTask]:
        """Those of `own_tasks` that are sources or targets."""
        listed = (*self.tasks.sources, *self.tasks.targets)
        return {name: entry for name, entry in self.own_tasks.items() if name in listed}

    def train_source_for(self, task: str) -> TrainSourceSettings:
        """`train_source` with what `per_source` says of one source task."""
        return with_differences(self.train_source, self.per_source, "per_source", task)

    def transfer_for(self, task: str) -> TransferSettings:
        """`transfer` with what `per_target` says of one target task."""
        return with_differences(self.transfer, self.per_target, "per_target", task)

    @property
    def folders(self) -> dict[str, Path]:
        """The folders of the user's that steps read, by the keys that name them."""
        adapters = {f"imported_sources.{name}.adapter": Path(s.adapter) for name, s in self.imported_sources.items()}
        return adapters if self.prepare.folder is None else {"prepare.source": self.prepare.folder, **adapters}
