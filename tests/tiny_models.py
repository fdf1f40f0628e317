"""A tiny random model of every family."""

from typing import Any

import torch

_SIZES = {
    "vocab_size": 120,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "eos_token_id": 1,
    "bos_token_id": 2,
}
_LOCAL = {**_SIZES, "sliding_window": 16}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
_T5 = {"vocab_size": 120, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 4,
       "decoder_start_token_id": 0}  # fmt: skip
_SPECIAL = {name: _SIZES[name] for name in ("vocab_size", "pad_token_id", "eos_token_id", "bos_token_id")}

ENCODER_DECODERS = ("t5", "t5_1_1", "mt5", "umt5", "t5gemma", "t5gemma2")
DECODERS = ("llama", "qwen3", "smollm3", "gemma3")
MODELS = ENCODER_DECODERS + DECODERS


def tiny_model(kind: str, *, layout: str = "behind", seed: int = 0, spread: float = 0.1, **changes: Any) -> Any:
    """A model of about 50,000 parameters, in evaluation; norms and head are drawn too, so that none is neutral.

    `spread` is the standard deviation that is added to the initial weights.
    """
    import transformers as t

    special = {name: changes.get(name, value) for name, value in _SPECIAL.items()}
    gated = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
    torch.manual_seed(seed)
    if kind == "t5gemma":
        parts = {"encoder": {**_LOCAL, **changes}, "decoder": {**_LOCAL, **changes}}
        model: Any = t.T5GemmaForConditionalGeneration(t.T5GemmaConfig(**parts, **special))
    elif kind == "t5gemma2":
        encoder = {"text_config": {**_LOCAL, **changes}, "vision_config": _VISION}
        config = t.T5Gemma2Config(encoder=encoder, decoder={**_LOCAL, **changes}, **special)
        model = t.T5Gemma2ForConditionalGeneration(config)
    else:
        make, config_class, settings = {
            "t5": (t.T5ForConditionalGeneration, t.T5Config, _T5),
            "t5_1_1": (t.T5ForConditionalGeneration, t.T5Config, {**_T5, **gated}),
            "mt5": (t.MT5ForConditionalGeneration, t.MT5Config, {**_T5, **gated}),
            "umt5": (t.UMT5ForConditionalGeneration, t.UMT5Config, {**_T5, **gated}),
            "llama": (t.LlamaForCausalLM, t.LlamaConfig, _SIZES),
            "qwen3": (t.Qwen3ForCausalLM, t.Qwen3Config, _SIZES),
            "smollm3": (t.SmolLM3ForCausalLM, t.SmolLM3Config, {**_SIZES, "no_rope_layer_interval": 2}),
            "gemma3": (t.Gemma3ForCausalLM, t.Gemma3TextConfig, _LOCAL),
        }[kind]
        model = make(config_class(**{**settings, **changes}))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("norm.weight", "_norm.weight")):
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
            else:
                parameter += spread * torch.randn(parameter.shape, generator=generator)
    if kind in DECODERS:
        model.config.prompt_layout = layout
    return model.eval()
