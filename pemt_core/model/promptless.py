"""Build a model that changes a backbone's modules or parameters and reads the text alone."""

from collections.abc import Iterable
from typing import Any

from pemt_core.model.attachment import Attachment, Change
from pemt_core.model.prompt import NoPrompt
from pemt_core.model.prompted import PromptedModel
from pemt_core.model.prompting import prompted
from pemt_core.model.signal import ForwardSignal


def build_promptless_model(backbone: Any, changes: Iterable[Change]) -> PromptedModel:
    """Attach all `changes` to `backbone`, whose other parameters are frozen; P = 0."""
    with Attachment.whole(backbone) as attachment:
        trained = attachment.make(changes)
        return prompted(backbone, NoPrompt(), attachment, ForwardSignal(), trained)
