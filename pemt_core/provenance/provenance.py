"""Where a result comes from: commit, time, versions, cost. Stands beside what later steps depend on, never in it."""

import platform
import resource
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pemt_core.artifacts.files import write_json
from pemt_core.provenance.energy import measured_energy

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "numpy", "scikit-learn", "mlflow", "dvc")
PACKAGE_ROOT = Path(__file__).parents[1]


@contextmanager
def provenance(path: Path | None, **facts: Any) -> Iterator[dict[str, Any]]:
    """Write `path` when the block ends well: its cost, the facts given and those added inside.

    None: nothing, where another process writes for this one.

    The memory is this process's own. Workers must be added inside: what the system says of ended children counts the
    pages that they share with this one, for `git` too. The energy is that of the whole machine in this time; each part
    is null where no counter can be read.
    """
    started, begin = datetime.now(UTC), time.perf_counter()
    with measured_energy() as energy:
        yield facts
    if path is None:
        return
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    write_json(
        path,
        {
            **facts,
            "commit": git_commit(),
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - begin, 2),
            "peak_memory_mib": round(peak_kib / 1024),
            "energy_joules": {part: None if used is None else round(used, 1) for part, used in energy.items()},
            "platform": platform.platform(),
            "python": platform.python_version(),
            "versions": {package: version(package) for package in PACKAGES},
        },
    )


@cache
def git_commit() -> str:
    """The commit of the working directory, with "+changes" where it differs; "unknown" outside a repository.

    An image has no repository: its build writes the commit beside the package.
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
