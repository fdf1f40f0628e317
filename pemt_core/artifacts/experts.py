"""The source adapters of all sources in a fixed order, in one file: expert k is the same source everywhere."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from pemt_core.artifacts.adapter import Adapter, check_backbone
from pemt_core.artifacts.description import LonePromptDescription, SourceDescription, TargetDescription
from pemt_core.artifacts.files import atomic_directory, read_record, sha256_of_file, sha256_of_json, write_record
from pemt_core.artifacts.tensors import check_shapes, read_tensors
from pemt_core.backbone.store import Backbone
from pemt_core.errors import ArtifactError, nearest
from pemt_core.model.assemble import Expert, source_shapes
from pemt_core.model.stacks import width

TENSORS, MANIFEST = "experts.safetensors", "experts.json"
LONE_PROMPT = "lone_prompt"  # a tensor beside an expert's, and the hash of its content in the manifest


@dataclass(frozen=True)
class ImportedExpert:
    """An expert that was not trained here."""

    expert: Expert
    backbone: str  # fingerprint of the backbone that it was read for
    sha256: str  # of the file that held its tensors


@dataclass(frozen=True)
class ExpertBank:
    """All experts in order, and a hash of the content of each."""

    experts: Sequence[Expert]
    contents: Mapping[str, str]  # source to the hash of its tensors and scale
    lone_prompts: Mapping[str, str] = field(default_factory=dict)  # source to the hash of its prompt trained alone

    @property
    def sources(self) -> list[str]:
        return [expert.task for expert in self.experts]

    def select(self, sources: Sequence[str]) -> list[Expert]:
        """The experts of `sources`, in that order. Raises ArtifactError, naming the nearest, if one is missing."""
        known = {expert.task: expert for expert in self.experts}
        for source in sources:
            if source not in known:
                raise ArtifactError(f"there is no expert of '{source}'; {nearest(source, known)}")
        return [known[source] for source in sources]

    def mixture_hash(self, sources: Sequence[str], lone_prompts: bool = False) -> str:
        """A hash of the experts of `sources`, which a cell that mixes them records. Other experts do not affect it.

        With `lone_prompts`, it covers their prompts that were trained alone, for a cell that reads them. Raises
        ArtifactError if an expert, or such a prompt, is missing.
        """
        parts = [[expert.task, self.contents[expert.task]] for expert in self.select(sources)]
        if lone_prompts:
            for part in parts:
                if part[0] not in self.lone_prompts:
                    raise ArtifactError(
                        f"the expert of '{part[0]}' has no prompt that was trained alone; add prompt to "
                        "train_source.kinds, then run train_source and collect_experts again"
                    )
                part.append(self.lone_prompts[part[0]])
        return sha256_of_json(parts)

    def check(self, directory: Path, cell: TargetDescription, lone_prompts: bool = False) -> None:
        """Raise ArtifactError, naming both, if the cell in `directory` was trained with other experts than these.

        `lone_prompts` says whether its method reads prompts that were trained alone.
        """
        found = self.mixture_hash(cell.sources, lone_prompts)
        if cell.experts != found:
            raise ArtifactError(
                f"{directory}: trained with the experts {cell.experts[:12]}, but the current ones are {found[:12]}; "
                "train it again, or use the experts that it was trained with"
            )


def save_experts(
    directory: Path,
    adapters: Sequence[Adapter[SourceDescription]],
    imported: Sequence[ImportedExpert] = (),
    lone_prompts: Sequence[Adapter[LonePromptDescription]] = (),
) -> None:
    """Write the tensors (keys `<k>/<name>`) and the manifest, with imported experts last.

    `lone_prompts` are prompts of some of the sources, trained alone; each becomes `<k>/lone_prompt`. Raises
    ArtifactError if two of all these were trained on different backbones.
    """
    backbones = {a.description.task: a.description.backbone for a in adapters}
    backbones |= {i.expert.task: i.backbone for i in imported}
    backbones |= {f"{p.description.task}, prompt": p.description.backbone for p in lone_prompts}
    for task, backbone in backbones.items():
        check_backbone(Path(f"source adapter {task}"), backbone, adapters[0].description.backbone)
    alone = {p.description.task: p.tensors["prompt"] for p in lone_prompts}
    trained = [Expert(t := a.description.task, a.tensors, a.description.scale, alone.get(t)) for a in adapters]
    entries = [_entry(e, a.content_hash) for e, a in zip(trained, adapters, strict=True)]
    entries += [{**_entry(i.expert, i.sha256), "imported": True} for i in imported]
    listed = [*trained, *(i.expert for i in imported)]
    tensors = {f"{k}/{name}": tensor for k, expert in enumerate(listed) for name, tensor in _stored(expert).items()}
    with atomic_directory(directory) as temporary:
        save_file(tensors, temporary / TENSORS)
        manifest = {"backbone": adapters[0].description.backbone, "sha256": sha256_of_file(temporary / TENSORS)}
        write_record(temporary / MANIFEST, {**manifest, "experts": entries})


def load_experts(directory: Path, backbone: Backbone) -> ExpertBank:
    """Read the experts in order. `backbone` may be on the meta device.

    Raises ArtifactError if a file is missing or altered, is of another backbone, or has tensors that are no experts.
    """
    directory = Path(directory)
    manifest = read_record(directory / MANIFEST, "run the collect_experts step again")
    try:
        check_backbone(directory, manifest["backbone"], backbone.fingerprint)
        tensors = read_tensors(directory / TENSORS, manifest["sha256"])
        entries = [(entry["task"], entry["scale"]) for entry in manifest["experts"]]
        contents = {entry["task"]: entry["content"] for entry in manifest["experts"]}
        lone_prompts = {e["task"]: e[LONE_PROMPT] for e in manifest["experts"] if LONE_PROMPT in e}
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{directory / MANIFEST}: not a manifest of experts (lacks {error})") from error
    experts = [
        Expert(task, {n.removeprefix(f"{k}/"): t for n, t in tensors.items() if n.startswith(f"{k}/")}, scale)
        for k, (task, scale) in enumerate(entries)
    ]
    shapes = [_shapes(expert, backbone.model, expert.task in lone_prompts) for expert in experts]
    expected = {f"{k}/{name}": shape for k, each in enumerate(shapes) for name, shape in each.items()}
    check_shapes(directory / TENSORS, tensors, expected, "the backbone")
    return ExpertBank([_with_lone_prompt(expert) for expert in experts], contents, lone_prompts)


def _stored(expert: Expert) -> Mapping[str, Tensor]:
    """The tensors of an expert in the file, by name."""
    return expert.tensors if expert.lone_prompt is None else {**expert.tensors, LONE_PROMPT: expert.lone_prompt}


def _with_lone_prompt(expert: Expert) -> Expert:
    """The expert of tensors as `_stored` returns them."""
    tensors = dict(expert.tensors)
    return replace(expert, tensors=tensors, lone_prompt=tensors.pop(LONE_PROMPT, None))


def _shapes(expert: Expert, model: Any, with_lone_prompt: bool) -> dict[str, tuple[int, int]]:
    """What an expert's tensors must look like; its layers, their ranks and the length of its prompts are its own."""

    def rows(name: str) -> int:
        tensor = expert.tensors.get(name)
        return 1 if tensor is None or not tensor.ndim else max(1, len(tensor))

    shapes = source_shapes(model, rows("prompt"), lambda layer: rows(f"{layer}.down"), expert.tensors)
    return {**shapes, LONE_PROMPT: (rows(LONE_PROMPT), width(model))} if with_lone_prompt else shapes


def _entry(expert: Expert, sha256: str) -> dict[str, object]:
    alone = {} if expert.lone_prompt is None else {LONE_PROMPT: _hash({"prompt": expert.lone_prompt}, 1.0)}
    content = _hash(expert.tensors, expert.scale)
    return {"task": expert.task, "scale": expert.scale, "sha256": sha256, "content": content, **alone}


def _hash(tensors: Mapping[str, Tensor], scale: float) -> str:
    """A hash of tensors and their scale, which does not depend on their file."""
    digest = hashlib.sha256(f"{scale!r}\n".encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
