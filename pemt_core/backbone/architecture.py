"""Read the configuration of a model, and refuse one that no checkpoint can have before a model of it is made."""

from operator import attrgetter
from typing import Any

from pemt_core.backbone.families import family_of_type
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
