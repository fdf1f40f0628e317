"""Build a model that changes a backbone's modules or parameters and reads the text alone."""

from collections.abc import Iterable
from typing import Any

from pemt_core.model.attachment import Attachment, Change
from pemt_core.model.prompt import NoPrompt
from pemt_core.model.prompted import PromptedT5
from pemt_core.model.signal import ForwardSignal


def build_promptless_model(backbone: Any, changes: Iterable[Change]) -> PromptedT5:
    """Attach all `changes` to `backbone`, whose other parameters are frozen; P = 0."""
    with Attachment.whole(backbone) as attachment:
        trained = attachment.make(changes)
        return PromptedT5(backbone, NoPrompt(), attachment, ForwardSignal(), trained)
