"""The commit of the code that runs."""

import subprocess
from functools import cache
from pathlib import Path

PACKAGE_ROOT = Path(__file__).parents[1]


@cache
def git_commit() -> str:
    """The commit of the working directory, with "+changes" if it differs; "unknown" outside a repository.

    An image has no repository, so its build writes the commit beside the package.
    """
    image_commit = PACKAGE_ROOT.with_name("COMMIT")
    if image_commit.is_file():
        return image_commit.read_text(encoding="utf-8").strip()
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()
