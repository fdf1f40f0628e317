"""The backbone's tokenizer, if it can be read without a network and without training."""

from pathlib import Path
from typing import Any

from pemt_core.artifacts.files import read_json
from pemt_core.backbone.tokenizer import TRAINED, load_tokenizer
from pemt_core.errors import PemtError
from pemt_core.settings import TokenizerSettings


def tokenizer_at_hand(settings: TokenizerSettings, folder: Path) -> Any | None:
    """Return the tokenizer that `prepare` would use in the project `folder`, None if it is not there yet."""
    if settings.kind == "scratch" and settings.tokenizer == TRAINED:
        return None  # it will be trained on the new task's labels too
    name = settings.name if settings.kind == "hub" else settings.tokenizer
    for place in (folder / name, _prepared(settings, folder), _cached(name, settings.revision)):
        if place is not None and place.is_dir():
            try:
                return load_tokenizer(str(place))
            except PemtError:
                continue  # `prepare` reports what is wrong with it
    return None


def _prepared(settings: TokenizerSettings, folder: Path) -> Path | None:
    """The folder of the tokenizer that `prepare` last saved, if it had the same settings."""
    try:
        planned = read_json(folder / "plan" / "prepare.json")["tokenizer"]
    except (PemtError, KeyError, TypeError):
        return None
    is_same = (
        planned == TokenizerSettings(**settings.model_dump(include=set(TokenizerSettings.model_fields))).model_dump()
    )
    return folder / "data" / "tokenizer" if is_same else None


def _cached(name: str, revision: str) -> Path | None:
    """The folder of a hub's repository in the cache of its client."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision or None, local_files_only=True))
    except (OSError, ValueError):
        return None
