"""Build a model that changes a backbone's modules or parameters and reads the text alone."""

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from pemt_core.model.attachment import Attachment, Change
from pemt_core.model.prompt import NoPrompt
from pemt_core.model.prompted import PromptedT5
from pemt_core.model.signal import ForwardSignal


def build_promptless_model(backbone: Any, changes: Iterable[Change]) -> PromptedT5:
    """Attach all `changes` to `backbone`, whose other parameters are frozen; P = 0."""
    trained: dict[str, nn.Parameter] = {}
    with Attachment.whole(backbone) as attachment:
        for change in list(changes):  # all are made of the backbone as it was
            attachment.replace(change.parent, change.attribute, change.new)
            trained |= change.trained
        return PromptedT5(backbone, NoPrompt(), attachment, ForwardSignal(), trained)


def copied(tensors: Mapping[str, Tensor], backbone: Any) -> dict[str, Tensor]:
    """Copy tensors to the backbone's device, so that training does not change the caller's."""
    device = backbone.get_input_embeddings().weight.device
    return {name: tensor.detach().to(device, copy=True) for name, tensor in tensors.items()}
