"""A stored cell as a model on its backbone."""

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
    """The model that `adapter` is the trained part of, attached to `backbone`; it mixes the experts that it names.

    `folded` as in `pemt_core.model.assemble.build_target_model`. ArtifactError where an expert is not there,
    SettingsError where the cell was trained by a kind of method that is not known here.
    """
    description = adapter.description
    method = stored_method(description.settings, f"the method {description.method} of {description.task}")
    return method.build(backbone, adapter.tensors, bank.select(description.sources), folded)
