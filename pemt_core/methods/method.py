"""What every kind of method is: strict settings, initial tensors, a model, the sources that it draws on, its names."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from pemt_core.schema.group import Group
from pemt_core.schema.numbers import Count, Rate
from pemt_core.training.settings import SelectBy, TrainingSettings

if TYPE_CHECKING:  # reading settings must not wait for torch
    import torch
    from torch import Tensor

    from pemt_core.model.assemble import Expert, FoldedLayers
    from pemt_core.model.prompted import PromptedT5


class Method(Group):
    """A way to adapt a target, with every setting that its numbers depend on.

    A subclass adds `kind: Literal["<its name>"]` and its settings. A setting that the group `transfer` has too takes
    its value from there unless the method's entry gives another; any other setting needs a default.
    """

    kind: str
    rare_class: Literal["error", "all"]
    source_length: Count
    select_by: SelectBy
    learning_rates: Annotated[list[Rate], Field(min_length=1)]
    training: TrainingSettings

    @abstractmethod
    def draws_on(self, known: Sequence[str]) -> list[str]:
        """Those of the `known` sources whose experts it uses, in their order.

        SettingsError, naming the nearest, where its settings name a source that is not known.
        """

    @abstractmethod
    def initial_tensors(
        self, backbone: Any, description_ids: "Tensor", experts: "Sequence[Expert]", generator: "torch.Generator"
    ) -> "dict[str, Tensor]":
        """Everything that it trains, at step 0.

        Args:
            description_ids: tokens of the target's description, shape (P,).
            experts: those of the sources that it draws on.
        """

    @abstractmethod
    def build(
        self,
        backbone: Any,
        tensors: "Mapping[str, Tensor]",
        experts: "Sequence[Expert]",
        folded: "FoldedLayers | None" = None,
    ) -> "PromptedT5":
        """The model, attached to `backbone`, that `tensors` (initial or trained) are the trained part of.

        `folded` as in `pemt_core.model.assemble.build_target_model`.
        """

    @property
    def code(self) -> tuple[str, ...]:
        """The modules beside those of the training steps whose code its numbers depend on."""
        return (type(self).__module__,)

    @property
    @abstractmethod
    def title(self) -> str:
        """What reports call a method that is named as its kind."""

    @abstractmethod
    def about(self, known: Sequence[str]) -> str:
        """A clause that explains it to the reader of a report; empty for what the title says already."""
