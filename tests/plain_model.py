"""A literal implementation of the method, with a loop over experts, as a reference for pemt_core.model.

It shares no code with pemt_core.model. It modifies a copy of the backbone permanently: layer norms are overwritten,
every `wo` is replaced, and encoder and decoder are called separately. It knows T5, T5Gemma and T5Gemma 2;
plain_decoder.py has models without an encoder.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Tensors = Mapping[str, Tensor]

BLOCKS = {"encoder": ("encoder.block", "model.encoder.text_model.layers", "model.encoder.layers"),
          "decoder": ("decoder.block", "model.decoder.layers")}  # fmt: skip


def outputs_of(backbone: Any) -> Iterator[tuple[str, int, Any, str]]:
    """Stack, layer, parent and attribute of the last linear layer of every feed-forward."""
    names = {name for name, _ in backbone.named_modules()}
    for stack, paths in BLOCKS.items():
        (blocks, *_) = (path for path in paths if path in names)
        for layer, block in enumerate(backbone.get_submodule(blocks)):
            feed_forward = block.layer[-1].DenseReluDense if hasattr(block, "layer") else block.mlp
            yield stack, layer, feed_forward, "wo" if hasattr(feed_forward, "wo") else "down_proj"


def begins_with_bos(backbone: Any) -> bool:
    return not hasattr(backbone, "shared")


@dataclass
class PlainExpert:
    """What stage 2 uses of one source."""

    tensors: Tensors
    scale: float


@dataclass
class PlainPass:
    """Values collected during one forward pass."""

    prompt: slice  # its positions in the encoder
    positions: Mapping[str, Tensor]  # by stack: the positions that count in the sparsity loss
    encoder_state: Tensor | None = None
    gates: dict[str, Tensor] = field(default_factory=dict)
    sparsity: list[Tensor] = field(default_factory=list)


class PlainOutput(nn.Module):
    """The second half of one layer's feed-forward block, formula by formula."""

    def __init__(self, wo: nn.Linear, stack: str, layer: int, tensors: Tensors, experts: Sequence[PlainExpert]) -> None:
        super().__init__()
        self.wo, self.stack, self.key = wo, stack, f"{stack}.{layer}"
        self.tensors, self.experts = tensors, experts
        self.now: PlainPass | None = None

    @property
    def weight(self) -> Tensor:
        return self.wo.weight

    def forward(self, x: Tensor) -> Tensor:
        now = self.now
        assert now is not None
        read = x if self.stack == "encoder" else now.encoder_state
        assert read is not None
        scores = read[:, now.prompt].mean(dim=1) @ self.tensors[f"{self.key}.gate"]
        g = torch.softmax(scores, dim=-1)
        outputs = []
        for expert in self.experts:
            down, up = expert.tensors[f"{self.key}.down"], expert.tensors[f"{self.key}.up"]
            outputs.append(expert.scale * (x @ down.T) @ up.T)
        h = x @ self.wo.weight.T
        for k, output in enumerate(outputs):
            h = h + g[:, k].reshape(-1, 1, 1) * output
        y = self.adapted(h)
        now.gates[self.key] = g
        where = now.positions[self.stack]
        loss = torch.zeros(())
        for k, output in enumerate(outputs):
            cosine = F.cosine_similarity(y, output, dim=-1)
            loss = loss + g[:, k].mean() * (1 - cosine[where].mean())
        now.sparsity.append(loss)
        return y

    def adapted(self, h: Tensor) -> Tensor:
        part = {
            name: self.tensors[f"{self.key}.adapter.{name}"]
            for name in ("down.weight", "down.bias", "up.weight", "up.bias")
        }
        inner = h @ part["down.weight"].T + part["down.bias"]
        gelu = 0.5 * inner * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (inner + 0.044715 * inner**3)))
        return h + gelu @ part["up.weight"].T + part["up.bias"]


class PlainTarget:
    """Stage 2 for one target. `tensors` are leaves; a backward pass fills their gradients."""

    def __init__(
        self,
        backbone: Any,
        tensors: Tensors,
        experts: Sequence[PlainExpert],
        *,
        coefficient: float,
        positions: str = "all",
    ) -> None:
        self.tensors = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
        self.experts, self.coefficient, self.positions = experts, coefficient, positions
        self.backbone = copy.deepcopy(backbone).requires_grad_(False)
        self.start = backbone.config.bos_token_id if begins_with_bos(backbone) else 0
        self.layers: list[PlainOutput] = []
        for name, module in list(self.backbone.named_modules()):
            if f"{name}.weight" in self.tensors:
                del module.weight
                module.weight = self.tensors[f"{name}.weight"]
        for stack, layer, parent, attribute in outputs_of(self.backbone):
            output = PlainOutput(getattr(parent, attribute), stack, layer, self.tensors, experts)
            setattr(parent, attribute, output)
            self.layers.append(output)

    def prompt(self) -> Tensor:
        """Q + sum_k softmax(Q S_k^T) S_k."""
        query = self.tensors["prompt"]
        guided = query
        for expert in self.experts:
            source = expert.tensors["prompt"]
            guided = guided + torch.softmax(query @ source.T, dim=-1) @ source
        return guided

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> "PlainResult":
        decoder_ids = torch.full_like(labels, self.start)
        decoder_ids[:, 1:] = labels[:, :-1].clamp_min(0)
        now = self.new_pass(attention_mask, labels)
        logits = self.logits(now, input_ids, attention_mask, decoder_ids)
        lm_loss = F.cross_entropy(logits[labels != -100], labels[labels != -100])
        sparsity = sum(now.sparsity, torch.zeros(())) / len(self.layers)
        return PlainResult(logits, lm_loss, sparsity, lm_loss + self.coefficient * sparsity, now.gates)

    def greedy(self, input_ids: Tensor, attention_mask: Tensor, steps: int) -> Tensor:
        """The start token and `steps` arg max tokens, with a full forward pass for each."""
        ids = torch.full((len(input_ids), 1), self.start)
        for _ in range(steps):
            logits = self.logits(self.new_pass(attention_mask, ids), input_ids, attention_mask, ids)
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
        return ids

    def new_pass(self, attention_mask: Tensor, labels: Tensor) -> PlainPass:
        begin, length = int(begins_with_bos(self.backbone)), len(self.tensors["prompt"])
        mask = F.pad(attention_mask, (begin + length, 0), value=1)
        if self.positions == "all":
            where = {"encoder": torch.ones_like(mask).bool(), "decoder": torch.ones_like(labels).bool()}
        else:
            where = {"encoder": mask.bool(), "decoder": labels != -100}
        return PlainPass(slice(begin, begin + length), where)

    def logits(self, now: PlainPass, input_ids: Tensor, attention_mask: Tensor, decoder_ids: Tensor) -> Tensor:
        for layer in self.layers:
            layer.now = now
        inputs, mask = read(self.backbone, self.prompt(), input_ids, attention_mask)
        encoded = self.backbone.get_encoder()(inputs_embeds=inputs, attention_mask=mask)
        now.encoder_state = encoded.last_hidden_state
        output = self.backbone(
            encoder_outputs=encoded, attention_mask=mask, decoder_input_ids=decoder_ids, use_cache=False
        )
        logits: Tensor = output.logits
        return logits


@dataclass
class PlainResult:
    """The outputs of one pass of `PlainTarget`."""

    logits: Tensor
    lm_loss: Tensor
    sparsity_loss: Tensor
    loss: Tensor
    gates: dict[str, Tensor]


def read(backbone: Any, prompt: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Embeddings and mask of [BOS, if texts begin with it; prompt; text]."""
    embedding = backbone.get_input_embeddings()
    parts = [prompt.expand(len(input_ids), -1, -1), embedding(input_ids)]
    if begins_with_bos(backbone):
        parts.insert(0, embedding(torch.full((len(input_ids), 1), backbone.config.bos_token_id)))
    inputs = torch.cat(parts, dim=1)
    return inputs, F.pad(attention_mask, (inputs.shape[1] - attention_mask.shape[1], 0), value=1)


def plain_source(
    backbone: Any, tensors: Tensors, scale: float, batch: Tensors
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Logits, loss and gradients of stage 1 for the prompt and every wo(x) + s U V x, by hooks on a copy."""
    leaves = {name: tensor.detach().clone().requires_grad_() for name, tensor in tensors.items()}
    model = copy.deepcopy(backbone).requires_grad_(False)
    for stack, layer, parent, attribute in outputs_of(model):
        down, up = leaves[f"{stack}.{layer}.down"], leaves[f"{stack}.{layer}.up"]
        getattr(parent, attribute).register_forward_hook(
            lambda _module, inputs, output, down=down, up=up: output + scale * (inputs[0] @ down.T) @ up.T
        )
    inputs, mask = read(model, leaves["prompt"], batch["input_ids"], batch["attention_mask"])
    output = model(inputs_embeds=inputs, attention_mask=mask, labels=batch["labels"])
    output.loss.backward()
    gradients = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    return output.logits.detach(), output.loss.detach(), gradients
