"""The base class of the groups of params.yaml."""

from pydantic import BaseModel, ConfigDict


class Group(BaseModel):
    """A group of settings: unknown, missing and ill-typed keys are errors, and so are infinite numbers and NaN."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
