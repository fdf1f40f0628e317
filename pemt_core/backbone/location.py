"""Find a checkpoint or tokenizer that settings name: a folder, or a repository of which the hub is asked once."""

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pemt_core.errors import ArtifactError, cut, shown

logger = logging.getLogger(__name__)

TIMEOUT = 10.0  # seconds for the hub's answer

_ON_HUB = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")  # name, or owner/name


@dataclass(frozen=True)
class Location:
    """A folder, or a commit of a repository on the hub."""

    name: str
    commit: str  # empty for a folder, and for the hub's cache
    local: bool  # no file is fetched

    @property
    def options(self) -> dict[str, Any]:
        """Arguments of transformers' from_pretrained besides the name."""
        return {"revision": self.commit or None, "local_files_only": self.local}


def locate(name: str, revision: str, *, cached: bool = False) -> Location:
    """Find what `name` stands for. Raises ArtifactError if it is neither a folder nor found on the hub.

    A name that can only be a path is never asked for. If `cached`, an unreachable hub is replaced by its local cache.
    """
    if not name.strip():
        raise ArtifactError("the name is empty: expected a folder or a repository on the hub")
    if Path(name).is_dir():
        return Location(name, "", local=True)
    if os.path.lexists(name) or not _ON_HUB.fullmatch(name):
        raise ArtifactError(f"{cut(name)}: {_missing(Path(name))}")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

    try:
        commit = str(HfApi().model_info(name, revision=revision or None, timeout=TIMEOUT).sha)
    except (HTTPError, HFValidationError, OSError) as error:
        if cached and not isinstance(error, HfHubHTTPError | HFValidationError):
            return Location(name, revision, local=True)
        raise ArtifactError(
            f"'{name}': neither a folder nor found on the hub ({type(error).__name__}: {one_line(error)}); "
            "without access to the hub, name a folder or set backbone.kind to scratch"
        ) from error
    logger.info("%s: revision %s is commit %s", name, revision or "newest", commit)
    return Location(name, commit, local=False)


def one_line(error: BaseException) -> str:
    """The text of a library's error, shortened and on one line."""
    return cut(" ".join(str(error).split()), 300)


def _missing(path: Path) -> str:
    """Say why a path is no folder."""
    if path.is_symlink() and not path.exists():
        return f"a link to {path.readlink()}, which does not exist"
    if path.exists():
        return "is a file, expected a folder"
    above = next(each for each in path.absolute().parents if each.is_dir())
    return f"no such folder; the nearest one that exists is {shown(str(above))}"
