"""collect_experts: put the adapters of all sources into one file, in the order of params.yaml."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pemt_core.artifacts.experts import ImportedExpert, save_experts
from pemt_core.artifacts.source import load_lone_prompt, load_source
from pemt_core.backbone.shapes import outline
from pemt_core.backbone.store import load_backbone
from pemt_core.errors import ArtifactError
from pemt_core.lora.reader import load_lora
from pemt_core.settings import ImportedSource


def collect_experts(
    adapter_dirs: Sequence[Path],
    sources: Sequence[str],
    imported: Sequence[ImportedExpert] = (),
    *,
    lone_prompts: Sequence[str] = (),
    backbone_dir: Path,
    output_dir: Path,
) -> None:
    """Write the experts of `sources` in that order, whatever the order of `adapter_dirs`, then those `imported`.

    The experts of the sources `lone_prompts` get the prompt that was trained alone. Raises ArtifactError if an adapter
    or such a prompt is missing, altered, or of another source or backbone.
    """
    if not adapter_dirs:
        raise ArtifactError("no source adapters were given; tasks.sources must name at least one task")
    backbone = outline(backbone_dir)
    adapters = {directory: load_source(directory, backbone) for directory in adapter_dirs}
    found = {adapter.description.task: directory for directory, adapter in adapters.items()}
    if set(found) != set(sources):
        raise ArtifactError(f"found adapters of {', '.join(sorted(found))}; expected those of {', '.join(sources)}")
    prompts = {source: load_lone_prompt(found[source], backbone) for source in lone_prompts}
    for source, prompt in prompts.items():
        if prompt.description.task != source:
            raise ArtifactError(f"{found[source]}: has the prompt of '{prompt.description.task}', not of '{source}'")
    save_experts(output_dir, [adapters[found[source]] for source in sources], imported, list(prompts.values()))


def import_experts(sources: Mapping[str, ImportedSource], backbone_dir: Path) -> list[ImportedExpert]:
    """Read the LoRAs of `sources` as experts, in their order; without any, the backbone is not read."""
    if not sources:
        return []
    backbone = load_backbone(backbone_dir)
    return [load_lora(Path(s.adapter), name, s.description, backbone) for name, s in sources.items()]
