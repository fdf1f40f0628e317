"""PEMT with one expert that was trained on all sources together: what keeping sources apart must be better than."""

from collections.abc import Sequence
from typing import Literal

from pemt_core.errors import SettingsError
from pemt_core.methods.pemt import Pemt
from pemt_core.schema.names import JOINT


class Joint(Pemt):
    """Stage 2 with the source `joint` at full weight, so there is no gate; all else as in PEMT."""

    kind: Literal["joint"]  # type: ignore[assignment]
    sources: None = None
    gate: Literal["uniform"] = "uniform"

    def draws_on(self, known: Sequence[str]) -> list[str]:
        if JOINT not in known:
            raise SettingsError(
                f"there is no source '{JOINT}', which stage 1 trains on all sources together; add it to `tasks.sources`"
            )
        return [JOINT]

    @property
    def title(self) -> str:
        return "Joint source"

    def about(self, known: Sequence[str]) -> str:
        parts = [*self.about_parts(), *self.about_control()]
        return " ".join(["PEMT with one expert trained on all sources together", *(f"and {part}" for part in parts)])
