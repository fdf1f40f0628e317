"""Read the configuration of a T5, and refuse one that no checkpoint can have before a model of it is made."""

from typing import Any

from pemt_core.backbone.location import one_line
from pemt_core.errors import ArtifactError

# The largest T5s have 36 layers, heads of 128, a feed-forward of 65,536, and a vocabulary of 384,000
_LARGEST = {
    "vocab_size": 2**22,
    "d_model": 2**16,
    "d_kv": 2**12,
    "d_ff": 2**18,
    "num_layers": 100,
    "num_decoder_layers": 100,
    "num_heads": 2**10,
    "relative_attention_num_buckets": 2**12,
    "relative_attention_max_distance": 2**20,
}


def read_config(name: str, **options: Any) -> Any:
    """Read a configuration from a folder or the hub; `options` are those of from_pretrained.

    Raises ArtifactError if it is missing, damaged, or has a size that no T5 has.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name, **options)
    except Exception as error:  # transformers raises various types for a damaged file
        raise ArtifactError(f"{name}: no readable config.json of a T5 ({one_line(error)})") from error
    for key, largest in _LARGEST.items():
        value = getattr(config, key, 1)
        if not isinstance(value, int) or not 0 < value <= largest:
            raise ArtifactError(f"{name}: config.json: {key} is {value!r}: expected a number from 1 to {largest:,}")
    return config
