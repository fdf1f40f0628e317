"""Types of numbers and names in settings."""

from typing import Annotated, Literal

from pydantic import Field

Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Bound = Count | None
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Precision = Literal["float32", "bfloat16"]
FewShot = Literal["full"] | Count  # training rows per class; full: all of them
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]  # of a source or method; also names folders and runs
