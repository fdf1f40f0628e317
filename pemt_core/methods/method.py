"""The interface of every kind of method: strict settings, sources, initial tensors, model, names in reports."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from pemt_core.schema.group import Group
from pemt_core.schema.numbers import Count, Rate
from pemt_core.training.settings import Search, SelectBy, TrainingSettings

if TYPE_CHECKING:  # settings load without torch
    import torch
    from torch import Tensor

    from pemt_core.model.assemble import Expert, FoldedLayers
    from pemt_core.model.grouped.member import Member
    from pemt_core.model.prompted import PromptedModel


class Method(Group):
    """A way to adapt a target, with every setting that its numbers depend on.

    A subclass adds `kind: Literal["<its name>"]` and its settings. The settings here, and those of a kind without a
    default, take their values from the group `transfer` unless the method's entry sets them. A kind's default ignores
    `transfer`, so that a published value stays what it is.
    """

    kind: str
    rare_class: Literal["error", "all"]
    source_length: Count
    select_by: SelectBy
    learning_rates: Annotated[list[Rate], Field(min_length=1)]
    search: Search = "full"  # as were all before there was a choice
    training: TrainingSettings

    @abstractmethod
    def draws_on(self, known: Sequence[str]) -> list[str]:
        """The `known` sources whose experts the method uses, in their order.

        Raises SettingsError, naming the nearest, if its settings name an unknown source.
        """

    @property
    def needs_lone_prompts(self) -> bool:
        """Whether it reads the source prompts that were trained without adapters (`Expert.lone_prompt`)."""
        return False

    def options(self, known: Sequence[str]) -> "list[Method]":
        """The methods among which validation chooses, each at every learning rate; one, unless sources are selected."""
        return [self]

    def prompt_text(self, description: str) -> str:
        """The text whose tokens start the prompt; by default the target's description."""
        return description

    def learning_rate_factors(self, names: Sequence[str]) -> Mapping[str, float]:
        """Factors of the learning rate of the trained tensors `names`; 1 for those that are absent."""
        return {}

    @abstractmethod
    def initial_tensors(
        self, backbone: Any, description_ids: "Tensor", experts: "Sequence[Expert]", generator: "torch.Generator"
    ) -> "dict[str, Tensor]":
        """Every tensor that the method trains, at step 0.

        Args:
            description_ids: tokens of `prompt_text`, shape (P,).
            experts: the experts of the sources that it draws on.
        """

    def num_trained(self, tensors: "Mapping[str, Tensor]") -> int:
        """How many numbers of the model's own part, `tensors`, are trained."""
        return sum(tensor.numel() for tensor in tensors.values())

    @abstractmethod
    def build(
        self,
        backbone: Any,
        tensors: "Mapping[str, Tensor]",
        experts: "Sequence[Expert]",
        folded: "FoldedLayers | None" = None,
    ) -> "PromptedModel":
        """Build the model from its trained part, `tensors` (initial or trained), and attach it to `backbone`.

        `folded` is that of `pemt_core.model.assemble.build_target_model`.
        """

    def member(self, tensors: "Mapping[str, Tensor]", experts: "Sequence[Expert]") -> "Member | None":
        """The model that `build` makes of these as one of a group; None if it can only be computed alone."""
        return None

    @property
    def code(self) -> tuple[str, ...]:
        """The modules, besides those of the training steps, whose code its numbers depend on."""
        return (type(self).__module__,)

    @property
    @abstractmethod
    def title(self) -> str:
        """The name in reports of a method that is named after its kind."""

    @abstractmethod
    def about(self, known: Sequence[str]) -> str:
        """A clause that explains the method to the reader of a report; empty if the title says it all."""
