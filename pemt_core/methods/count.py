"""How many parameters a method trains on a backbone: exactly, from shapes alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pemt_core.methods.method import Method

if TYPE_CHECKING:
    from pemt_core.model.assemble import Expert


@dataclass(frozen=True)
class TrainedParameters:
    """A target's prompt has as many vectors as its description has tokens, so the count is linear in them."""

    fixed: int
    per_prompt_token: int

    def with_prompt(self, num_tokens: int) -> int:
        """For a description of so many tokens, the closing one included."""
        return self.fixed + self.per_prompt_token * num_tokens


def trained_parameters(method: Method, backbone: Any, sources: Sequence[str], rank: int) -> TrainedParameters:
    """The parameters that `method` trains for one target.

    Args:
        backbone: a T5 on any device, the meta device included.
        sources: all sources that there are; each has an expert of this `rank`.
    """
    experts = [_expert(backbone, source, rank) for source in method.draws_on(sources)]
    one, two = (_count(method, backbone, experts, num_tokens) for num_tokens in (1, 2))
    return TrainedParameters(one - (two - one), two - one)


def _count(method: Method, backbone: Any, experts: "Sequence[Expert]", num_tokens: int) -> int:
    import torch

    ids = torch.zeros(num_tokens, dtype=torch.long)
    tensors = method.initial_tensors(backbone, ids, experts, torch.Generator().manual_seed(0))
    return sum(tensor.numel() for tensor in tensors.values())


def _expert(backbone: Any, source: str, rank: int) -> "Expert":
    """An expert of shapes alone."""
    import torch

    from pemt_core.model.assemble import Expert
    from pemt_core.model.stacks import feed_forwards

    tensors = {"prompt": torch.empty(1, backbone.config.d_model, device="meta")}
    for place in feed_forwards(backbone):
        d_model, d_ff = place.wo.weight.shape
        tensors[f"{place.stack}.{place.layer}.down"] = torch.empty(rank, d_ff, device="meta")
        tensors[f"{place.stack}.{place.layer}.up"] = torch.empty(d_model, rank, device="meta")
    return Expert(source, tensors, 1.0)
