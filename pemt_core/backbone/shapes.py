"""Backbones of shapes alone, on the meta device: no weights, no downloads.

The numbers come from the checkpoints' config.json on the hub.
"""

from pathlib import Path
from typing import Any

import torch

from pemt_core.backbone.architecture import read_config
from pemt_core.backbone.families import architecture_class
from pemt_core.backbone.store import Backbone, recorded_fingerprint
from pemt_core.backbone.tokenizer import load_tokenizer
from pemt_core.errors import ArtifactError, SettingsError, cut, nearest

_T5 = {"vocab_size": 32128, "d_kv": 64, "feed_forward_proj": "relu"}
_GATED = {"vocab_size": 32128, "d_kv": 64, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
_SMALL = {"d_model": 512, "num_layers": 6, "num_heads": 8}
_BASE = {"d_model": 768, "num_layers": 12, "num_heads": 12}
_LARGE = {"d_model": 1024, "num_layers": 24, "num_heads": 16}
_SMALL_1_1 = {"d_model": 512, "d_ff": 1024, "num_layers": 8, "num_heads": 6}
_BASE_1_1, _LARGE_1_1 = {**_BASE, "d_ff": 2048}, {**_LARGE, "d_ff": 2816}
_XL, _XXL = {"d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_heads": 32}, {
    "d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
}  # fmt: skip

SHAPES: dict[str, dict[str, Any]] = {
    "t5-small": {**_T5, **_SMALL, "d_ff": 2048},
    "t5-base": {**_T5, **_BASE, "d_ff": 3072},
    "t5-large": {**_T5, **_LARGE, "d_ff": 4096},
    "t5-3b": {**_T5, **_LARGE, "d_kv": 128, "d_ff": 16384, "num_heads": 32},
    "t5-11b": {**_T5, **_LARGE, "d_kv": 128, "d_ff": 65536, "num_heads": 128},
    **{
        f"{family}-{size}": {**_GATED, **shape}
        for family in ("t5-v1_1", "flan-t5")
        for size, shape in (
            ("small", _SMALL_1_1), ("base", _BASE_1_1), ("large", _LARGE_1_1), ("xl", _XL), ("xxl", _XXL),
        )
    },
    **{
        f"mt5-{size}": {**_GATED, **shape, "vocab_size": 250112}
        for size, shape in (
            ("small", _SMALL_1_1), ("base", _BASE_1_1), ("large", _LARGE_1_1), ("xl", _XL), ("xxl", _XXL),
        )
    },
}  # fmt: skip


def outline(directory: Path) -> Backbone:
    """The backbone in a folder without its weights. Raises PemtError if the folder is not a backbone's."""
    fingerprint = recorded_fingerprint(directory)
    return Backbone(backbone_of_shapes(str(directory)), load_tokenizer(str(directory)), fingerprint)


def backbone_of_shapes(name: str) -> Any:
    """A T5 on the meta device: from a folder with a config.json, or a name in SHAPES, with or without its publisher.

    Raises SettingsError, naming the nearest, if `name` is neither, and ArtifactError if the config.json is damaged.
    """
    from transformers import T5Config

    if Path(name).is_dir():
        config = read_config(name, local_files_only=True)
    else:
        short = name.rpartition("/")[2]
        if short not in SHAPES:
            raise SettingsError(f"'{cut(name)}' is neither a folder nor a T5 of known shapes; {nearest(short, SHAPES)}")
        config = T5Config(**SHAPES[short])
    model_class = architecture_class(config.model_type, name)
    try:
        with torch.device("meta"):
            return model_class(config)
    except Exception as error:  # transformers checks only some values of a configuration
        raise ArtifactError(f"{name}: its config.json describes no T5 ({type(error).__name__}: {error})") from error
