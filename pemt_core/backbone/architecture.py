"""Read the configuration of a model, and refuse one that no checkpoint can have before a model of it is made."""

from operator import attrgetter
from typing import Any

from pemt_core.backbone.families import family_of, family_of_type
from pemt_core.backbone.location import one_line
from pemt_core.errors import ArtifactError


def read_config(name: str, **options: Any) -> Any:
    """Read a configuration from a folder or the hub; `options` are those of from_pretrained.

    Raises ArtifactError if it is missing, damaged, of no supported family, or has a size that no checkpoint has.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name, **options)
    except Exception as error:  # transformers raises various types for a damaged file
        raise ArtifactError(f"{name}: no readable configuration of a model ({one_line(error)})") from error
    family = family_of_type(config.model_type, name)
    for path, part in config_parts(config).items():
        for key, largest in family.sizes.items():
            value = getattr(part, key, None)
            value = 1 if value is None else value
            if not isinstance(value, int) or not 0 < value <= largest:
                shown = f"{path}.{key}" if path else key
                raise ArtifactError(
                    f"{name}: config.json: {shown} is {value!r}: expected a number from 1 to {largest:,}"
                )
    return config


def config_parts(config: Any) -> dict[str, Any]:
    """The configurations of a model's stacks by their path; "" is the whole one."""
    parts = family_of_type(config.model_type, "the model").config_parts
    return {path: attrgetter(path)(config) if path else config for path in parts}


def unscale_own_head(model: Any) -> None:
    """Have an output layer of its own read the decoder's states as they are, as it did in pretraining.

    T5 scales these states by d_model**-0.5 because its output layer is the input embeddings; relatives with a layer of
    their own (v1.1, mT5, umT5) do not. transformers 5 tells T5 v1.1 from T5 by `scale_decoder_outputs`, but scales in
    every umT5, so that its logits would be too small by the square root of d_model.
    """
    if model.config.model_type in family_of(model).scaled_heads and model.lm_head.weight is not model.shared.weight:
        model.model_dim = 1  # the base of the scale, and read for nothing else
        model.config.scale_decoder_outputs = False
