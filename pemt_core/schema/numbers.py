"""Types of numbers and names in settings."""

from typing import Annotated, Literal

from pydantic import Field

LARGEST = 2**31 - 1  # of counts and lengths: libraries take them as 32 bits

Natural = Annotated[int, Field(ge=0, le=LARGEST)]
Count = Annotated[int, Field(ge=1, le=LARGEST)]
Rank = Annotated[int, Field(ge=1, le=2**16)]  # the widest feed-forward of a T5
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Bound = Count | None
Amount = Annotated[float, Field(ge=0, le=1e38)]  # float32 ends there
Rate = Annotated[float, Field(gt=0, le=1e38)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Precision = Literal["float32", "bfloat16"]
FewShot = Literal["full"] | Count  # training rows per class; full: all of them
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$", max_length=100)]  # of a source or method, and its folders and runs
Short = Annotated[str, Field(max_length=200)]  # a name that errors repeat
