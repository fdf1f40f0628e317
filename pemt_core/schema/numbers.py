"""Types of numbers and names in settings."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

Values = TypeVar("Values", bound=Sequence[Any])

LARGEST = 2**31 - 1  # of counts and lengths: libraries take them as 32 bits


def _few_shot(value: Any, parse: ValidatorFunctionWrapHandler) -> Any:
    """Say in one problem what would be one for each alternative."""
    try:
        return parse(value)
    except ValidationError as error:
        raise ValueError("expected 'full', or a number of rows per class of at least 1") from error


def _distinct(values: Values) -> Values:
    repeated = [value for value, count in Counter(values).items() if count > 1]
    if repeated:
        raise ValueError(f"lists {repeated} more than once")
    return values


def matching(pattern: str, expected: str) -> AfterValidator:
    """The type of a text that matches a pattern as a whole; `expected` describes it to who wrote another."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if compiled.fullmatch(text):
            return text
        raise ValueError(f"expected {expected}")

    return AfterValidator(check)


Distinct = AfterValidator(_distinct)  # of a list
Natural = Annotated[int, Field(ge=0, le=LARGEST)]
Count = Annotated[int, Field(ge=1, le=LARGEST)]
Rank = Annotated[int, Field(ge=1, le=2**16)]  # the widest feed-forward of a checkpoint, T5-11B
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Bound = Count | None
Amount = Annotated[float, Field(ge=0, le=1e38)]  # float32 ends there
Rate = Annotated[float, Field(gt=0, le=1e38)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Precision = Literal["float32", "bfloat16"]
FewShot = Annotated[Literal["full"] | Count, WrapValidator(_few_shot)]  # training rows per class; full: all of them
Name = Annotated[  # of a source or method, and its folders and runs
    str, Field(max_length=100), matching("[a-z0-9_]+", "lower-case letters, digits and _")
]
Short = Annotated[str, Field(max_length=200)]  # a name that errors repeat
