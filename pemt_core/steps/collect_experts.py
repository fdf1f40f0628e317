"""collect_experts: the source adapters of all sources, in the order of params.yaml, in one file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from pemt_core.artifacts.adapter import load_adapter
from pemt_core.artifacts.description import SourceDescription, load_description
from pemt_core.artifacts.experts import ImportedExpert, save_experts
from pemt_core.backbone.store import load_backbone
from pemt_core.errors import ArtifactError
from pemt_core.lora.reader import load_lora
from pemt_core.settings import ImportedSource


def collect_experts(
    adapter_dirs: Sequence[Path], sources: Sequence[str], imported: Sequence[ImportedExpert] = (), *, output_dir: Path
) -> None:
    """Write the experts of `sources` in their order, whatever that of `adapter_dirs`, and those `imported` after them.

    All must share one backbone. ArtifactError where an adapter is missing, unreadable, or of another source.
    """
    if not adapter_dirs:
        raise ArtifactError("no source adapters were given; tasks.sources must name at least one task")
    first, _ = load_description(adapter_dirs[0], SourceDescription)
    adapters = [load_adapter(directory, first.backbone, SourceDescription) for directory in adapter_dirs]
    found = {adapter.description.task: adapter for adapter in adapters}
    if set(found) != set(sources):
        raise ArtifactError(f"adapters of {', '.join(sorted(found))} were given for the sources {', '.join(sources)}")
    save_experts(output_dir, [found[source] for source in sources], imported)


def import_experts(sources: Mapping[str, ImportedSource], backbone_dir: Path) -> list[ImportedExpert]:
    """The LoRAs of `sources` as experts, in their order; the backbone is read only where there are any."""
    if not sources:
        return []
    backbone = load_backbone(backbone_dir)
    return [load_lora(Path(s.adapter), name, s.description, backbone) for name, s in sources.items()]
