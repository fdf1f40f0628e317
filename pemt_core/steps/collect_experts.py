"""collect_experts: put the adapters of all sources into one file, in the order of params.yaml."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pemt_core.artifacts.experts import ImportedExpert, save_experts
from pemt_core.artifacts.source import load_source
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
    backbone_dir: Path,
    output_dir: Path,
) -> None:
    """Write the experts of `sources` in that order, whatever the order of `adapter_dirs`, then those `imported`.

    Raises ArtifactError if an adapter is missing, altered, or of another source or backbone.
    """
    if not adapter_dirs:
        raise ArtifactError("no source adapters were given; tasks.sources must name at least one task")
    backbone = outline(backbone_dir)
    adapters = [load_source(directory, backbone) for directory in adapter_dirs]
    found = {adapter.description.task: adapter for adapter in adapters}
    if set(found) != set(sources):
        raise ArtifactError(f"found adapters of {', '.join(sorted(found))}; expected those of {', '.join(sources)}")
    save_experts(output_dir, [found[source] for source in sources], imported)


def import_experts(sources: Mapping[str, ImportedSource], backbone_dir: Path) -> list[ImportedExpert]:
    """Read the LoRAs of `sources` as experts, in their order; without any, the backbone is not read."""
    if not sources:
        return []
    backbone = load_backbone(backbone_dir)
    return [load_lora(Path(s.adapter), name, s.description, backbone) for name, s in sources.items()]
