"""What kinds that train nothing have in common."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import field_validator

from pemt_core.methods.method import Method
from pemt_core.schema.numbers import Amount
from pemt_core.training.settings import TrainingSettings

if TYPE_CHECKING:
    from torch import Tensor


class Untrained(Method):
    """A model that stays as it starts: no steps, and no learning rates to choose from, whatever `transfer` has."""

    learning_rates: list[Amount]

    @field_validator("learning_rates", mode="before")
    @classmethod
    def _no_rates(cls, _: Any) -> list[float]:
        return [0.0]

    @field_validator("training")
    @classmethod
    def _no_steps(cls, training: TrainingSettings) -> TrainingSettings:
        return training.model_copy(update={"max_steps": 0})

    def num_trained(self, tensors: "Mapping[str, Tensor]") -> int:
        return 0
