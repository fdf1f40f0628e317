"""Published checkpoints of the families by their name on the hub: shapes and sizes, without torch.

The numbers come from the checkpoints' config.json, from Google's configurations of T5Gemma, and from the papers. Only
checkpoints are listed whose number of parameters is published, so that tests can check the shapes against it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pemt_core.backbone.family import Family
from pemt_core.errors import SettingsError, cut, nearest

# The objective of T5Gemma, and how far a model is trained: gemma-3-1b-pt and -it, Qwen3-0.6B-Base
_VARIANT = re.compile(r"(-prefixlm|-ul2)?(-it|-pt|-instruct|(?<=\db)-base)?$")

Shapes = Mapping[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on the hub, and others of the same shapes, which differ in the last words of their names."""

    model_type: str
    shapes: Shapes  # the values of config.json that determine them
    parameters: int  # as published
    has_own_head: bool = False  # transformers' configuration says that it is the embeddings, and loads it all the same


def checkpoints_of(family: Family) -> dict[str, Checkpoint]:
    """The published checkpoints of a family by name."""
    return {name: each for name, each in CHECKPOINTS.items() if each.model_type in family.models}


def find_checkpoint(name: str) -> Checkpoint:
    """A checkpoint by name, with or without its publisher, or a variant of one.

    Raises SettingsError, which names the nearest, if there is none.
    """
    by_name = {_short(each): checkpoint for each, checkpoint in CHECKPOINTS.items()}
    short = _short(name)
    if short not in by_name:
        raise SettingsError(
            f"'{cut(name)}' is neither a folder nor a published checkpoint of known shapes; {nearest(short, by_name)}"
        )
    return by_name[short]


def _short(name: str) -> str:
    return _VARIANT.sub("", name.rpartition("/")[2].lower())


def _t5(shape: "_T5Shape", vocab_size: int, **others: Any) -> Shapes:
    d_model, d_ff, num_layers, num_heads = shape
    return {
        "vocab_size": vocab_size,
        "d_model": d_model,
        "d_ff": d_ff,
        "d_kv": 64,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "feed_forward_proj": "relu",
        **others,
    }


def _gated(parameters: int, vocab_size: int, shape: "_T5Shape", model_type: str = "t5", **others: Any) -> Checkpoint:
    """A relative of T5 v1.1."""
    gated = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    return Checkpoint(model_type, _t5(shape, vocab_size, **gated, **others), parameters, has_own_head=True)


def _stack(
    vocab_size: int, hidden_size: int, intermediate_size: int, layers: int, heads: int, groups: int, head_dim: int
) -> dict[str, Any]:
    """`groups`: heads of keys and values."""
    return {
        "vocab_size": vocab_size,
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "head_dim": head_dim,
        "tie_word_embeddings": True,
    }


def _both(encoder: dict[str, Any], decoder: dict[str, Any]) -> Shapes:
    return {"encoder": encoder, "decoder": decoder, "vocab_size": decoder["vocab_size"]}


def _with_vision(stack: dict[str, Any]) -> Shapes:
    return _both({"text_config": stack, "vision_config": _SIGLIP}, stack)


# Vocabularies
_C4, _SMOLLM2, _LLAMA3, _QWEN3, _T5GEMMA, _GEMMA3 = 32_128, 49_152, 128_256, 151_936, 256_000, 262_144

_T5Shape = tuple[int, int, int, int]  # d_model, d_ff, layers of a stack, heads
_SMALL, _BASE, _LARGE = (512, 1024, 8, 6), (768, 2048, 12, 12), (1024, 2816, 24, 16)
_XL, _XXL = (2048, 5120, 24, 32), (4096, 10240, 24, 64)

_GEMMA2_2B = _stack(_T5GEMMA, 2304, 9216, 26, 8, 4, 256)
_GEMMA2_9B = _stack(_T5GEMMA, 3584, 14336, 42, 16, 8, 256)

_GEMMA3_270M = _stack(_GEMMA3, 640, 2048, 18, 4, 1, 256)
_GEMMA3_1B = _stack(_GEMMA3, 1152, 6912, 26, 4, 1, 256)
_GEMMA3_4B = _stack(_GEMMA3, 2560, 10240, 34, 8, 4, 256)
_SIGLIP = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 896,
    "patch_size": 14,
    "vision_use_head": False,
}
_VISION = 417_000_000  # parameters

CHECKPOINTS: dict[str, Checkpoint] = {
    "google-t5/t5-small": Checkpoint("t5", _t5((512, 2048, 6, 8), _C4), 60_506_624),
    "google-t5/t5-base": Checkpoint("t5", _t5((768, 3072, 12, 12), _C4), 222_903_552),
    "google-t5/t5-large": Checkpoint("t5", _t5((1024, 4096, 24, 16), _C4), 737_668_096),
    "google-t5/t5-3b": Checkpoint("t5", _t5((1024, 16384, 24, 32), _C4, d_kv=128), 2_851_598_336),
    "google-t5/t5-11b": Checkpoint("t5", _t5((1024, 65536, 24, 128), _C4, d_kv=128), 11_307_321_344),
    **{
        f"google/{series}-{size}": _gated(parameters, _C4, shape)
        for series in ("t5-v1_1", "flan-t5")
        for size, parameters, shape in (
            ("small", 76_961_152, _SMALL),
            ("base", 247_577_856, _BASE),
            ("large", 783_150_080, _LARGE),
            ("xl", 2_849_757_184, _XL),
            ("xxl", 11_135_332_352, _XXL),
        )
    },
    "google/mt5-small": _gated(300_000_000, 250112, _SMALL, "mt5"),
    "google/mt5-base": _gated(580_000_000, 250112, _BASE, "mt5"),
    "google/mt5-large": _gated(1_230_000_000, 250112, _LARGE, "mt5"),
    "google/mt5-xl": _gated(3_740_000_000, 250112, _XL, "mt5"),
    "google/mt5-xxl": _gated(12_900_000_000, 250112, _XXL, "mt5"),
    "google/umt5-small": _gated(307_000_000, 256384, _SMALL, "umt5"),
    "google/byt5-small": _gated(300_000_000, 384, (1472, 3584, 12, 6), num_decoder_layers=4),
    "google/byt5-base": _gated(582_000_000, 384, (1536, 3968, 18, 12), num_decoder_layers=6),
    "google/byt5-large": _gated(1_230_000_000, 384, (1536, 3840, 36, 16), num_decoder_layers=12),
    "google/byt5-xl": _gated(3_740_000_000, 384, (2560, 6720, 36, 32), num_decoder_layers=12),
    "google/t5gemma-s-s-prefixlm": Checkpoint(
        "t5gemma", _both(*[_stack(_T5GEMMA, 512, 1024, 8, 8, 8, 64)] * 2), 312_517_632
    ),
    "google/t5gemma-b-b-prefixlm": Checkpoint(
        "t5gemma", _both(*[_stack(_T5GEMMA, 768, 2048, 12, 12, 12, 64)] * 2), 591_490_560
    ),
    # Two models of Gemma 2, with 2,614,341,888 and 9,241,705,984 parameters, and the decoder's cross-attention
    "google/t5gemma-2b-2b-prefixlm": Checkpoint("t5gemma", _both(_GEMMA2_2B, _GEMMA2_2B), 5_596_853_760),
    "google/t5gemma-9b-2b-prefixlm": Checkpoint("t5gemma", _both(_GEMMA2_9B, _GEMMA2_2B), 12_292_375_296),
    "google/t5gemma-9b-9b-prefixlm": Checkpoint("t5gemma", _both(_GEMMA2_9B, _GEMMA2_9B), 20_333_401_088),
    "google/t5gemma-2-270m-270m": Checkpoint("t5gemma2", _with_vision(_GEMMA3_270M), 370_000_000 + _VISION),
    "google/t5gemma-2-1b-1b": Checkpoint("t5gemma2", _with_vision(_GEMMA3_1B), 1_700_000_000 + _VISION),
    "google/t5gemma-2-4b-4b": Checkpoint("t5gemma2", _with_vision(_GEMMA3_4B), 7_000_000_000 + _VISION),
    "Qwen/Qwen3-0.6B": Checkpoint("qwen3", _stack(_QWEN3, 1024, 3072, 28, 16, 8, 128), 596_049_920),
    "Qwen/Qwen3-1.7B": Checkpoint("qwen3", _stack(_QWEN3, 2048, 6144, 28, 16, 8, 128), 1_720_574_976),
    "Qwen/Qwen3-4B": Checkpoint("qwen3", _stack(_QWEN3, 2560, 9728, 36, 32, 8, 128), 4_022_468_096),
    "HuggingFaceTB/SmolLM2-135M": Checkpoint("llama", _stack(_SMOLLM2, 576, 1536, 30, 9, 3, 64), 134_515_008),
    "HuggingFaceTB/SmolLM2-360M": Checkpoint("llama", _stack(_SMOLLM2, 960, 2560, 32, 15, 5, 64), 361_821_120),
    "HuggingFaceTB/SmolLM2-1.7B": Checkpoint("llama", _stack(_SMOLLM2, 2048, 8192, 24, 32, 32, 64), 1_711_376_384),
    "HuggingFaceTB/SmolLM3-3B": Checkpoint("smollm3", _stack(_LLAMA3, 2048, 11008, 36, 16, 4, 128), 3_075_098_624),
    "meta-llama/Llama-3.2-1B": Checkpoint("llama", _stack(_LLAMA3, 2048, 8192, 16, 32, 8, 64), 1_235_814_400),
    "meta-llama/Llama-3.2-3B": Checkpoint("llama", _stack(_LLAMA3, 3072, 8192, 28, 24, 8, 128), 3_212_749_824),
    "google/gemma-3-270m": Checkpoint("gemma3_text", _GEMMA3_270M, 268_098_176),
    "google/gemma-3-1b-pt": Checkpoint("gemma3_text", _GEMMA3_1B, 999_885_952),
}
