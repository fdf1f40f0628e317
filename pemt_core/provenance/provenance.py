"""The origin of a result: commit, time, versions, cost. Written beside what later steps depend on, never into it."""

import platform
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pemt_core.artifacts.files import write_json
from pemt_core.provenance.commit import git_commit
from pemt_core.provenance.energy import measured_energy

PACKAGES = ("torch", "transformers", "datasets", "accelerate", "numpy", "scikit-learn", "mlflow", "dvc")


@contextmanager
def provenance(path: Path | None, **facts: Any) -> Iterator[dict[str, Any]]:
    """Write the block's cost, the `facts` and those that the block adds to `path`, if the block succeeds.

    If `path` is None, nothing is written, because another process writes for this one.

    The memory is that of this process. The block must add that of its workers: the system's figures for ended children,
    `git` included, count pages that they share with this process. The energy is that of the whole machine during the
    block; a part is null if its counter cannot be read.
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
