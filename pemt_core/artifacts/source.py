"""Read a stored source adapter that fits its backbone."""

from pathlib import Path

from pemt_core.artifacts.adapter import TENSORS, Adapter, load_adapter
from pemt_core.artifacts.description import SourceDescription
from pemt_core.artifacts.tensors import check_shapes
from pemt_core.backbone.store import Backbone
from pemt_core.errors import ArtifactError
from pemt_core.model.assemble import source_shapes


def load_source(directory: Path, backbone: Backbone) -> Adapter[SourceDescription]:
    """Read a source adapter. `backbone` may be on the meta device.

    Raises ArtifactError like `load_adapter`, and if a tensor is not what training on this backbone makes.
    """
    adapter = load_adapter(directory, backbone.fingerprint, SourceDescription)
    rank = adapter.description.settings.get("rank")
    if rank is None:
        raise ArtifactError(f"{directory}: its settings lack 'rank'; another version wrote it, train it again")
    num_tokens = len(backbone.tokenizer(adapter.description.prompt)["input_ids"])
    expected = source_shapes(backbone.model, num_tokens, lambda _: rank)
    check_shapes(directory / TENSORS, adapter.tensors, expected, "its backbone and settings")
    return adapter
