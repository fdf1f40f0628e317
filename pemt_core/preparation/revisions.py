"""Resolve the commit of a hub repository, pinned in revisions.json or the newest, before anything is loaded."""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError

from pemt_core.artifacts.files import read_json, write_json
from pemt_core.errors import DataError
from pemt_core.tasks.record import PINS_PATH, HubDataset, Task

logger = logging.getLogger(__name__)


def resolve_revision(dataset: HubDataset) -> str:
    """Return the commit to read: the pinned one, confirmed with the hub, or the newest.

    All splits are loaded from this commit, so a push in between cannot mix two states of the dataset.

    Raises:
        DataError: the repository or commit does not exist or is gated, or the hub is unreachable.
    """
    pin = dataset.revision
    commit = _commit(dataset.repo, pin)
    logger.info("%s: reading commit %s (%s)", dataset, commit, "pinned" if pin else "the newest")
    return commit


def resolve_revisions(tasks: Iterable[Task]) -> dict[str, str]:
    """Return the newest commit of every repository that `tasks` read, pinned or not: {repository: commit}, sorted."""
    repositories = sorted({task.dataset.repo for task in tasks if isinstance(task.dataset, HubDataset)})
    return {repository: _commit(repository, "") for repository in repositories}


def write_pins(revisions: Mapping[str, str], path: Path = PINS_PATH) -> None:
    """Pin `revisions` atomically; the pins of other repositories stay."""
    pinned = read_json(path) if path.is_file() else {}
    write_json(path, dict(sorted({**pinned, **revisions}.items())))


def _commit(repository: str, revision: str) -> str:
    try:
        commit = HfApi().dataset_info(repository, revision=revision or None).sha
    except GatedRepoError as error:
        raise DataError(f"the hub's dataset '{repository}' is gated; accept its terms there and log in") from error
    except RevisionNotFoundError as error:
        raise DataError(f"the hub's dataset '{repository}' has no commit '{revision}'; pin another") from error
    except RepositoryNotFoundError as error:
        raise DataError(f"the hub has no dataset '{repository}', or it is private; check the record's name") from error
    except (HTTPError, OSError) as error:
        raise DataError(
            f"the hub cannot be reached for '{repository}' ({type(error).__name__}: {error}); "
            "check the network, or set prepare.source (in the recipe, if it sets it) to a folder that mirrors the hub"
        ) from error
    if commit is None:
        raise DataError(f"the hub names no commit of '{repository}'; pin one")
    return str(commit)
