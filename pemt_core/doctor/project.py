"""The project's folder: settings, git, DVC and its remote."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pemt_core.doctor.finding import Finding, SilenceError, Status, Surroundings, ask
from pemt_core.errors import SettingsError
from pemt_core.tasks import get_task, known_tasks
from pemt_core.tracking.address import without_password

DVC = (sys.executable, "-m", "dvc")
NEW_REMOTE = "dvc remote add -d storage FOLDER"
NOTHING_PUSHED = re.compile(r"does not exist: \S+$")  # DVC's words for a place in a store that answers


def settings(place: Surroundings) -> Iterator[Finding]:
    """params.yaml, and that the tasks that it lists are tasks."""
    if place.settings is None:
        there = place.params.is_file()
        mend = "correct it; its comments say what it takes" if there else "call it in the project's folder, or --params"
        yield Finding("settings", Status.FAILURE, place.problem, mend)
        return
    tasks = place.settings.tasks
    try:
        known = known_tasks(place.settings.own_tasks, place.folder)
        for task in (*tasks.sources, *tasks.targets):
            get_task(task, known)
    except SettingsError as error:
        yield Finding("settings", Status.FAILURE, f"{place.params}: {error}", "correct tasks; `pemt tasks` lists them")
        return
    found = f"recipe {place.settings.recipe}, {len(tasks.sources)} sources, {len(tasks.targets)} targets"
    yield Finding("settings", Status.OK, f"{place.params}: {found}")


def git(place: Surroundings) -> Iterator[Finding]:
    """The repository that DVC works in, and that results name as their origin."""
    try:
        head = ask("git", "rev-parse", "--short", "HEAD", folder=place.folder)
        changed = ask("git", "status", "--porcelain", folder=place.folder)
    except SilenceError as error:
        yield Finding("git", Status.FAILURE, str(error), "install git: DVC needs it")
        return
    if changed.returncode:
        said = (changed.stderr.strip().splitlines() or ["git does not say why"])[0]
        yield Finding("git", Status.FAILURE, f"{place.folder}: {said}", "clone the project with git: DVC needs it")
        return
    if head.returncode:
        yield Finding("git", Status.WARNING, "no commit yet: results will not say what code made them", "git commit")
        return
    files = len(changed.stdout.splitlines())
    state = f", {files} files differ from it" if files else ", nothing differs from it"
    yield Finding("git", Status.OK, f"commit {head.stdout.strip()}{state}")


def dvc(place: Surroundings) -> Iterator[Finding]:
    """DVC in this folder, and whether its default remote is within reach."""
    if not (place.folder / ".dvc").is_dir():
        yield Finding("DVC", Status.FAILURE, f"{place.folder} is no DVC project", "dvc init, or clone the project")
        return
    try:
        listed = ask(*DVC, "config", "--list", folder=place.folder)  # `dvc remote list` breaks long lines
        if listed.returncode:
            yield Finding("DVC", Status.FAILURE, _error(listed.stderr), "correct .dvc/config and .dvc/config.local")
            return
        yield Finding("DVC", Status.OK, "the project is set up")
        values = dict(line.split("=", 1) for line in listed.stdout.splitlines() if "=" in line)
        name = values.get("core.remote", "")
        if url := values.get(f"remote.{name}.url"):
            yield _remote(place, name, url)
        elif name:
            found = f"core.remote is {name}, which there is not"
            yield Finding("DVC remote", Status.WARNING, found, "name another: dvc remote default NAME")
        else:
            found = "no default one: needed to share data and adapters, by dvc push and pull"
            yield Finding("DVC remote", Status.SKIPPED, found, NEW_REMOTE)
    except SilenceError as error:
        yield Finding("DVC", Status.WARNING, str(error), "`dvc doctor` says more")


def _remote(place: Surroundings, name: str, url: str) -> Finding:
    """Whether `dvc push` could write to the remote: a folder, or a store that DVC itself is asked to list."""
    label = f"{name}, {without_password(url)}"
    if "://" not in url:
        folder = Path(url)
        if folder.is_dir() and os.access(folder, os.W_OK):
            return Finding("DVC remote", Status.OK, label)
        state = "not writable" if folder.is_dir() else "no folder" if folder.exists() else "not there"
        mend = f"mount or make it, or name another: {NEW_REMOTE} --force"
        return Finding("DVC remote", Status.WARNING, f"{label}: {state}", mend)
    try:
        done = ask(*DVC, "list-url", f"remote://{name}/", folder=place.folder)
    except SilenceError as error:
        return Finding("DVC remote", Status.WARNING, f"{label}: {error}", "check the network and its endpointurl")
    said = _error(done.stderr)
    if done.returncode and not NOTHING_PUSHED.search(said):
        mend = f"check its address and your credentials; `dvc list-url remote://{name}/ --verbose` says more"
        return Finding("DVC remote", Status.WARNING, f"{label}: {said}", mend)
    return Finding("DVC remote", Status.OK, f"{label}, which answers")


def _error(text: str) -> str:
    """DVC's own words for what went wrong."""
    lines = [line for line in text.splitlines() if line.startswith("ERROR: ")] or text.strip().splitlines() or [""]
    return lines[0].removeprefix("ERROR: ").removeprefix("unexpected error - ")
