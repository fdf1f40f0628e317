"""collect_experts: the source adapters of all sources, in the order of params.yaml, in one file."""

from collections.abc import Sequence
from pathlib import Path

from pemt_core.artifacts.adapter import load_adapter, load_description
from pemt_core.artifacts.experts import save_experts
from pemt_core.errors import ArtifactError


def collect_experts(adapter_dirs: Sequence[Path], *, output_dir: Path) -> list[str]:
    """Write the experts in the order of `adapter_dirs`; returns their tasks. All must share one backbone."""
    if not adapter_dirs:
        raise ArtifactError("no source adapters were given; tasks.sources must name at least one task")
    first, _ = load_description(adapter_dirs[0])
    adapters = [load_adapter(directory, first.backbone) for directory in adapter_dirs]
    save_experts(output_dir, adapters)
    return [adapter.description.task for adapter in adapters]
