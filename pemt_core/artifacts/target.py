"""A stored target adapter as a model on its backbone."""

from collections.abc import Sequence
from typing import Any

from pemt_core.artifacts.adapter import Adapter
from pemt_core.artifacts.experts import select_experts
from pemt_core.model.assemble import Expert, FoldedLayers, build_target_model
from pemt_core.model.prompted import PromptedT5


def restore_target(
    backbone: Any, adapter: Adapter, experts: Sequence[Expert], folded: FoldedLayers | None = None
) -> PromptedT5:
    """The model that `adapter` is the trained part of, attached to `backbone`; it mixes those `experts` that it names.

    `folded` as in `build_target_model`. ArtifactError where an expert is not there.
    """
    settings = adapter.description.settings
    return build_target_model(
        backbone,
        adapter.tensors,
        select_experts(experts, adapter.description.sources),
        prompt_dropout=settings["prompt_dropout"],
        sparsity_coefficient=settings["sparsity_coefficient"],
        sparsity_positions=settings["sparsity_positions"],
        folded=folded,
    )
