"""Read what train_source stored for a source, if it fits its backbone: its adapter, and a prompt that is trained alone.

<source>/          the adapter with its prompt
<source>/prompt/   the prompt that was trained without an adapter, if a method needs it
"""

from pathlib import Path

from pemt_core.artifacts.adapter import TENSORS, Adapter, load_adapter
from pemt_core.artifacts.description import LonePromptDescription, SourceDescription, lone_prompt_folder
from pemt_core.artifacts.tensors import check_shapes
from pemt_core.backbone.store import Backbone
from pemt_core.backbone.text_ids import description_ids
from pemt_core.errors import ArtifactError
from pemt_core.model.assemble import source_shapes
from pemt_core.model.stacks import width


def load_source(directory: Path, backbone: Backbone) -> Adapter[SourceDescription]:
    """Read a source adapter. `backbone` may be on the meta device.

    Raises ArtifactError like `load_adapter`, and if a tensor is not what training on this backbone makes.
    """
    adapter = load_adapter(directory, backbone.fingerprint, SourceDescription)
    rank = _setting(directory, adapter.description, "rank")
    num_tokens = len(description_ids(backbone.tokenizer, adapter.description.prompt))
    expected = source_shapes(backbone.model, num_tokens, lambda _: rank)
    check_shapes(directory / TENSORS, adapter.tensors, expected, "its backbone and settings")
    return adapter


def load_lone_prompt(directory: Path, backbone: Backbone) -> Adapter[LonePromptDescription]:
    """Read the prompt that was trained alone from a source's folder, as `load_source` reads its adapter."""
    folder = lone_prompt_folder(directory)
    prompt = load_adapter(folder, backbone.fingerprint, LonePromptDescription)
    shape = _setting(folder, prompt.description, "length"), width(backbone.model)
    check_shapes(folder / TENSORS, prompt.tensors, {"prompt": shape}, "its backbone and settings")
    return prompt


def _setting(directory: Path, description: SourceDescription | LonePromptDescription, name: str) -> int:
    if name not in description.settings:
        raise ArtifactError(f"{directory}: its settings lack '{name}'; another version wrote it, train it again")
    return int(description.settings[name])
