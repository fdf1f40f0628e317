"""The manifest of a TrainJob, built from the types that Kubeflow Trainer publishes."""

import argparse
import os
from typing import Any

from kubeflow_trainer_api.models import (
    IoK8sApiCoreV1EmptyDirVolumeSource as EmptyDirVolumeSource,
    IoK8sApiCoreV1EnvVar as EnvVar,
    IoK8sApiCoreV1EnvVarSource as EnvVarSource,
    IoK8sApiCoreV1PersistentVolumeClaimVolumeSource as PersistentVolumeClaimVolumeSource,
    IoK8sApiCoreV1ResourceRequirements as ResourceRequirements,
    IoK8sApiCoreV1SecretKeySelector as SecretKeySelector,
    IoK8sApiCoreV1Volume as Volume,
    IoK8sApiCoreV1VolumeMount as VolumeMount,
    IoK8sApimachineryPkgApiResourceQuantity as ResourceQuantity,
    IoK8sApimachineryPkgApisMetaV1ObjectMeta as ObjectMeta,
    IoK8sApimachineryPkgApisMetaV1OwnerReference as OwnerReference,
    TrainerV1alpha1ContainerPatch as ContainerPatch,
    TrainerV1alpha1JobSetSpecPatch as JobSetSpecPatch,
    TrainerV1alpha1JobSetTemplatePatch as JobSetTemplatePatch,
    TrainerV1alpha1JobSpecPatch as JobSpecPatch,
    TrainerV1alpha1JobTemplatePatch as JobTemplatePatch,
    TrainerV1alpha1PodSpecPatch as PodSpecPatch,
    TrainerV1alpha1PodTemplatePatch as PodTemplatePatch,
    TrainerV1alpha1ReplicatedJobPatch as ReplicatedJobPatch,
    TrainerV1alpha1RuntimePatch as RuntimePatch,
    TrainerV1alpha1RuntimeRef as RuntimeRef,
    TrainerV1alpha1Trainer as Trainer,
    TrainerV1alpha1TrainingRuntimeSpecPatch as TrainingRuntimeSpecPatch,
    TrainerV1alpha1TrainJob as TrainJob,
    TrainerV1alpha1TrainJobSpec as TrainJobSpec,
)

from components.trainer_api import API, NODE, TrainerJobError


def manifests(name: str, arguments: argparse.Namespace, flags: list[str]) -> list[dict[str, Any]]:
    """The job for Trainer 2.2 and newer, then for 2.1; its pods run the step's program with `flags`.

    TrainerJobError if --pod sets a field that Trainer cannot patch.
    """
    pod = _pod(arguments)
    job = TrainJob(
        apiVersion="/".join(API),
        kind="TrainJob",
        metadata=ObjectMeta(name=name, ownerReferences=_owners()),
        spec=TrainJobSpec(
            runtimeRef=RuntimeRef(name=arguments.runtime),
            trainer=_trainer(arguments, flags),
        ),
    )
    older = job.to_dict()
    # 2.2 replaced podTemplateOverrides by runtimePatches, so the current types lack it
    older["spec"]["podTemplateOverrides"] = [{"targetJobs": [{"name": NODE}], **pod.to_dict()}]
    job.spec.runtime_patches = [_patch(pod)]
    return [job.to_dict(), older]


def _trainer(arguments: argparse.Namespace, flags: list[str]) -> Trainer:
    gpus = {arguments.gpu_resource: str(arguments.processes_per_node)} if arguments.gpu_resource else {}
    amounts = {"cpu": arguments.cpu, "memory": arguments.memory} | gpus
    resources = {name: ResourceQuantity(amount) for name, amount in amounts.items()}
    env = [_secret_variable(arguments.secret, key) for key in arguments.secret_keys]
    if not gpus:
        env.append(EnvVar(name="ACCELERATE_USE_CPU", value="true"))
    return Trainer(
        image=arguments.image,
        command=["torchrun", "--module", f"components.{arguments.step}"],
        args=flags,
        env=env,
        numNodes=arguments.nodes,
        numProcPerNode=arguments.processes_per_node,
        resourcesPerNode=ResourceRequirements(requests=resources, limits=resources),
    )


def _secret_variable(secret: str, key: str) -> EnvVar:
    """An environment variable read from the secret's key of the same name; unset if the secret lacks it."""
    selector = SecretKeySelector(name=secret, key=key, optional=True)
    return EnvVar(name=key, valueFrom=EnvVarSource(secretKeyRef=selector))


def _pod(arguments: argparse.Namespace) -> PodTemplatePatch:
    """Changes to the runtime's pods: labels, volumes and the fields of --pod."""
    try:
        spec = PodSpecPatch.from_dict(arguments.pod)
    except ValueError as error:
        raise TrainerJobError(f"--pod is {arguments.pod}: {error}") from error
    if spec.to_dict() != arguments.pod:  # the types drop fields that they do not know
        raise TrainerJobError(f"--pod is {arguments.pod}: Trainer can patch only {spec.to_dict()} of it")
    claim = PersistentVolumeClaimVolumeSource(claimName=arguments.claim)
    memory = EmptyDirVolumeSource(medium="Memory")
    spec.volumes = [
        Volume(name="pemt", persistentVolumeClaim=claim),
        Volume(name="shm", emptyDir=memory),  # NCCL needs more than the default of 64 MiB
    ]
    mounts = [
        VolumeMount(name="pemt", mountPath=str(arguments.volume)),
        VolumeMount(name="shm", mountPath="/dev/shm"),
    ]
    spec.containers = [ContainerPatch(name=NODE, volumeMounts=mounts)]
    labels = {"sidecar.istio.io/inject": "false"}  # a service mesh would cut the connections between nodes
    return PodTemplatePatch(metadata=ObjectMeta(labels=labels), spec=spec)


def _patch(pod: PodTemplatePatch) -> RuntimePatch:
    """`pod` as a patch of the pods in the runtime's job of nodes."""
    template = JobTemplatePatch(spec=JobSpecPatch(template=pod))
    nodes = ReplicatedJobPatch(name=NODE, template=template)
    job_set = JobSetTemplatePatch(spec=JobSetSpecPatch(replicatedJobs=[nodes]))
    runtime = TrainingRuntimeSpecPatch(template=job_set)
    return RuntimePatch(manager="pemt-pipeline", trainingRuntimeSpec=runtime)


def _owners() -> list[OwnerReference]:
    """The pod of the Kubeflow step, so that deleting a run deletes its jobs too. None outside Kubeflow."""
    name, uid = os.environ.get("KFP_POD_NAME"), os.environ.get("KFP_POD_UID")
    if not uid:
        return []
    return [OwnerReference(apiVersion="v1", kind="Pod", name=name, uid=uid)]
