"""The energy that this machine uses, by its counters: RAPL of Intel and AMD processors, NVML of NVIDIA GPUs.

They count whole packages and whole GPUs, so idle power and all other processes are included; memory and the rest of the
machine are not.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
SAMPLE_SECONDS = 30.0  # the shortest counters, of 65 kJ, wrap after three minutes at 360 W

Energy = dict[str, float | None]  # "cpu" and "gpu": joules, None if it cannot be read


@contextmanager
def measured_energy(powercap: Path = POWERCAP, sample_seconds: float = SAMPLE_SECONDS) -> Iterator[Energy]:
    """Yield a mapping that holds the block's energy in joules once the block has ended.

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
    """The processor packages of a powercap folder, and the joules that they have used since this object was made.

    Only packages count, because domains of cores and memory are parts of a package or are counted elsewhere. On most
    systems only root can read the counters; packages that cannot be read are left out.
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
        """Add the energy used since the last reading, in which a counter may wrap only once."""
        for domain, last in self._last.items():
            try:
                now = _counter(domain)
            except (OSError, ValueError):  # a counter vanished while the block ran, so the sum is unknown
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

    None without the driver's library, without a GPU, or if a GPU has no such counter (before Volta).
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
