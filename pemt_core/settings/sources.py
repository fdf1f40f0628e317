"""The group `train_source`: adapters, and prompts that are trained alone; and imported sources."""

from typing import Any, Literal

from pydantic import field_validator

from pemt_core.schema.group import Group
from pemt_core.schema.numbers import Count, Rank, Rate, Seed
from pemt_core.schema.validation import merged, validate
from pemt_core.settings.groups import PromptInit
from pemt_core.tasks.entry import Description, Filled
from pemt_core.training.settings import FixedRateTraining, SelectBy

SourceKind = Literal["adapter", "prompt"]


class TrainSourceSettings(Group):
    """What the adapter of a source, with its prompt, is trained with."""

    seed: Seed
    rank: Rank
    alpha: Rate
    init: Literal["zero", "kaiming"]
    prompt_init: PromptInit
    source_length: Count
    select_by: SelectBy
    training: FixedRateTraining

    @property
    def scale(self) -> float:
        """s = alpha / R."""
        return self.alpha / self.rank


class LonePrompt(Group):
    """The shape and the start of a source's prompt that is trained without an adapter."""

    length: Count
    init: Literal["vocab5000", "normal", "text"]  # text: the task's description, repeated


class LonePromptSettings(LonePrompt):
    """What such a prompt is trained with."""

    seed: Seed
    source_length: Count
    select_by: SelectBy
    training: FixedRateTraining


class LonePromptGroup(LonePrompt):
    """The group `train_source.prompt`; the rest comes from the group around it."""

    training: dict[str, Any]  # differences from the adapter's


class TrainSourceGroup(TrainSourceSettings):
    """The group `train_source`."""

    kinds: list[SourceKind]
    prompt: LonePromptGroup

    @field_validator("kinds")
    @classmethod
    def _has_adapter(cls, kinds: list[SourceKind]) -> list[SourceKind]:
        if "adapter" not in kinds or len({*kinds}) < len(kinds):
            raise ValueError("expected [adapter] or [adapter, prompt], since every source has an adapter")
        return kinds

    def of_adapter(self) -> TrainSourceSettings:
        return TrainSourceSettings(**{name: getattr(self, name) for name in TrainSourceSettings.model_fields})

    def of_prompt(self, origin: str) -> LonePromptSettings:
        """The settings of the prompt, complete. Raises SettingsError, naming `origin`, if its training is invalid."""
        training = merged(self.training.model_dump(), self.prompt.training)
        return LonePromptSettings(
            length=self.prompt.length,
            init=self.prompt.init,
            seed=self.seed,
            source_length=self.source_length,
            select_by=self.select_by,
            training=validate(FixedRateTraining, training, f"{origin}.prompt.training"),
        )


class ImportedSource(Group):
    """A LoRA in PEFT's layout that becomes an expert."""

    adapter: Filled  # its folder
    description: Description | None  # of its task, if its folder has no prompt
