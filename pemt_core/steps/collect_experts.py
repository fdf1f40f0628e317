"""collect_experts: the source adapters of all sources, in the order of params.yaml, in one file."""

from collections.abc import Sequence
from pathlib import Path

from pemt_core.artifacts.adapter import DESCRIPTION, load_adapter
from pemt_core.artifacts.experts import save_experts
from pemt_core.artifacts.files import read_json
from pemt_core.errors import ArtifactError


def collect_experts(adapter_dirs: Sequence[Path], *, output_dir: Path) -> list[str]:
    """Write the experts in the order of `adapter_dirs`; returns their tasks. All must share one backbone."""
    if not adapter_dirs:
        raise ArtifactError("no source adapters were given; tasks.sources must name at least one task")
    backbone = read_json(Path(adapter_dirs[0]) / DESCRIPTION)["backbone"]
    adapters = [load_adapter(directory, backbone) for directory in adapter_dirs]
    save_experts(output_dir, adapters)
    return [adapter.description.task for adapter in adapters]
