"""Put a prompt and attached modules on a backbone of any family."""

from typing import Any

from pemt_core.backbone.families import family_of
from pemt_core.model.decoder_only import DecoderOnly
from pemt_core.model.encoder_decoder import EncoderDecoder
from pemt_core.model.prompted import PromptedModel


def prompted(backbone: Any, *parts: Any, **options: Any) -> PromptedModel:
    """Build the model that suits the backbone's family; the arguments are those of PromptedModel."""
    kind = EncoderDecoder if family_of(backbone).has_encoder else DecoderOnly
    return kind(backbone, *parts, **options)
