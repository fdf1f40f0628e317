"""Count the parameters that a method trains on a backbone, exactly and from shapes alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pemt_core.methods.method import Method

if TYPE_CHECKING:
    from pemt_core.model.assemble import Expert


Ranks = Mapping[str, int]  # of the layers where an expert has a pair, by key


@dataclass(frozen=True)
class TrainedParameters:
    """A count that is linear in the tokens of a target's description, because the prompt has a vector for each."""

    fixed: int
    per_prompt_token: int

    def with_prompt(self, num_tokens: int) -> int:
        """The count for a description of `num_tokens` tokens, the closing one included."""
        return self.fixed + self.per_prompt_token * num_tokens


def trained_parameters(
    method: Method,
    backbone: Any,
    sources: Sequence[str],
    rank: int,
    prompt_length: int,
    imported: Mapping[str, Ranks] = MappingProxyType({}),
) -> TrainedParameters:
    """Count the parameters that `method` trains for one target.

    Args:
        backbone: on any device, the meta device included.
        sources: all known sources; each has an expert of this `rank`, and a prompt trained alone of `prompt_length`.
        imported: the ranks of sources whose experts are LoRAs, which may be at other layers than `wo`.
    """
    option = method.options(sources)[0]  # options differ in what they start from
    shapes = [_Shapes(source, rank, prompt_length, imported.get(source)) for source in option.draws_on(sources)]
    one, two = (_count(option, backbone, shapes, num_tokens) for num_tokens in (1, 2))
    return TrainedParameters(one - (two - one), two - one)


@dataclass(frozen=True)
class _Shapes:
    """What the shapes of a source's expert depend on, besides the backbone."""

    source: str
    rank: int
    prompt_length: int  # of the prompt that was trained alone
    imported: Ranks | None  # None: it has a pair of `rank` at every `wo`

    def expert(self, backbone: Any, num_tokens: int) -> "Expert":
        """An expert without data, its prompt of `num_tokens` tokens: some prompts start from a source's."""
        import torch

        from pemt_core.model.assemble import Expert, source_shapes
        from pemt_core.model.stacks import width

        ranks = self.imported
        named = [f"{key}.down" for key in ranks or ()]
        shapes = source_shapes(
            backbone, num_tokens, lambda key: self.rank if ranks is None else ranks.get(key, 1), named
        )
        tensors = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        lone_prompt = torch.empty(self.prompt_length, width(backbone), device="meta")
        return Expert(self.source, tensors, 1.0, lone_prompt)


def _count(method: Method, backbone: Any, shapes: Sequence[_Shapes], num_tokens: int) -> int:
    import torch

    experts = [each.expert(backbone, num_tokens) for each in shapes]
    ids = torch.zeros(num_tokens, dtype=torch.long)
    return method.num_trained(method.initial_tensors(backbone, ids, experts, torch.Generator().manual_seed(0)))
