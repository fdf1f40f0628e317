"""Run all checks at once and yield their findings in order."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from pemt_core.doctor import containers, machine, project, services
from pemt_core.doctor.finding import Check, Finding, Surroundings

CHECKS: dict[str, Check] = {
    "Python": machine.python,
    "packages": machine.packages,
    "torch": machine.torch_and_devices,
    "memory": machine.memory,
    "disk": machine.disk,
    "settings": project.settings,
    "git": project.git,
    "DVC": project.dvc,
    "tracking": services.tracking,
    "hub": services.hub,
    "Docker": containers.docker,
    "cluster": containers.cluster,
    "Kubeflow": services.kubeflow,
}


def examine(place: Surroundings, waiting: Callable[[str], None]) -> Iterator[Finding]:
    """Run all checks in parallel; `waiting` gets the name of the check that the next finding waits for."""
    pool = ThreadPoolExecutor(len(CHECKS))
    try:
        found = {name: pool.submit(_all_of, check, place) for name, check in CHECKS.items()}
        for name, findings in found.items():
            if not findings.done():
                waiting(name)
            yield from findings.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _all_of(check: Check, place: Surroundings) -> list[Finding]:
    return list(check(place))
