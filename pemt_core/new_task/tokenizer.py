"""The backbone's tokenizer, if it can be read without a network and without training."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pemt_core.artifacts.files import read_json
from pemt_core.backbone.tokenizer import TRAINED, load_tokenizer, obtain_tokenizer
from pemt_core.errors import PemtError
from pemt_core.settings import TokenizerSettings


def tokenizer_at_hand(settings: TokenizerSettings, folder: Path) -> Any | None:
    """Return the tokenizer that `prepare` would use in the project `folder`, None if it is not there yet."""
    if settings.kind == "scratch" and settings.tokenizer == TRAINED:
        return None  # it will be trained on the new task's labels too
    if settings.kind == "package":
        return _readable(lambda: obtain_tokenizer(settings, folder))
    name = settings.tokenizer if settings.kind == "scratch" else settings.name
    places = (folder / name, _prepared(settings, folder), _cached(name, settings.revision))
    found = (_readable(partial(load_tokenizer, place)) for place in places if place is not None and place.is_dir())
    return next((tokenizer for tokenizer in found if tokenizer is not None), None)


def _readable(read: Callable[[], Any]) -> Any | None:
    """Return what `read` does, or None if it cannot: `prepare` reports what is wrong with a tokenizer."""
    try:
        return read()
    except PemtError:
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
