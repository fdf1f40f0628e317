"""The source adapters of all sources in a fixed order, in one file: expert k is the same source everywhere."""

from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file

from pemt_core.artifacts.adapter import Adapter, check_backbone, read_tensors
from pemt_core.artifacts.files import atomic_directory, read_json, sha256_of_file, write_json
from pemt_core.errors import ArtifactError, nearest
from pemt_core.model.assemble import Expert

TENSORS, MANIFEST = "experts.safetensors", "experts.json"


def save_experts(directory: Path, adapters: Sequence[Adapter]) -> None:
    """Write tensors (keys `<k>/<name>`) and manifest. ArtifactError where two were trained on different backbones."""
    backbones = {adapter.description.task: adapter.description.backbone for adapter in adapters}
    for task, backbone in backbones.items():
        check_backbone(Path(f"source adapter {task}"), backbone, adapters[0].description.backbone)
    tensors = {f"{k}/{name}": tensor for k, a in enumerate(adapters) for name, tensor in a.tensors.items()}
    experts = [{"task": a.description.task, "scale": a.description.scale, "sha256": a.content_hash} for a in adapters]
    with atomic_directory(directory) as temporary:
        save_file(tensors, temporary / TENSORS)
        manifest = {"backbone": adapters[0].description.backbone, "sha256": sha256_of_file(temporary / TENSORS)}
        write_json(temporary / MANIFEST, {**manifest, "experts": experts})


def load_experts(directory: Path, backbone: str) -> tuple[list[Expert], str]:
    """The experts in their order, and the hash of their tensors. ArtifactError as `load_adapter`."""
    directory = Path(directory)
    manifest = read_json(directory / MANIFEST)
    try:
        check_backbone(directory, manifest["backbone"], backbone)
        tensors = read_tensors(directory / TENSORS, manifest["sha256"])
        entries = [(entry["task"], entry["scale"]) for entry in manifest["experts"]]
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{directory / MANIFEST}: not a manifest of experts (lacks {error})") from error
    experts = [
        Expert(task, {n.removeprefix(f"{k}/"): t for n, t in tensors.items() if n.startswith(f"{k}/")}, scale)
        for k, (task, scale) in enumerate(entries)
    ]
    return experts, manifest["sha256"]


def select_experts(experts: Sequence[Expert], sources: Sequence[str]) -> list[Expert]:
    """The experts of `sources`, in that order. ArtifactError, naming the nearest, where one is not there."""
    known = {expert.task: expert for expert in experts}
    for source in sources:
        if source not in known:
            raise ArtifactError(f"there is no expert of '{source}'; {nearest(source, known)}")
    return [known[source] for source in sources]
