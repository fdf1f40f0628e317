"""Shared by the commands: params.yaml, the run's choices, and errors in one line instead of a traceback."""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pemt_core.errors import PemtError, SettingsError, cut, file_errors_named, refusal
from pemt_core.interruption import stoppable
from pemt_core.paths import check_paths
from pemt_core.schema.numbers import LARGEST
from pemt_core.schema.values import check_words
from pemt_core.settings import Settings, parse_run, parse_settings, read_params
from pemt_core.settings.groups import IMAGE
from pemt_core.steps.plan import check_tasks
from pemt_core.tracking.address import without_password
from pipelines.cluster import VOLUME

TAGGED = re.compile(IMAGE + r"(:\w[\w.-]{0,127})?(@sha256:[0-9a-f]{64})?", re.ASCII)
NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


def add_params(parser: argparse.ArgumentParser) -> None:
    """Add the flag for the settings."""
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="settings (default: params.yaml)")


def add_choices(parser: argparse.ArgumentParser) -> None:
    """Add the pipeline's parameters as flags."""
    parser.add_argument("--recipe", help="recipe of params.yaml (default: the one it names)")
    parser.add_argument("--sources", nargs="+", metavar="TASK", help="source tasks (default: those in params.yaml)")
    parser.add_argument("--targets", nargs="+", metavar="TASK", help="target tasks (default: those in params.yaml)")
    parser.add_argument("--k", nargs="+", type=_k, help="few-shot rows per class, or full (default: the recipe's)")
    parser.add_argument("--seeds", nargs="+", type=_seed, help="seeds (default: the recipe's)")


def add_image(parser: argparse.ArgumentParser) -> None:
    """Add the flag for the image of the steps."""
    help_text = "image of all steps (default: kubeflow.image, tagged by its content)"
    parser.add_argument("--image", type=_image, help=help_text)


def chosen(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the pipeline's arguments that the flags of `add_choices` set."""
    names = ("recipe", "sources", "targets", "k", "seeds")
    return {name: value for name in names if (value := getattr(arguments, name)) is not None}


def load(params: Path) -> tuple[Settings, str]:
    """Load the settings, and the file's content as JSON, which is shown with every run.

    SettingsError if they are invalid, or contain a password.
    """
    values = read_params(params)
    settings = parse_settings(values, str(params))
    if without_password(settings.tracking.uri) != settings.tracking.uri:
        raise SettingsError(
            f"{params}: tracking.uri contains a user or a password, which would be shown with every run; put it into "
            "MLFLOW_TRACKING_URI in the Secret that kubeflow.secret names"
        )
    return settings, json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def settings_of_run(params: str, choices: Mapping[str, Any], origin: Path) -> Settings:
    """Return the settings of a run with these choices. SettingsError if the run would fail."""
    flags = " and ".join(f"--{name}" for name in choices)
    place = f"{origin} with {flags}" if flags else str(origin)
    settings = parse_run(json.dumps({"params": json.loads(params), "choices": choices}), place)
    try:
        check_tasks(settings, origin.parent)
    except SettingsError as error:
        raise SettingsError(f"{place}: {error}") from error
    return settings


def unfit_for_a_cluster(settings: Settings) -> list[str]:
    """List why a run with these settings would fail on a cluster: a tracking file, or paths that pods do not have."""
    reasons = []
    if not settings.kubeflow.secret and settings.tracking.uri.startswith("sqlite:"):
        reasons.append(
            f"tracking.uri is {settings.tracking.uri} and kubeflow.secret is empty, but steps on a cluster cannot "
            "share a file: set tracking.uri to a server, or kubeflow.secret to a Secret with MLFLOW_TRACKING_URI"
        )
    for key, folder in settings.folders.items():
        if not (settings.kubeflow.volume and folder.is_relative_to(VOLUME)):
            reasons.append(
                f"{key} is {folder}, a folder that pods do not have: expected one below {VOLUME}, on the volume that "
                f"kubeflow.volume names{', or hub, or embedded' if key == 'prepare.source' else ''}"
            )
    for name, entry in settings.listed_own_tasks.items():
        for split, file in entry.files.by_split.items():
            on_volume = Path(file).is_relative_to(VOLUME)
            if not Path(file).is_absolute() or (on_volume and not settings.kubeflow.volume):
                reasons.append(
                    f"own_tasks.{name}.files.{split} is {file}, a file that pods do not have: expected one below "
                    f"{VOLUME}, on the volume that kubeflow.volume names, or an absolute path in the image"
                )
    return reasons


def run(main: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> None:
    """Parse the flags and call `main`. A PemtError, and a file that is refused, become one line and exit code 1."""
    with stoppable():
        try:
            with file_errors_named():
                check_words(sys.argv[1:])
                arguments = parser.parse_args()
                check_paths(vars(arguments).values())
                main(arguments)
        except PemtError as error:
            sys.exit(refusal(error))


def namespace_name(text: str) -> str:
    """Parse the name of a namespace of Kubernetes."""
    if NAMESPACE.fullmatch(text):
        return text
    raise argparse.ArgumentTypeError(f"'{cut(text)}': expected lower-case letters, digits and -, at most 63")


def _k(text: str) -> str | int:
    if text == "full" or (text.isdecimal() and len(text) < 19 and 1 <= int(text) <= LARGEST):
        return text if text == "full" else int(text)
    raise argparse.ArgumentTypeError(f"'{cut(text)}': expected full, or a number of rows from 1 to {LARGEST}")


def _seed(text: str) -> int:
    if text.isdecimal() and len(text) <= 19 and int(text) < 2**63:
        return int(text)
    raise argparse.ArgumentTypeError(f"'{cut(text)}': expected a number from 0 to {2**63 - 1}")


def _image(text: str) -> str:
    """Parse the name of an image."""
    if TAGGED.fullmatch(text):
        return text
    raise argparse.ArgumentTypeError(f"'{cut(text)}': expected an image, as in ghcr.io/team/pemt:tag")
