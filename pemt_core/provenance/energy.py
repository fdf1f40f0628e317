"""The energy that this machine used meanwhile, by its own counters: RAPL of Intel and AMD processors, NVML's of GPUs.

They count whole packages and whole GPUs, so idle power and every other process too; memory and the rest of the machine
are not in them.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
SAMPLE_SECONDS = 30.0  # the shortest counters, of 65 kJ, wrap after three minutes at 360 W

Energy = dict[str, float | None]  # "cpu" and "gpu": joules, None where it cannot be read


@contextmanager
def measured_energy(powercap: Path = POWERCAP, sample_seconds: float = SAMPLE_SECONDS) -> Iterator[Energy]:
    """Gives a mapping that holds the energy of the block, in joules, once the block has ended.

    The processor's counters wrap, so a thread reads them every `sample_seconds` while the block runs.
    """
    energy: Energy = {"cpu": None, "gpu": None}
    packages, gpu_before, ended = Packages(powercap), gpu_joules(), threading.Event()

    def watch() -> None:
        while not ended.wait(sample_seconds):
            packages.read()

    watcher = threading.Thread(target=watch, daemon=True)
    if packages.found:
        watcher.start()
    try:
        yield energy
    finally:
        ended.set()
        if packages.found:
            watcher.join()
        packages.read()
        gpu_after = gpu_joules()
        energy["cpu"] = packages.joules if packages.found else None
        energy["gpu"] = None if gpu_before is None or gpu_after is None else gpu_after - gpu_before


class Packages:
    """The processor packages of a powercap folder, and the joules that they have used since this was made.

    Domains of cores and memory are parts of a package or of other accounts: only packages count. Most systems let only
    root read the counters; what cannot be read is not found.
    """

    def __init__(self, powercap: Path) -> None:
        self._last: dict[Path, int] = {}
        self._range: dict[Path, int] = {}
        self._used = 0  # microjoules
        for domain in sorted(powercap.glob("intel-rapl:*")):  # AMD's have the same name
            try:
                if (domain / "name").read_text().startswith("package"):
                    self._range[domain] = int((domain / "max_energy_range_uj").read_text())
                    self._last[domain] = _counter(domain)
            except (OSError, ValueError):
                continue
        self.found = bool(self._last)

    def read(self) -> None:
        """Add what was used since the last reading; of several wraps in between, one is seen."""
        for domain, last in self._last.items():
            try:
                now = _counter(domain)
            except (OSError, ValueError):  # taken away while the block ran: nothing sound can be said
                self.found = False
                return
            self._used += now - last if now >= last else now + self._range[domain] - last
            self._last[domain] = now

    @property
    def joules(self) -> float:
        return self._used / 1e6


def _counter(domain: Path) -> int:
    return int((domain / "energy_uj").read_text())


def gpu_joules() -> float | None:
    """What all NVIDIA GPUs have used since the driver was loaded, as nvmlDeviceGetTotalEnergyConsumption counts it.

    None without the driver's library, without a GPU, and where one has no such counter (before Volta).
    """
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        devices = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        millijoules = [pynvml.nvmlDeviceGetTotalEnergyConsumption(device) for device in devices]
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
    return sum(millijoules) / 1e3 if devices else None
