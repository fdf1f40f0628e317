"""The source adapters of all sources in a fixed order, in one file: expert k is the same source everywhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import save_file

from pemt_core.artifacts.adapter import Adapter, check_backbone, read_tensors
from pemt_core.artifacts.files import atomic_directory, read_json, sha256_of_file, write_json
from pemt_core.errors import ArtifactError, nearest
from pemt_core.model.assemble import Expert

TENSORS, MANIFEST = "experts.safetensors", "experts.json"


@dataclass(frozen=True)
class ImportedExpert:
    """An expert that was not trained here."""

    expert: Expert
    backbone: str  # fingerprint of the one that it was read for
    sha256: str  # of the file that held its tensors


def save_experts(directory: Path, adapters: Sequence[Adapter], imported: Sequence[ImportedExpert] = ()) -> None:
    """Write tensors (keys `<k>/<name>`) and manifest, imported experts last.

    ArtifactError where two were trained on different backbones.
    """
    backbones = {a.description.task: a.description.backbone for a in adapters}
    backbones |= {i.expert.task: i.backbone for i in imported}
    for task, backbone in backbones.items():
        check_backbone(Path(f"source adapter {task}"), backbone, adapters[0].description.backbone)
    listed = [*(a.tensors for a in adapters), *(i.expert.tensors for i in imported)]
    tensors = {f"{k}/{name}": tensor for k, expert in enumerate(listed) for name, tensor in expert.items()}
    experts = [{"task": a.description.task, "scale": a.description.scale, "sha256": a.content_hash} for a in adapters]
    experts += [
        {"task": i.expert.task, "scale": i.expert.scale, "sha256": i.sha256, "imported": True} for i in imported
    ]
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
