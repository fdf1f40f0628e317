"""A small Llama, with initial weights from which it learns to read within minutes on a CPU, as T5's in `t5`."""

import math
from typing import Any

import torch
from torch import Tensor

SIZES = {  # parameters with a vocabulary of 4,096: 1.1M, 2.3M, 8.4M and 60M with T5's vocabulary
    "nano": {"hidden_size": 96, "intermediate_size": 256, "num_hidden_layers": 6, "num_attention_heads": 8},
    "tiny": {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 8, "num_attention_heads": 8},
    "mini": {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 9, "num_attention_heads": 8},
    "small": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 10, "num_attention_heads": 9},
}
OUTPUT_SCALE = 4.0  # of the logits: with tied embeddings of unit variance, the final norm bounds them
DISTANCES = (1, 2, 1, 3)  # tokens to the left that the local heads of a layer prefer
STRENGTHS = (8.0, 8.0, 3.2, 3.2)  # of their preferences, as differences of attention's logits
LOCAL_CONTENT = 0.3  # the share of content in the queries and keys of local heads
SLOWEST = 0.02  # radians per token: rotations below this tell no neighbours apart


def new_llama(size: str, tokenizer: Any, dropout: float) -> Any:
    """A Llama of a named size with random weights. Its BOS is the EOS, as in GPT-2: T5's tokenizers have no BOS."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        attention_dropout=dropout,
        attention_bias=True,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **SIZES[size],
    )
    model = LlamaForCausalLM(config)
    ease_learning(model)
    return model


@torch.no_grad()
def ease_learning(model: Any) -> None:
    """Change the new Llama `model` in place.

    - Embeddings have unit variance and matrices the variance 1 / inputs, as in T5, and not transformers' 0.02 for all.
    - Attention starts by copying from similar tokens, as in T5: the query matrix is the key matrix, and the output
      matrix is the transposed value matrix.
    - The first half of the heads, four at most, start local: the biases of their queries and keys, which are rotated by
      position as all queries and keys are, prefer a token that is a few positions to the left.
    - The final norm starts where logits have the deviation `OUTPUT_SCALE`.
    """
    config = model.config
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            inputs = 1 if name == "model.embed_tokens.weight" else weight.shape[1]
            weight.normal_(0, inputs**-0.5)
    for layer in model.model.layers:
        attention = layer.self_attn
        attention.q_proj.weight.copy_(attention.k_proj.weight)
        attention.o_proj.weight.copy_(attention.v_proj.weight.T)
        _make_local(attention, model.model.rotary_emb.inv_freq)
    model.model.norm.weight.fill_(OUTPUT_SCALE / math.sqrt(config.hidden_size))


def _make_local(attention: Any, radians: Tensor) -> None:
    """Set the biases of local heads. A position turns each pair of dimensions by its `radians`."""
    width, turning = attention.head_dim, radians > SLOWEST
    query, key = (getattr(attention, name) for name in ("q_proj", "k_proj"))
    for head, (distance, strength) in enumerate(zip(DISTANCES, STRENGTHS, strict=True)):
        if head >= attention.config.num_attention_heads // 2:
            break
        rows, angle = slice(head * width, (head + 1) * width), radians * distance
        size = (strength * width**0.5 / turning.sum()).sqrt() * turning
        key.bias[rows] = torch.cat([size, torch.zeros_like(size)])
        query.bias[rows] = torch.cat([size * angle.cos(), -size * angle.sin()])
        query.weight[rows] *= LOCAL_CONTENT
        key.weight[rows] *= LOCAL_CONTENT
