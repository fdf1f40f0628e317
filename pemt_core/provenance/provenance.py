"""Where a result comes from: commit, time, versions, cost. Stands beside what later steps depend on, never in it."""

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
