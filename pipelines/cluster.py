"""Where and how a step runs: image, resources, retries, secret and volume, from the group `kubeflow` of params.yaml."""

import json
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from kfp import kubernetes
from kfp.dsl import PipelineTask
from kfp.dsl.base_component import BaseComponent

from pemt_core.settings import KubeflowSettings, Resources

VOLUME = "/pemt"  # holds checkpoints and the hub's cache (HF_HOME of the image)
ALWAYS = ("MLFLOW_TRACKING_URI",)  # keys of the Secret that become environment variables
IF_THERE = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "HF_TOKEN")


@dataclass(frozen=True)
class Cluster:
    """Settings of containers, applied to each step."""

    settings: KubeflowSettings
    image: str
    cache: bool

    @property
    def parallelism(self) -> int:
        """How many iterations of a loop run at a time."""
        return self.settings.parallelism

    def run(self, step: BaseComponent, **inputs: Any) -> PipelineTask:
        """Return a task of the pipeline: `step` with its inputs, image, resources, retries, secret and volume."""
        name = step.name.replace("-", "_")
        resources, nodes = self.settings.resources[name], getattr(self.settings.nodes, name, 1)
        if "processes" in step.component_spec.inputs:  # they share its training, one per GPU
            inputs["processes"] = max(1, resources.gpus)
        if nodes > 1:  # the step's container only starts a job on them and waits
            step, resources = self._on_nodes(step, name, nodes, resources), self.settings.resources["plan"]
        task = step(**inputs)
        task.set_container_image(self.image).set_caching_options(self.cache)
        task.set_cpu_request(resources.cpu).set_cpu_limit(resources.cpu)
        task.set_memory_request(resources.memory).set_memory_limit(resources.memory)
        if resources.gpus:
            task.set_accelerator_type(self.settings.gpu_resource).set_accelerator_limit(resources.gpus)
        retry = self.settings.retry
        if retry.times:
            task.set_retry(retry.times, f"{retry.seconds}s", retry.factor)
        self._choose_node(task, resources)
        if self.settings.secret:
            for keys, optional in ((ALWAYS, False), (IF_THERE, True)):
                kubernetes.use_secret_as_env(task, self.settings.secret, {key: key for key in keys}, optional)
        if self.settings.volume:
            kubernetes.mount_pvc(task, self.settings.volume, VOLUME)
        return task

    def _on_nodes(self, step: BaseComponent, name: str, nodes: int, resources: Resources) -> BaseComponent:
        """Return `step` with a program that runs the step's program, with the same flags, as a job on `nodes` nodes."""
        tolerations = [{key: word for key, word in one.model_dump().items() if word} for one in resources.tolerations]
        options = {
            "--step": name,
            "--nodes": nodes,
            "--processes-per-node": max(1, resources.gpus),
            "--gpu-resource": self.settings.gpu_resource if resources.gpus else "",
            "--cpu": resources.cpu,
            "--memory": resources.memory,
            "--pod": json.dumps({"nodeSelector": resources.node_selector, "tolerations": tolerations}),
            "--image": self.image,
            "--runtime": self.settings.runtime,
            "--claim": self.settings.volume,
            "--volume": VOLUME,
            "--secret": self.settings.secret,
        }
        words = [str(word) for option in options.items() for word in option]
        keys = ["--secret-keys", *ALWAYS, *IF_THERE] if self.settings.secret else []
        job = deepcopy(step)
        container = job.component_spec.implementation.container
        *flags, executor_input, given = container.args
        container.command = ["python", "-m", "components.trainer_job"]
        container.args = [*words, *keys, executor_input, given, "--", *flags]
        return job

    def _choose_node(self, task: PipelineTask, resources: Resources) -> None:
        for label, value in resources.node_selector.items():
            kubernetes.add_node_selector(task, label, value)
        for toleration in resources.tolerations:
            kubernetes.add_toleration(
                task, toleration.key, toleration.operator, toleration.value or None, toleration.effect or None
            )
