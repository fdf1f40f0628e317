"""What the commands share: params.yaml, the run's choices, errors as a line."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pemt_core.errors import PemtError, SettingsError
from pemt_core.settings import Settings, parse_run, parse_settings, read_params
from pemt_core.steps.plan import check_tasks
from pemt_core.tracking.address import without_password
from pipelines.cluster import VOLUME


def add_params(parser: argparse.ArgumentParser) -> None:
    """The flag for the settings."""
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="settings (default: params.yaml)")


def add_choices(parser: argparse.ArgumentParser) -> None:
    """The pipeline's parameters as flags."""
    parser.add_argument("--recipe", help="recipe of params.yaml (default: the one it names)")
    parser.add_argument("--sources", nargs="+", metavar="TASK", help="source tasks (default: as params.yaml lists)")
    parser.add_argument("--targets", nargs="+", metavar="TASK", help="target tasks (default: as params.yaml lists)")
    parser.add_argument("--k", nargs="+", type=_k, help="few-shot rows per class, or full (default: of the recipe)")
    parser.add_argument("--seeds", nargs="+", type=int, help="seeds (default: of the recipe)")


def chosen(arguments: argparse.Namespace) -> dict[str, Any]:
    """The pipeline's arguments that the flags of `add_choices` gave."""
    names = ("recipe", "sources", "targets", "k", "seeds")
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def load(params: Path) -> tuple[Settings, str]:
    """The checked settings, and the file's content as JSON, which everyone sees who sees a run.

    SettingsError where it holds a password.
    """
    values = read_params(params)
    settings = parse_settings(values, str(params))
    if without_password(settings.tracking.uri) != settings.tracking.uri:
        raise SettingsError(
            f"{params}: tracking.uri holds a user or a password, which would be shown with every run; leave them to "
            "MLFLOW_TRACKING_URI in the Secret that kubeflow.secret names"
        )
    return settings, json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def settings_of_run(params: str, choices: Mapping[str, Any], origin: Path) -> Settings:
    """The settings that a run with these choices has. SettingsError where it could only fail."""
    settings = parse_run(json.dumps({"params": json.loads(params), "choices": choices}), str(origin))
    try:
        check_tasks(settings, origin.parent)
    except SettingsError as error:
        raise SettingsError(f"{origin}: {error}") from error
    return settings


def unfit_for_a_cluster(settings: Settings) -> list[str]:
    """Why a run with these settings could only fail there: a file to track to, a folder or a file that no pod has."""
    reasons = []
    if not settings.kubeflow.secret and settings.tracking.uri.startswith("sqlite:"):
        reasons.append(
            f"tracking.uri is {settings.tracking.uri} and kubeflow.secret is empty, but steps on a cluster share no "
            "file: name a server in tracking.uri, or in kubeflow.secret a Secret with MLFLOW_TRACKING_URI"
        )
    for key, folder in settings.folders.items():
        if not (settings.kubeflow.volume and folder.is_relative_to(VOLUME)):
            reasons.append(
                f"{key} is {folder}, a folder that no pod has: expected one on the volume, below {VOLUME}, with "
                f"kubeflow.volume naming it{', or hub, or embedded' if key == 'prepare.source' else ''}"
            )
    for name, entry in settings.listed_own_tasks.items():
        for split, file in entry.files.by_split.items():
            on_volume = Path(file).is_relative_to(VOLUME)
            if not Path(file).is_absolute() or (on_volume and not settings.kubeflow.volume):
                reasons.append(
                    f"own_tasks.{name}.files.{split} is {file}, a file that no pod has: expected one on the volume, "
                    f"below {VOLUME}, with kubeflow.volume naming it, or an absolute path in the image"
                )
    return reasons


def run(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse and call `main`. Exit code 1 and one line where the user can mend what is wrong."""
    try:
        main(parser.parse_args())
    except PemtError as error:
        sys.exit(f"error: {error}")


def _k(text: str) -> str | int:
    if text == "full" or (text.isdecimal() and int(text)):
        return text if text == "full" else int(text)
    raise argparse.ArgumentTypeError(f"'{text}' is neither full nor a number of rows from 1")
