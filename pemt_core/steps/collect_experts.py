"""collect_experts: the source adapters of all sources, in the order of params.yaml, in one file."""

from collections.abc import Sequence
from pathlib import Path

from pemt_core.artifacts.adapter import load_adapter, load_description
from pemt_core.artifacts.experts import save_experts
from pemt_core.errors import ArtifactError


def collect_experts(adapter_dirs: Sequence[Path], sources: Sequence[str], *, output_dir: Path) -> None:
    """Write the experts of `sources` in their order, whatever that of `adapter_dirs`. All must share one backbone.

    ArtifactError where an adapter is missing, unreadable, or of another source.
    """
    if not adapter_dirs:
        raise ArtifactError("no source adapters were given; tasks.sources must name at least one task")
    first, _ = load_description(adapter_dirs[0])
    found = {adapter.description.task: adapter for adapter in (load_adapter(d, first.backbone) for d in adapter_dirs)}
    if set(found) != set(sources):
        raise ArtifactError(f"adapters of {', '.join(sorted(found))} were given for the sources {', '.join(sources)}")
    save_experts(output_dir, [found[source] for source in sources])
