"""Which models can be computed together."""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from pemt_core.model.assemble import Expert
from pemt_core.model.mixture import SparsityPositions


@dataclass(frozen=True)
class Member:
    """One model of stage 2 with a gate that reads its layer's input, is static or uniform, or without sources."""

    tensors: Mapping[str, Tensor]  # all that it trains, by names in artifacts
    experts: Sequence[Expert]  # that it mixes, the same objects in models that share them; none: without sources
    guidance: float  # factor of the sources' guide in its prompt; 0: a plain prompt
    sparsity_coefficient: float
    sparsity_positions: SparsityPositions
    prompt_dropout: float
    normalised: bool = False  # whether its gate scales what it reads to unit length

    @property
    def mixture(self) -> Hashable:
        """What two models that mix sources must have in common to be computed together."""
        return tuple(map(id, self.experts)), self.sparsity_positions, self.prompt_dropout if self.guidance else 0.0

    @property
    def adapter(self) -> Hashable:
        """What any two models must have in common: the shapes of their target adapters, where they have one."""
        return tuple((name, tensor.shape) for name, tensor in self.tensors.items() if ".adapter." in name)


def partition(members: Sequence[Member]) -> list[list[int]]:
    """The places of members that can be computed together, in as few groups as that allows."""
    groups: list[list[int]] = []
    # those that mix sources come first, so that each of the others finds its group among theirs
    for place in sorted(range(len(members)), key=lambda each: (not members[each].experts, each)):
        fitting = [group for group in groups if all(_fit(members[place], members[other]) for other in group)]
        if fitting:
            fitting[0].append(place)
        else:
            groups.append([place])
    return [sorted(group) for group in groups]


def _fit(one: Member, other: Member) -> bool:
    differ = one.adapter and other.adapter and one.adapter != other.adapter
    return not differ and (not one.experts or not other.experts or one.mixture == other.mixture)
