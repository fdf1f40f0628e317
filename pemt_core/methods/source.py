"""A source adapter as it is: what stage 2 must be better than."""

from collections.abc import Sequence
from typing import Literal

from pemt_core.methods.sequential import Sequential
from pemt_core.methods.untrained import Untrained


class Source(Untrained, Sequential):
    """The adapter and the prompt of one source, used on the target without any training.

    With `source: validation`, the best on validation among `sources` is kept.
    """

    kind: Literal["source"]  # type: ignore[assignment]

    @property
    def title(self) -> str:
        return "Source as it is"

    def about(self, known: Sequence[str]) -> str:
        return f"the adapter and the prompt of {self.about_source()}, without training"
