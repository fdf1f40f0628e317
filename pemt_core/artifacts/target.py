"""Restore a stored cell as a model on its backbone."""

from typing import Any

from pemt_core.artifacts.adapter import Adapter
from pemt_core.artifacts.description import TargetDescription
from pemt_core.artifacts.experts import ExpertBank
from pemt_core.methods import stored_method
from pemt_core.model.assemble import FoldedLayers
from pemt_core.model.prompted import PromptedT5


def restore_target(
    backbone: Any, adapter: Adapter[TargetDescription], bank: ExpertBank, folded: FoldedLayers | None = None
) -> PromptedT5:
    """Build the model of a trained cell from `adapter` and the experts that it names, and attach it to `backbone`.

    `folded` is that of `pemt_core.model.assemble.build_target_model`. Raises ArtifactError if an expert is missing, and
    SettingsError if the cell's kind of method is unknown.
    """
    description = adapter.description
    method = stored_method(description.settings, f"the method {description.method} of {description.task}")
    return method.build(backbone, adapter.tensors, bank.select(description.sources), folded)
