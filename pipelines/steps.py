"""Each step as a container: its program in `components`, with the pipeline's values as flags.

Nothing runs here, and `Cluster` sets the image. Kubeflow replaces `{{$}}` by a description of inputs and outputs.
"""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Markdown, Metrics, Model, Output

from pipelines.cluster import VOLUME

CHECKPOINTS = f"{VOLUME}/checkpoints"  # a retried step resumes from there


def _program(step: str, *arguments: Any) -> dsl.ContainerSpec:
    command = ["python", "-m", f"components.{step}"]
    return dsl.ContainerSpec(image="pemt-pipeline", command=command, args=[*arguments, "--executor-input", "{{$}}"])


def _run(params: str, recipe: str, sources: list, targets: list, k: list, seeds: list) -> str:
    """Return a text that becomes JSON when Kubeflow inserts the values."""
    lists = f'"sources": {sources}, "targets": {targets}, "k": {k}, "seeds": {seeds}'
    return f'{{"params": {params}, "choices": {{"recipe": "{recipe}", {lists} }} }}'


@dsl.container_component
def plan(
    params: str,
    recipe: str,
    sources: list,
    targets: list,
    k: list,
    seeds: list,
    rerun: str,
    prepare: dsl.OutputPath(str),  # type: ignore[valid-type]
    backbone: dsl.OutputPath(str),  # type: ignore[valid-type]
    source_trainings: dsl.OutputPath(list),  # type: ignore[valid-type]
    collect_experts: dsl.OutputPath(str),  # type: ignore[valid-type]
    branches: dsl.OutputPath(list),  # type: ignore[valid-type]
    evaluate: dsl.OutputPath(str),  # type: ignore[valid-type]
    record: dsl.OutputPath(str),  # type: ignore[valid-type]
    register: dsl.OutputPath(str),  # type: ignore[valid-type]
    tracking: dsl.OutputPath(str),  # type: ignore[valid-type]
    provenance: Output[Artifact],
) -> dsl.ContainerSpec:
    """Resolve the settings of every other step, one text each."""
    run = _run(params, recipe, sources, targets, k, seeds)
    return _program("plan", "--run", run, "--rerun", rerun, "--provenance", provenance.path)


@dsl.container_component
def prepare(settings: str, data: Output[Dataset], provenance: Output[Artifact]) -> dsl.ContainerSpec:
    """Convert the datasets of all tasks to text pairs, and build corpus, tokenizer and statistics."""
    return _program("prepare", "--settings", settings, "--output", data.path, "--provenance", provenance.path)


@dsl.container_component
def backbone(
    settings: str,
    tracking: str,
    processes: int,
    data: Input[Dataset],
    backbone: Output[Model],
    provenance: Output[Artifact],
) -> dsl.ContainerSpec:
    """Make the model that all adapters attach to."""
    what = ["--settings", settings, "--tracking", tracking, "--processes", processes]
    inputs = ["--tokenizer", f"{data.path}/tokenizer", "--corpus", f"{data.path}/corpus.parquet"]
    outputs = ["--output", backbone.path, "--checkpoints", CHECKPOINTS, "--provenance", provenance.path]
    return _program("backbone", *what, *inputs, *outputs)


@dsl.container_component
def train_source(
    source: str,
    settings: str,
    tracking: str,
    processes: int,
    data: Input[Dataset],
    backbone: Input[Model],
    adapter: Output[Model],
    provenance: Output[Artifact],
) -> dsl.ContainerSpec:
    """Stage 1 for one source task."""
    what = ["--settings", settings, "--tracking", tracking, "--processes", processes]
    inputs = ["--data", f"{data.path}/{source}", "--backbone", backbone.path]
    outputs = ["--output", adapter.path, "--checkpoints", CHECKPOINTS, "--provenance", provenance.path]
    return _program("train_source", *what, *inputs, *outputs)


@dsl.container_component
def collect_experts(
    settings: str,
    adapters: Input[list[Model]],
    backbone: Input[Model],
    experts: Output[Model],
    provenance: Output[Artifact],
) -> dsl.ContainerSpec:
    """Collect the source adapters in the order of the sources; the program finds the list in its executor input."""
    inputs = ["--settings", settings, "--backbone", backbone.path]
    return _program("collect_experts", *inputs, "--output", experts.path, "--provenance", provenance.path)


@dsl.container_component
def transfer(
    plan: str,
    settings: str,
    tracking: str,
    processes: int,
    data: Input[Dataset],
    backbone: Input[Model],
    experts: Input[Model],
    adapters: Output[Model],
    provenance: Output[Artifact],
) -> dsl.ContainerSpec:
    """Stage 2 for one seed of some targets."""
    what = ["--settings", settings, "--tracking", tracking, "--plan", plan, "--processes", processes]
    inputs = ["--data", data.path, "--backbone", backbone.path, "--experts", experts.path]
    outputs = ["--output", adapters.path, "--checkpoints", CHECKPOINTS, "--provenance", provenance.path]
    return _program("transfer", *what, *inputs, *outputs)


@dsl.container_component
def evaluate(
    targets: str,
    settings: str,
    data: Input[Dataset],
    backbone: Input[Model],
    experts: Input[Model],
    adapters: Input[Model],
    scores: Output[Dataset],
    metrics: Output[Metrics],
    provenance: Output[Artifact],
) -> dsl.ContainerSpec:
    """Score one seed of some targets on their test splits; `targets` is a JSON list."""
    inputs = ["--data", data.path, "--backbone", backbone.path, "--experts", experts.path, "--adapters", adapters.path]
    outputs = ["--output", scores.path, "--provenance", provenance.path]
    return _program("evaluate", "--targets", targets, "--settings", settings, *inputs, *outputs)


@dsl.container_component
def record(
    plan: str,
    settings: str,
    tracking: str,
    scores: Input[Dataset],
    recorded: Output[Artifact],
    provenance: Output[Artifact],
) -> dsl.ContainerSpec:
    """Record the results of one seed of some targets in tracking."""
    what = ["--settings", settings, "--tracking", tracking, "--plan", plan]
    outputs = ["--output", recorded.path, "--provenance", provenance.path]
    return _program("record", *what, "--scores", scores.path, *outputs)


@dsl.container_component
def register(
    targets: str,
    plan: str,
    settings: str,
    tracking: str,
    recorded: Input[Artifact],
    data: Input[Dataset],
    backbone: Input[Model],
    experts: Input[Model],
    adapters: Input[Model],
    provenance: Output[Artifact],
) -> dsl.ContainerSpec:
    """Register the best cell of each of some targets with one seed in MLflow, once it has a run."""
    what = ["--targets", targets, "--settings", settings, "--tracking", tracking, "--plan", plan]
    inputs = ["--data", data.path, "--backbone", backbone.path, "--experts", experts.path, "--adapters", adapters.path]
    after = ["--recorded", recorded.path]
    return _program("register", *what, *inputs, *after, "--provenance", provenance.path)


@dsl.container_component
def report(
    params: str,
    recipe: str,
    sources: list,
    targets: list,
    k: list,
    seeds: list,
    rerun: str,
    scores: Output[Dataset],
    results: Output[Artifact],
    page: Output[Markdown],
    metrics: Output[Metrics],
    provenance: Output[Artifact],
) -> dsl.ContainerSpec:
    """Report what tracking holds of the run's plan, even if steps failed; an exit handler receives no files."""
    run = _run(params, recipe, sources, targets, k, seeds)
    outputs = ["--scores", scores.path, "--output", results.path, "--page", page.path]
    return _program("report", "--run", run, "--rerun", rerun, *outputs, "--provenance", provenance.path)
