"""Each step as a container: the program of `components` with its name, and what of the pipeline its flags get.

Nothing runs here. The image is set where the pipeline is made; `{{$}}` is how Kubeflow tells a program what it gives.
"""

from typing import Any

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Markdown, Metrics, Model, Output

from pipelines.cluster import VOLUME

CHECKPOINTS = f"{VOLUME}/checkpoints"  # a step that is tried again goes on from there


def _program(step: str, *arguments: Any) -> dsl.ContainerSpec:
    command = ["python", "-m", f"components.{step}"]
    return dsl.ContainerSpec(image="pemt-pipeline", command=command, args=[*arguments, "--executor-input", "{{$}}"])


def _choices(recipe: str, sources: list, targets: list, k: list, seeds: list) -> str:
    """A JSON text once Kubeflow has put the values in."""
    lists = f'"sources": {sources}, "targets": {targets}, "k": {k}, "seeds": {seeds}'
    return f'{{"recipe": "{recipe}", {lists} }}'


@dsl.container_component
def plan(
    params: str,
    recipe: str,
    sources: list,
    targets: list,
    k: list,
    seeds: list,
    prepare: dsl.OutputPath(str),  # type: ignore[valid-type]
    backbone: dsl.OutputPath(str),  # type: ignore[valid-type]
    source_trainings: dsl.OutputPath(list),  # type: ignore[valid-type]
    collect_experts: dsl.OutputPath(str),  # type: ignore[valid-type]
    branches: dsl.OutputPath(list),  # type: ignore[valid-type]
    evaluate: dsl.OutputPath(str),  # type: ignore[valid-type]
    provenance: Output[Artifact],
) -> dsl.ContainerSpec:
    """Settles what every other step does: one text of settings each."""
    choices = _choices(recipe, sources, targets, k, seeds)
    return _program("plan", "--settings", params, "--choices", choices, "--provenance", provenance.path)


@dsl.container_component
def prepare(settings: str, data: Output[Dataset], provenance: Output[Artifact]) -> dsl.ContainerSpec:
    """Datasets of all tasks to text pairs, with corpus, tokenizer and statistics."""
    return _program("prepare", "--settings", settings, "--output", data.path, "--provenance", provenance.path)


@dsl.container_component
def backbone(
    settings: str,
    processes: int,
    data: Input[Dataset],
    backbone: Output[Model],
    provenance: Output[Artifact],
) -> dsl.ContainerSpec:
    """The T5 that everything is attached to."""
    inputs = ["--tokenizer", f"{data.path}/tokenizer", "--corpus", f"{data.path}/corpus.parquet"]
    outputs = ["--output", backbone.path, "--checkpoints", CHECKPOINTS, "--provenance", provenance.path]
    return _program("backbone", "--settings", settings, "--processes", processes, *inputs, *outputs)


@dsl.container_component
def train_source(
    source: str,
    settings: str,
    processes: int,
    data: Input[Dataset],
    backbone: Input[Model],
    adapter: Output[Model],
    provenance: Output[Artifact],
) -> dsl.ContainerSpec:
    """Stage 1 for one source task."""
    inputs = ["--source", source, "--data", f"{data.path}/{source}", "--backbone", backbone.path]
    outputs = ["--output", adapter.path, "--checkpoints", CHECKPOINTS, "--provenance", provenance.path]
    return _program("train_source", "--settings", settings, "--processes", processes, *inputs, *outputs)


@dsl.container_component
def collect_experts(
    settings: str,
    adapters: Input[list[Model]],
    backbone: Input[Model],
    experts: Output[Model],
    provenance: Output[Artifact],
) -> dsl.ContainerSpec:
    """The source adapters in the order of the sources; the program finds the list in its executor input."""
    inputs = ["--settings", settings, "--backbone", backbone.path]
    return _program("collect_experts", *inputs, "--output", experts.path, "--provenance", provenance.path)


@dsl.container_component
def transfer(
    target: str,
    plan: str,
    settings: str,
    processes: int,
    data: Input[Dataset],
    backbone: Input[Model],
    experts: Input[Model],
    adapters: Output[Model],
    provenance: Output[Artifact],
) -> dsl.ContainerSpec:
    """Stage 2 for one target task and seed."""
    what = ["--target", target, "--plan", plan, "--settings", settings, "--processes", processes]
    inputs = ["--data", f"{data.path}/{target}", "--backbone", backbone.path, "--experts", experts.path]
    outputs = ["--output", f"{adapters.path}/{target}", "--checkpoints", CHECKPOINTS, "--provenance", provenance.path]
    return _program("transfer", *what, *inputs, *outputs)


@dsl.container_component
def evaluate(
    target: str,
    plan: str,
    settings: str,
    data: Input[Dataset],
    backbone: Input[Model],
    experts: Input[Model],
    adapters: Input[Model],
    scores: Output[Dataset],
    metrics: Output[Metrics],
    provenance: Output[Artifact],
) -> dsl.ContainerSpec:
    """Test scores of one target task and seed."""
    what = ["--targets", target, "--plan", plan, "--settings", settings]
    inputs = ["--data", data.path, "--backbone", backbone.path, "--experts", experts.path, "--adapters", adapters.path]
    return _program("evaluate", *what, *inputs, "--output", scores.path, "--provenance", provenance.path)


@dsl.container_component
def report(
    params: str,
    recipe: str,
    sources: list,
    targets: list,
    k: list,
    seeds: list,
    scores: Output[Dataset],
    results: Output[Artifact],
    page: Output[Markdown],
    metrics: Output[Metrics],
    provenance: Output[Artifact],
) -> dsl.ContainerSpec:
    """Tables and figures of what tracking holds of the run's plan, whatever failed: it can be given no files."""
    what = ["--settings", params, "--choices", _choices(recipe, sources, targets, k, seeds), "--gather"]
    outputs = ["--scores", scores.path, "--output", results.path, "--page", page.path]
    return _program("report", *what, *outputs, "--provenance", provenance.path)
