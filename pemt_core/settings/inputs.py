"""The user's folders and files that settings name, looked up before the first step runs."""

from pathlib import Path

from pemt_core.errors import DataError, SettingsError, nearest
from pemt_core.settings.groups import EMBEDDED, HUB
from pemt_core.settings.settings import Settings


def check_inputs(settings: Settings, folder: Path) -> None:
    """Raise SettingsError, naming the key, if a folder or file is not there; those of own tasks start at `folder`."""
    from pemt_core.tasks.files import check_file  # which loads readers

    for key, path in settings.folders.items():
        if not path.is_dir():
            words = (HUB, EMBEDDED) if key == "prepare.source" else ()
            raise SettingsError(f"{key} is '{path}': {_problem(path)}; {_remedy(path, words)}")
    for name, entry in settings.listed_own_tasks.items():
        for split, file in entry.files.by_split.items():
            try:
                check_file(folder / file)
            except DataError as error:
                raise SettingsError(f"own_tasks.{name}.files.{split}: {error}") from error


def _problem(path: Path) -> str:
    if path.is_symlink():
        return f"is a link to {path.readlink()}, which is no folder"
    return "is a file" if path.exists() else "no such folder"


def _remedy(path: Path, words: tuple[str, ...]) -> str:
    """Name the nearest of `words` and of the folders beside `path`, or what is expected."""
    if path.parts[:1] and path.parts[0].startswith("~"):
        return f"write out what {path.parts[0]} stands for"
    beside = [each.name for each in path.parent.iterdir() if each.is_dir()] if path.parent.is_dir() else []
    hint = nearest(path.name, [*words, *beside])
    others = f"{', '.join(words)}, or " if words else ""
    return hint if hint.startswith("did you mean") else f"expected {others}an existing folder"
