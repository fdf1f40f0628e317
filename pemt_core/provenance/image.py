"""The name of the image that all steps and the server run in; its tag follows from its content."""

import hashlib
import subprocess

from pemt_core.errors import PemtError
from pemt_core.provenance.commit import PACKAGE_ROOT
from pemt_core.settings import KubeflowSettings

CONTENT = ("Dockerfile", ".dockerignore", "constraints.txt", "pyproject.toml", "pemt_core", "components")
REPOSITORY = PACKAGE_ROOT.parent


class ImageError(PemtError):
    """The image cannot be named or built."""


def image_name(kubeflow: KubeflowSettings) -> str:
    """Return the image's name with its tag.

    The tag has the last commit that changed the content, a hash of uncommitted changes, and the builds of torch unless
    they are for the CPU.
    """
    commit, changes = content_commit()
    builds = "" if kubeflow.torch == "cpu" else f"-{kubeflow.torch}"
    return f"{kubeflow.image}:{commit[:12]}{changes}{builds}"


def content_commit() -> tuple[str, str]:
    """Return the last commit that changed the content, and "-" with a hash of uncommitted changes, if any."""
    changed = _changes()
    suffix = f"-{hashlib.sha256(changed).hexdigest()[:8]}" if changed else ""
    return _git("log", "-1", "--format=%H", "--", *CONTENT).strip(), suffix


def _changes() -> bytes:
    """Return the uncommitted changes, including the content of new files; empty if there are none."""
    new = _git("ls-files", "--others", "--exclude-standard", "-z", "--", *CONTENT).split("\0")
    contents = [name.encode() + b"\0" + (REPOSITORY / name).read_bytes() for name in sorted(filter(None, new))]
    return _git("diff", "HEAD", "--", *CONTENT).encode() + b"".join(contents)


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ImageError(f"{REPOSITORY}: the image's tag needs git, which failed: {error}") from error
    return done.stdout
