"""Checks of the project folder: settings, git, DVC and its remote."""

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pemt_core.doctor.finding import Finding, SilenceError, Status, Surroundings, ask
from pemt_core.errors import SettingsError
from pemt_core.settings.inputs import check_inputs
from pemt_core.tasks import get_task, known_tasks
from pemt_core.tracking.address import without_password

DVC = (sys.executable, "-m", "dvc")
NEW_REMOTE = "dvc remote add -d storage FOLDER"
NOTHING_PUSHED = re.compile(r"does not exist: \S+$")  # DVC's message when the store answers and nothing has been pushed


def settings(place: Surroundings) -> Iterator[Finding]:
    """Check params.yaml and the tasks that it lists."""
    if place.settings is None:
        exists = place.params.is_file()
        fix = "correct it as its comments explain" if exists else "run this in the project folder, or pass --params"
        yield Finding("settings", Status.FAILURE, place.problem, fix)
        return
    tasks = place.settings.tasks
    try:
        known = known_tasks(place.settings.own_tasks, place.folder, place.settings.prepare.label_words)
        for task in (*(tasks.joined or tasks.sources), *tasks.targets):
            get_task(task, known)
    except SettingsError as error:
        yield Finding("settings", Status.FAILURE, f"{place.params}: {error}", "correct tasks; `pemt tasks` lists them")
        return
    found = f"recipe {place.settings.recipe}, {len(tasks.sources)} sources, {len(tasks.targets)} targets"
    try:
        check_inputs(place.settings, place.folder)
    except SettingsError as error:  # a run on a cluster may find it there
        yield Finding(
            "settings", Status.WARNING, f"{place.params}: {error}", "correct it, unless only a cluster has it"
        )
        return
    yield Finding("settings", Status.OK, f"{place.params}: {found}")


def git(place: Surroundings) -> Iterator[Finding]:
    """Check the repository, which DVC needs and which results cite as their origin."""
    try:
        head = ask("git", "rev-parse", "--short", "HEAD", folder=place.folder)
        changed = ask("git", "status", "--porcelain", folder=place.folder)
    except SilenceError as error:
        yield Finding("git", Status.FAILURE, str(error), "install git: DVC needs it")
        return
    if changed.returncode:
        message = (changed.stderr.strip().splitlines() or ["git gives no reason"])[0]
        yield Finding("git", Status.FAILURE, f"{place.folder}: {message}", "clone the project with git: DVC needs it")
        return
    if head.returncode:
        yield Finding("git", Status.WARNING, "no commit yet: results cannot record their code", "git commit")
        return
    files = len(changed.stdout.splitlines())
    state = f", {files} changed files" if files else ", no changes"
    yield Finding("git", Status.OK, f"commit {head.stdout.strip()}{state}")


def dvc(place: Surroundings) -> Iterator[Finding]:
    """Check that DVC is set up in this folder, and that its default remote is reachable."""
    if not (place.folder / ".dvc").is_dir():
        yield Finding("DVC", Status.FAILURE, f"{place.folder} is not a DVC project", "dvc init, or clone the project")
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
            found = f"core.remote is {name}, which does not exist"
            yield Finding("DVC remote", Status.WARNING, found, "choose another: dvc remote default NAME")
        else:
            found = "no default remote; dvc push and pull need one to share data and adapters"
            yield Finding("DVC remote", Status.SKIPPED, found, NEW_REMOTE)
    except SilenceError as error:
        yield Finding("DVC", Status.WARNING, str(error), "run `dvc doctor` for details")


def _remote(place: Surroundings, name: str, url: str) -> Finding:
    """Check that a remote is a writable folder, or a store that DVC can list."""
    label = f"{name}, {without_password(url)}"
    if "://" not in url:
        folder = Path(url)
        if folder.is_dir() and os.access(folder, os.W_OK):
            return Finding("DVC remote", Status.OK, label)
        state = "not writable" if folder.is_dir() else "not a folder" if folder.exists() else "does not exist"
        fix = f"mount or create it, or add another: {NEW_REMOTE} --force"
        return Finding("DVC remote", Status.WARNING, f"{label}: {state}", fix)
    try:
        done = ask(*DVC, "list-url", f"remote://{name}/", folder=place.folder)
    except SilenceError as error:
        return Finding("DVC remote", Status.WARNING, f"{label}: {error}", "check the network and its endpointurl")
    message = _error(done.stderr)
    if done.returncode and not NOTHING_PUSHED.search(message):
        fix = f"check its address and your credentials; details: `dvc list-url remote://{name}/ --verbose`"
        return Finding("DVC remote", Status.WARNING, f"{label}: {message}", fix)
    return Finding("DVC remote", Status.OK, f"{label}: reachable")


def _error(text: str) -> str:
    """Extract DVC's error message."""
    lines = [line for line in text.splitlines() if line.startswith("ERROR: ")] or text.strip().splitlines() or [""]
    return lines[0].removeprefix("ERROR: ").removeprefix("unexpected error - ")
