"""What the data say about a claim: supported, not supported, or undecidable."""

from dataclasses import dataclass
from typing import Literal

Decision = Literal["supported", "not supported", "undecidable"]


@dataclass(frozen=True)
class Verdict:
    """A decision and the reason for it, to be read after "because"."""

    decision: Decision
    reason: str
