"""What every group of params.yaml is."""

from pydantic import BaseModel, ConfigDict


class Group(BaseModel):
    """A group of settings: unknown, missing and ill-typed keys are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
