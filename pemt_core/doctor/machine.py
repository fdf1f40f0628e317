"""Checks of Python, packages, torch and its devices, memory and disk."""

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from pemt_core.doctor.finding import Finding, SilenceError, Status, Surroundings, ask
from pemt_core.settings import HUB

DISTRIBUTION = "pemt-pipeline"
INSTALL = "make setup"
INSTALL_KUBEFLOW = "pip install -e '.[kubeflow]' -c constraints.txt"
TORCH_SECONDS = 60.0  # time to load torch's libraries from a cold disk
GIB = 2**30
DEMO_MEMORY = 3 * GIB  # two processes of 0.8 GiB, each under DVC
DEMO_DISK = GIB  # it writes 0.1 GiB; torch, MLflow and DVC need space for temporary files
HUB_DISK = 30 * GIB  # the datasets as files and again in the cache of `datasets`, T5-base, its adapters


def python(place: Surroundings) -> Iterator[Finding]:
    """Check the interpreter against the version that the package requires."""
    try:
        required = metadata(DISTRIBUTION)["Requires-Python"]
    except PackageNotFoundError:
        yield Finding("Python", Status.FAILURE, f"{sys.executable} lacks {DISTRIBUTION}", INSTALL)
        return
    found = platform.python_version()
    if Requirement(f"python{required}").specifier.contains(found, prereleases=True):
        yield Finding("Python", Status.OK, f"{found} ({sys.executable})")
    else:
        yield Finding("Python", Status.FAILURE, f"{found}, expected {required}", f"{INSTALL} PYTHON=python3.11")


def packages(place: Surroundings) -> Iterator[Finding]:
    """Check the installed packages against the ranges of pyproject.toml, and those that only Kubeflow needs."""
    try:
        listed = [Requirement(line) for line in requires(DISTRIBUTION) or []]
    except PackageNotFoundError:
        return  # the check of Python reports this
    always = [one for one in listed if not one.marker or one.marker.evaluate({"extra": ""})]
    problems = _unmet(always)
    if problems:
        yield Finding("packages", Status.FAILURE, "; ".join(problems), INSTALL)
    else:
        yield Finding("packages", Status.OK, f"{len(always)} installed, within the ranges of pyproject.toml")
    sdk = [one for one in listed if one not in always and one.marker and one.marker.evaluate({"extra": "kubeflow"})]
    problems = _unmet(sdk)
    if problems:
        use = "for `pemt image`, `local`, `submit` and `compile`"
        yield Finding("Kubeflow SDK", Status.SKIPPED, f"{'; '.join(problems)}: needed {use}", INSTALL_KUBEFLOW)
    else:
        yield Finding("Kubeflow SDK", Status.OK, ", ".join(f"{one.name} {version(one.name)}" for one in sdk))


def _unmet(requirements: list[Requirement]) -> list[str]:
    """Describe the packages that are missing, or whose version is outside the required range."""
    problems = []
    for one in requirements:
        try:
            found = version(one.name)
        except PackageNotFoundError:
            problems.append(f"{one.name} is not installed")
            continue
        if not one.specifier.contains(found, prereleases=True):
            problems.append(f"{one.name} is {found}, expected {one.specifier}")
    return problems


def torch_and_devices(place: Surroundings) -> Iterator[Finding]:
    """Check torch and the device that it uses, in a separate process, which a broken driver may kill."""
    try:
        done = ask(sys.executable, "-m", "pemt_core.doctor.torch_probe", seconds=TORCH_SECONDS)
    except SilenceError as error:
        yield Finding("torch", Status.FAILURE, str(error), INSTALL)
        return
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        yield Finding("torch", Status.FAILURE, f"does not load: {lines[-1]}", INSTALL)
        return
    seen = json.loads(done.stdout)
    cores = len(os.sched_getaffinity(0))
    yield Finding("torch", Status.OK, f"{seen['version']}, {seen['threads']} threads on {cores} cores")
    yield _device(place, seen)
    yield from _bfloat16(place, seen)


def _device(place: Surroundings, seen: dict[str, object]) -> Finding:
    """Name the GPUs that torch can use, or say why it cannot use any."""
    on_the_bus = nvidia_gpus()
    if seen["gpus"]:
        driver = f", driver {on_the_bus[0][1]}" if on_the_bus else ""
        return Finding("device", Status.OK, f"{', '.join(map(str, seen['gpus']))}{driver}")  # type: ignore[call-overload]
    if on_the_bus and not seen["cuda"]:
        return Finding(
            "device",
            Status.WARNING,
            f"{on_the_bus[0][0]} is present, but torch {seen['version']} is a CPU build",
            "install a CUDA build from the index shown at https://pytorch.org/get-started/locally",
        )
    if on_the_bus:
        name, driver = on_the_bus[0]
        why = f" ({seen['warning']})" if seen["warning"] else ""
        found = f"{name} is present with driver {driver}, but torch with CUDA {seen['cuda']} cannot use it{why}"
        return Finding("device", Status.WARNING, found, "install a newer driver, or a build of torch for this driver")
    backbone = place.settings.backbone if place.settings else None
    if backbone and backbone.kind == "hub" and not (place.folder / backbone.name).is_dir():
        found = f"no GPU: {backbone.name} would train on the CPU, which takes days"
        return Finding("device", Status.WARNING, found, "use a machine with a GPU, or a cluster: pemt submit")
    return Finding("device", Status.OK, "no GPU; the CPU is enough for `make demo`")


def _bfloat16(place: Surroundings, seen: dict[str, Any]) -> Iterator[Finding]:
    """Warn of settings that ask for bfloat16 on a CPU that has no instructions for it."""
    if place.settings is None or seen["gpus"] or not seen["slowdown_of_bfloat16"]:
        return
    settings = place.settings
    trained = {"backbone": settings.backbone} if settings.backbone.kind == "scratch" else {}
    groups: dict[str, Any] = {**trained, "train_source": settings.train_source, "transfer": settings.transfer}
    differences = {"per_source": settings.per_source, "per_target": settings.per_target, "methods": settings.methods}
    asked = {
        "backbone.dtype": settings.backbone.dtype,
        **{f"{name}.training.precision": group.training.precision for name, group in groups.items()},
        "evaluate.precision": settings.evaluate.precision,
        **{
            f"{name}.{entry}.training.precision": values["training"].get("precision")
            for name, entries in differences.items()
            for entry, values in entries.items()
            if "training" in values
        },
    }
    if keys := [key for key, value in asked.items() if value == "bfloat16"]:
        found = f"this CPU multiplies {seen['slowdown_of_bfloat16']:.1f} times as slowly in bfloat16 as in float32"
        yield Finding("bfloat16", Status.WARNING, found, f"set float32 if the memory suffices: {', '.join(keys)}")


def nvidia_gpus() -> list[tuple[str, str]]:
    """Return name and driver of each GPU that nvidia-smi lists; empty if nvidia-smi is not installed."""
    try:
        done = ask("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    except SilenceError:
        return []
    lines = [line.rpartition(", ") for line in done.stdout.splitlines() if ", " in line]
    return [(name, driver) for name, _, driver in lines] if done.returncode == 0 else []


def memory(place: Surroundings) -> Iterator[Finding]:
    """Check the free memory of the machine, or of this process's control group."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    machine = {name: int(rest.split()[0]) * 1024 for name, _, rest in (line.partition(":") for line in lines)}
    total, free = machine["MemTotal"], machine["MemAvailable"]
    group = Path("/sys/fs/cgroup")
    limit = group / "memory.max"
    if limit.is_file() and (bound := limit.read_text().strip()) != "max":
        total = min(total, int(bound))
        free = min(free, total - int((group / "memory.current").read_text()))
    found = f"{free / GIB:.1f} of {total / GIB:.1f} GiB are free"
    if free >= DEMO_MEMORY:
        yield Finding("memory", Status.OK, found)
    else:
        fix = f"close other programs; `make demo` needs {DEMO_MEMORY / GIB:.0f} GiB, `make demo JOBS=1` half of that"
        yield Finding("memory", Status.WARNING, found, fix)


def disk(place: Surroundings) -> Iterator[Finding]:
    """Check the free space of the project, and of the hub's cache if the settings read from the hub."""
    free = shutil.disk_usage(place.folder).free
    found = f"{free / GIB:.1f} GiB are free in {place.folder}"
    if free < DEMO_DISK:
        fix = f"free at least {DEMO_DISK / GIB:.0f} GiB, for example by `rm -rf checkpoints` and `dvc gc --workspace`"
        yield Finding("disk", Status.FAILURE, found, fix)
    else:
        yield Finding("disk", Status.OK, found)
    if place.settings and place.settings.prepare.source == HUB:
        cache = hub_cache(place)
        free = shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.is_dir())).free
        found = f"{free / GIB:.1f} GiB are free for the hub's cache, {cache}"
        enough = free >= HUB_DISK
        fix = "" if enough else f"all datasets need {HUB_DISK / GIB:.0f} GiB; HF_HOME sets another folder"
        yield Finding("hub's cache", Status.OK if enough else Status.WARNING, found, fix)


def hub_cache(place: Surroundings) -> Path:
    """The folder in which the hub's libraries keep downloads."""
    base = place.variables.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    return Path(place.variables.get("HF_HOME") or Path(base) / "huggingface").expanduser().resolve()
