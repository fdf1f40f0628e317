"""Put a prompt and attached modules on a backbone of any family."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from pemt_core.backbone.families import family_of
from pemt_core.model.attachment import Attachment
from pemt_core.model.decoder_only import DecoderOnly
from pemt_core.model.encoder_decoder import EncoderDecoder
from pemt_core.model.prompt import Prompt
from pemt_core.model.prompted import PromptedModel
from pemt_core.model.signal import ForwardSignal


def prompted(
    backbone: Any,
    prompt: Prompt,
    attachment: Attachment,
    signal: ForwardSignal,
    trained: Mapping[str, nn.Parameter],
    *,
    sparsity_coefficient: float = 0.0,
    penalty: Callable[[], Tensor] | None = None,
) -> PromptedModel:
    """Build the model that suits the backbone's family; the arguments are those of PromptedModel."""
    kind = EncoderDecoder if family_of(backbone).has_encoder else DecoderOnly
    options: dict[str, Any] = {"sparsity_coefficient": sparsity_coefficient, "penalty": penalty}
    return kind(backbone, prompt, attachment, signal, trained, **options)
