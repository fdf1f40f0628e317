"""Give a fetched model the few values that its configuration may leave open."""

from typing import Any

from pemt_core.backbone.architecture import config_parts
from pemt_core.backbone.families import family_of
from pemt_core.errors import SettingsError

AUTO = "auto"  # the family's default layout


def adopt(model: Any, tokenizer: Any, layout: str) -> None:
    """Set special tokens, layout and greedy generation, in place; a T5 keeps its configuration as it is.

    Raises SettingsError if the family has no such layout.
    """
    family = family_of(model)
    if layout != AUTO and layout not in family.layouts:
        known = " or ".join([*family.layouts, AUTO])
        raise SettingsError(f"backbone.layout is '{layout}': {family.name} has only {known}")
    if not family.starts_with_bos:
        return
    from transformers import GenerationConfig

    special = {"pad": tokenizer.pad_token_id, "eos": tokenizer.eos_token_id, "bos": _bos(model, tokenizer)}
    ids = {f"{name}_token_id": value for name, value in special.items()}
    for config in (model.config, *config_parts(model.config).values()):
        for name, value in ids.items():
            setattr(config, name, value)
    if not family.has_encoder:
        model.config.prompt_layout = family.layouts[0] if layout == AUTO else layout
    start = {"decoder_start_token_id": ids["bos_token_id"]} if family.has_encoder else {}
    model.generation_config = GenerationConfig(**ids, **start)  # a checkpoint's own may sample


def _bos(model: Any, tokenizer: Any) -> int:
    """The first token of every text; a family whose tokenizer has none was trained without, and takes the EOS."""
    found = (tokenizer.bos_token_id, model.config.bos_token_id, tokenizer.eos_token_id)
    return int(next(token for token in found if token is not None))
