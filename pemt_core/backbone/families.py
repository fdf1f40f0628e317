"""The families that are supported. To add one, add its record to FAMILIES and a model to tests/tiny_models.py."""

from typing import Any

from pemt_core.backbone.family import Family, Norms, Role, Stack, Sublayer
from pemt_core.errors import ArtifactError

TINY = "tiny random models in the tests"

_T5_ATTENTION: dict[str, Role] = {"q": "q", "k": "k", "v": "v", "o": "o"}
_T5_FEED_FORWARD: dict[str, Role] = {"wi": "wi", "wi_0": "wi", "wi_1": "wi", "wo": "wo"}

T5 = Family(
    name="T5",
    models={
        "t5": "T5ForConditionalGeneration",
        "mt5": "MT5ForConditionalGeneration",
        "umt5": "UMT5ForConditionalGeneration",
    },
    stacks=(
        Stack(
            "encoder",
            "encoder.block",
            (
                Sublayer("layer.0.SelfAttention", _T5_ATTENTION),
                Sublayer("layer.1.DenseReluDense", _T5_FEED_FORWARD),
            ),
        ),
        Stack(
            "decoder",
            "decoder.block",
            (
                Sublayer("layer.0.SelfAttention", _T5_ATTENTION),
                Sublayer("layer.1.EncDecAttention", _T5_ATTENTION, is_cross_attention=True),
                Sublayer("layer.2.DenseReluDense", _T5_FEED_FORWARD),
            ),
        ),
    ),
    norms=Norms(("layer_norm",), final="final_layer_norm", epsilon="variance_epsilon"),
    layouts=("front",),
    starts_with_bos=False,
    # The largest have 36 layers, heads of 128, a feed-forward of 65,536, and a vocabulary of 384,000
    sizes={
        "vocab_size": 2**22,
        "d_model": 2**16,
        "d_kv": 2**12,
        "d_ff": 2**18,
        "num_layers": 100,
        "num_decoder_layers": 100,
        "num_heads": 2**10,
        "relative_attention_num_buckets": 2**12,
        "relative_attention_max_distance": 2**20,
    },
    fingerprint=(
        "model_type",
        "vocab_size",
        "d_model",
        "d_kv",
        "d_ff",
        "num_layers",
        "num_decoder_layers",
        "num_heads",
        "feed_forward_proj",
        "relative_attention_num_buckets",
        "relative_attention_max_distance",
        "layer_norm_epsilon",
        "tie_word_embeddings",
        "pad_token_id",
        "eos_token_id",
        "decoder_start_token_id",
    ),
    has_relative_decoder=True,
    broadcasts_masks=True,
    scaled_heads=("umt5",),
    run_on=(TINY, "the generated world (docs/demo.md)"),
)

_ATTENTION: dict[str, Role] = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "o_proj": "o"}
_FEED_FORWARD: dict[str, Role] = {"gate_proj": "wi", "up_proj": "wi", "down_proj": "wo"}
_SELF_ATTENTION, _CROSS_ATTENTION = Sublayer("self_attn", _ATTENTION), Sublayer("cross_attn", _ATTENTION, True)
_MLP = Sublayer("mlp", _FEED_FORWARD)

_SIZES = {
    "vocab_size": 2**22,
    "hidden_size": 2**16,
    "intermediate_size": 2**18,
    "num_hidden_layers": 200,
    "num_attention_heads": 2**10,
    "num_key_value_heads": 2**10,
    "head_dim": 2**12,
}
_FINGERPRINT = (
    "model_type",
    *_SIZES,
    "hidden_act",
    "hidden_activation",
    "rms_norm_eps",
    "rope_parameters",
    "attention_bias",
    "mlp_bias",
    "layer_types",
    "sliding_window",
    "no_rope_layers",
    "use_bidirectional_attention",
    "query_pre_attn_scalar",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "tie_word_embeddings",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "prompt_layout",
)
_GEMMA_NORMS = ("_layernorm", ".norm")

# Every other layer is local: the gate of the first sees as many tokens of a text as its window has, all others see all
T5GEMMA = Family(
    name="T5Gemma",
    models={"t5gemma": "T5GemmaForConditionalGeneration"},
    stacks=(
        Stack("encoder", "model.encoder.layers", (_SELF_ATTENTION, _MLP)),
        Stack("decoder", "model.decoder.layers", (_SELF_ATTENTION, _CROSS_ATTENTION, _MLP)),
    ),
    norms=Norms(_GEMMA_NORMS, final="norm", epsilon="eps", unit_offset=True),
    layouts=("front",),
    starts_with_bos=True,
    sizes=_SIZES,
    fingerprint=_FINGERPRINT,
    config_parts=("encoder", "decoder"),
    run_on=(TINY,),
)

# Five of six layers are local, and the prompt is in front: before the first global layer, the gate of layer n (from 1)
# sees the first n * window / 2 tokens of a text
T5GEMMA2 = Family(
    name="T5Gemma 2",
    models={"t5gemma2": "T5Gemma2ForConditionalGeneration"},
    stacks=(
        Stack("encoder", "model.encoder.text_model.layers", (_SELF_ATTENTION, _MLP)),
        Stack("decoder", "model.decoder.layers", (_SELF_ATTENTION, _MLP)),  # its self-attention reads the encoder too
    ),
    norms=Norms(
        _GEMMA_NORMS,
        final="norm",
        epsilon="eps",
        unit_offset=True,
        within=("model.encoder.text_model.", "model.decoder."),
    ),
    unused=("model.encoder.vision_tower.", "model.encoder.multi_modal_projector."),
    layouts=("front",),
    starts_with_bos=True,
    sizes=_SIZES,
    fingerprint=_FINGERPRINT,
    config_parts=("encoder.text_config", "decoder"),
    run_on=(TINY,),
)

LLAMA = Family(
    name="Llama",
    models={"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM", "smollm3": "SmolLM3ForCausalLM"},
    stacks=(Stack("decoder", "model.layers", (_SELF_ATTENTION, _MLP)),),
    norms=Norms(_GEMMA_NORMS, final="norm", epsilon="variance_epsilon"),
    layouts=("behind", "both", "front"),
    starts_with_bos=True,
    sizes=_SIZES,
    fingerprint=_FINGERPRINT,
    dropout="attention_dropout",
    run_on=(TINY, "the generated world (docs/embedded_world.md)", "SmolLM2-135M on real data (docs/real_language.md)"),
)

# Five of six layers are local. With the prompt behind the text, before the first global layer, the gate of layer n
# (from 1) sees the last n * (window - 1) tokens of a text
GEMMA3 = Family(
    name="Gemma 3",
    models={"gemma3_text": "Gemma3ForCausalLM"},
    stacks=LLAMA.stacks,
    norms=Norms(_GEMMA_NORMS, final="norm", epsilon="eps", unit_offset=True),
    layouts=LLAMA.layouts,
    starts_with_bos=True,
    sizes=_SIZES,
    fingerprint=_FINGERPRINT,
    dropout="attention_dropout",
    run_on=(TINY,),
)

FAMILIES = (T5, T5GEMMA, T5GEMMA2, LLAMA, GEMMA3)
_BY_MODEL_TYPE = {model_type: family for family in FAMILIES for model_type in family.models}


def family_of_type(model_type: str, origin: str) -> Family:
    """The family of a checkpoint's `model_type`. Raises ArtifactError, naming `origin`, if it is not supported."""
    if model_type not in _BY_MODEL_TYPE:
        raise ArtifactError(
            f"{origin}: its configuration says model type '{model_type}', which is not supported; supported are "
            f"{', '.join(_BY_MODEL_TYPE)} (pemt backbones)"
        )
    return _BY_MODEL_TYPE[model_type]


def family_named(name: str) -> Family:
    """The family with the name of a record."""
    return next(family for family in FAMILIES if family.name == name)


def family_of(backbone: Any) -> Family:
    """The family of a model that `load_backbone` returned."""
    return _BY_MODEL_TYPE[backbone.config.model_type]


def architecture_class(model_type: str, origin: str) -> Any:
    """The transformers class of a checkpoint's `model_type`. Raises ArtifactError if it is not supported."""
    import transformers

    return getattr(transformers, family_of_type(model_type, origin).models[model_type])
