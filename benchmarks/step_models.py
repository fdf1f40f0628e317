"""Models of t5-base's shape with random weights, and what is compared with stage 2, for the benchmarks of a step."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import T5Config, T5ForConditionalGeneration

from pemt_core.model.assemble import (
    Expert,
    build_target_model,
    fold_experts,
    initial_prompt,
    initial_source_tensors,
    initial_target_tensors,
)

Batch = dict[str, Tensor]
BLOCKS = ("encoder", "decoder")


@dataclass(frozen=True)
class Sizes:
    """Sizes of the backbone, the experts and a batch; the defaults are t5-base's with the paper's six sources."""

    d_model: int = 768
    d_ff: int = 3072
    num_heads: int = 12
    num_layers: int = 12
    vocab_size: int = 32128
    experts: int = 6
    rank: int = 64
    prompt: int = 20
    rows: int = 8
    tokens: int = 128  # of text, behind the prompt
    labels: int = 8
    dropout: float = 0.1


SMALL = Sizes(32, 64, 4, 2, 128, experts=3, rank=4, prompt=5, rows=4, tokens=11, labels=3)


def backbone_of(sizes: Sizes, device: str = "cpu") -> Any:
    config = T5Config(
        vocab_size=sizes.vocab_size,
        d_model=sizes.d_model,
        d_ff=sizes.d_ff,
        d_kv=sizes.d_model // sizes.num_heads,
        num_heads=sizes.num_heads,
        num_layers=sizes.num_layers,
        dropout_rate=sizes.dropout,
        decoder_start_token_id=0,
    )
    torch.manual_seed(0)
    return T5ForConditionalGeneration(config).to(device).requires_grad_(False)


def shared(backbone: Any) -> Any:
    """A second backbone with the same weights in memory, so that each variant changes its own modules."""
    return copy.deepcopy(backbone, {id(each): each for each in backbone.parameters()})


def batch_of(sizes: Sizes, device: str = "cpu", seed: int = 0, rows: int | None = None) -> Batch:
    """Rows without padding."""
    generator, rows = torch.Generator().manual_seed(seed), rows or sizes.rows
    ids = torch.randint(2, sizes.vocab_size, (rows, sizes.tokens + sizes.labels), generator=generator).to(device)
    text, labels = ids[:, : sizes.tokens].contiguous(), ids[:, sizes.tokens :].contiguous()
    return {"input_ids": text, "attention_mask": torch.ones_like(text), "labels": labels}


def experts_of(backbone: Any, sizes: Sizes) -> list[Expert]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2, sizes.vocab_size, (sizes.experts, sizes.prompt), generator=generator)
    found = []
    for number, each in enumerate(ids):
        prompt = initial_prompt(backbone, each, "vocab", generator).cpu()
        tensors = initial_source_tensors(backbone, prompt, rank=sizes.rank, init="kaiming", generator=generator)
        found.append(Expert(f"source {number}", {n: t.to(backbone.device) for n, t in tensors.items()}, 1.0))
    return found


def target_tensors(backbone: Any, sizes: Sizes, experts: Sequence[Expert], seed: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, sizes.vocab_size, (sizes.prompt,), generator=generator)
    prompt = initial_prompt(backbone, ids, "vocab", generator).cpu()
    return initial_target_tensors(backbone, prompt, experts, reduction_factor=16, generator=generator)


def stage2(backbone: Any, sizes: Sizes, experts: Sequence[Expert], seed: int = 2) -> nn.Module:
    """The target's model as `transfer` trains it; without experts, the control."""
    tensors = target_tensors(backbone, sizes, experts, seed)
    return build_target_model(
        backbone,
        tensors,
        experts,
        prompt_dropout=0.0,
        sparsity_coefficient=0.1,
        folded=fold_experts(backbone, experts),
    )


def lora(backbone: Any, sizes: Sizes) -> nn.Module:
    """PEFT's LoRA on every `wo`, with the rank that is PEFT's default."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["wo"])
    model: nn.Module = get_peft_model(backbone, config)
    return model


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


# The plain loop over experts, formula by formula


@dataclass
class PlainPass:
    """What the layers share in one forward pass."""

    num_prompt: int
    encoder_state: Tensor | None = None
    sparsity: list[Tensor] = field(default_factory=list)


class PlainOutput(nn.Module):
    """wo, every expert, the gate and the target adapter of one layer, as the method's formulas have them."""

    def __init__(self, wo: nn.Linear, stack: str, key: str, tensors: dict[str, Tensor], experts: list[Expert]) -> None:
        super().__init__()
        self.wo, self.stack = wo, stack
        names = ("gate", "adapter.down.weight", "adapter.down.bias", "adapter.up.weight", "adapter.up.bias")
        self.own = nn.ParameterList([nn.Parameter(tensors[f"{key}.{name}"].to(wo.weight.device)) for name in names])
        self.pairs = [(each.tensors[f"{key}.down"], each.tensors[f"{key}.up"], each.scale) for each in experts]
        self.now: PlainPass | None = None

    @property
    def weight(self) -> Tensor:
        return self.wo.weight

    def forward(self, x: Tensor) -> Tensor:
        now, (gate, down, down_bias, up, up_bias) = self.now, self.own
        read = x if self.stack == "encoder" else now.encoder_state
        g = torch.softmax((read[:, : now.num_prompt].mean(dim=1) @ gate).float(), dim=-1)
        outputs = [scale * F.linear(F.linear(x, low), high) for low, high, scale in self.pairs]
        h = self.wo(x)
        for k, output in enumerate(outputs):
            h = h + g[:, k].reshape(-1, 1, 1) * output
        y = h + F.linear(F.gelu(F.linear(h, down, down_bias), approximate="tanh"), up, up_bias)
        loss = x.new_zeros(())
        for k, output in enumerate(outputs):
            loss = loss + g[:, k].mean() * (1 - F.cosine_similarity(y, output, dim=-1).mean())
        now.sparsity.append(loss)
        return y


class PlainTarget(nn.Module):
    """Stage 2 with a loop over experts; the backbone is changed for good."""

    def __init__(self, backbone: Any, sizes: Sizes, experts: list[Expert]) -> None:
        super().__init__()
        tensors = target_tensors(backbone, sizes, experts)
        self.backbone, self.layers = backbone, []
        self.prompt = nn.Parameter(tensors["prompt"].to(backbone.device))
        self.sources = [expert.tensors["prompt"] for expert in experts]
        for name, module in list(backbone.named_modules()):
            if name.endswith("layer_norm"):
                module.weight = nn.Parameter(tensors[f"{name}.weight"].to(backbone.device))
        for stack in BLOCKS:
            for index, block in enumerate(backbone.get_submodule(f"{stack}.block")):
                feed_forward = block.layer[-1].DenseReluDense
                feed_forward.wo = PlainOutput(feed_forward.wo, stack, f"{stack}.{index}", tensors, experts)
                self.layers.append(feed_forward.wo)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> "PlainResult":
        guided = self.prompt
        for source in self.sources:
            guided = guided + torch.softmax(self.prompt @ source.T, dim=-1) @ source
        text = self.backbone.get_input_embeddings()(input_ids)
        inputs = torch.cat([guided.to(text.dtype).expand(len(text), -1, -1), text], dim=1)
        mask = F.pad(attention_mask, (len(guided), 0), value=1)
        now = PlainPass(len(guided))
        for layer in self.layers:
            layer.now = now
        encoded = self.backbone.get_encoder()(inputs_embeds=inputs, attention_mask=mask)
        now.encoder_state = encoded.last_hidden_state
        output = self.backbone(encoder_outputs=encoded, attention_mask=mask, labels=labels, use_cache=False)
        for layer in self.layers:
            layer.now = None
        return PlainResult(output.loss + 0.1 * sum(now.sparsity) / len(self.layers))


@dataclass
class PlainResult:
    loss: Tensor


def variants_of(sizes: Sizes, device: str = "cpu") -> dict[str, Callable[[], nn.Module]]:
    """Builders of what a step is compared between, on one backbone in memory."""
    backbone = backbone_of(sizes, device)
    experts = experts_of(backbone, sizes)
    return {
        "stage 2": lambda: stage2(shared(backbone), sizes, experts),
        "target adapter alone": lambda: stage2(shared(backbone), sizes, []),
        "LoRA on wo": lambda: lora(shared(backbone), sizes),
        "plain loop": lambda: PlainTarget(shared(backbone), sizes, experts),
    }


def batches_of(variant: str, sizes: Sizes, device: str = "cpu") -> Iterator[Batch]:
    """Random batches; LoRA, which has no prompt, reads as many positions as the others."""
    if variant == "LoRA on wo":
        from dataclasses import replace

        sizes = replace(sizes, tokens=sizes.tokens + sizes.prompt)
    seed = 0
    while True:
        yield batch_of(sizes, device, seed)
        seed += 1
