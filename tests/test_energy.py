"""Energy from counters: RAPL's in a folder laid out as on Linux, NVML's if there is a GPU."""

import ctypes
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pemt_core.provenance.energy import Packages, measured_energy
from pemt_core.provenance.provenance import provenance

RANGE = 1_000_000  # microjoules
NVML = "libnvidia-ml.so.1"  # comes with the driver
DRIVER = """
int nvmlInitWithFlags(unsigned flags) { return INIT; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = COUNT; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (char *)0 + index + 1; return HANDLE; }
#ifdef COUNTER
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) {
    static unsigned long long readings[COUNT + 1];
    unsigned long number = (char *)device - (char *)0;
    *millijoules = 1000 * number + 1500 * number * readings[number - 1]++;  /* 1.5 J more at each reading of GPU 1 */
    return COUNTER;
}
#endif
"""


def domain(folder: Path, number: str, name: str, counter: int) -> Path:
    path = folder / f"intel-rapl:{number}"
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{RANGE}\n")
    (path / "energy_uj").write_text(f"{counter}\n")
    return path / "energy_uj"


def test_packages_are_added_up_and_a_wrap_is_counted(tmp_path: Path) -> None:
    first, second = domain(tmp_path, "0", "package-0", 100_000), domain(tmp_path, "1", "package-1", 900_000)
    parts = [domain(tmp_path, "0:0", "core", 5), domain(tmp_path, "2", "psys", 5)]
    with measured_energy(tmp_path) as energy:
        first.write_text("400000")
        second.write_text("50000")  # wrapped around past its range
        for part in parts:
            part.write_text("777777")  # parts of a package and the whole machine are not packages
    assert energy["cpu"] == pytest.approx((300_000 + 150_000) / 1e6)


def test_a_counter_that_wraps_more_than_once_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counter, readings, read = domain(tmp_path, "0", "package-0", 0), threading.Semaphore(0), Packages.read

    def signalling(packages: Packages) -> None:
        read(packages)
        readings.release()

    monkeypatch.setattr(Packages, "read", signalling)
    with measured_energy(tmp_path, sample_seconds=0.001) as energy:
        for value in (600_000, 200_000, 800_000, 400_000):  # 0.6 J more each time
            (tmp_path / "new").write_text(str(value))
            (tmp_path / "new").replace(counter)
            while readings.acquire(blocking=False):
                pass
            for _ in range(2):  # the first reading may have begun before the write
                assert readings.acquire(timeout=60)
    assert energy["cpu"] == pytest.approx(2.4)


def test_an_unreadable_counter_gives_none(tmp_path: Path) -> None:
    with measured_energy(tmp_path / "nothing") as energy:
        pass
    assert energy["cpu"] is None
    counter = domain(tmp_path, "0", "package-0", 0)
    counter.unlink()
    counter.mkdir()  # a folder, which not even root can read
    with measured_energy(tmp_path) as energy:
        pass
    assert energy["cpu"] is None
    lost = domain(tmp_path, "1", "package-1", 0)
    with measured_energy(tmp_path) as energy:
        lost.unlink()
    assert energy["cpu"] is None


@pytest.mark.parametrize(
    ("driver", "joules"),
    [
        ({}, 1.5 + 3.0),
        ({"COUNT": 0}, None),
        ({"INIT": 9}, None),  # the driver is not loaded
        ({"HANDLE": 15}, None),  # a GPU is lost
        ({"COUNTER": 3}, None),  # not supported
        ({"COUNTER": None}, None),  # an old driver without the function
    ],
)
def test_gpus_are_added_up(tmp_path: Path, driver: dict[str, int | None], joules: float | None) -> None:
    """NVIDIA's package reads a substitute for the driver's library whose answers are known."""
    answers = {"COUNT": 2, "INIT": 0, "HANDLE": 0, "COUNTER": 0, **driver}
    defined = [f"-D{name}={value}" for name, value in answers.items() if value is not None]
    compiler = ["cc", "-shared", "-fPIC", "-x", "c", *defined, "-o", str(tmp_path / NVML), "-"]
    subprocess.run(compiler, input=DRIVER, text=True, check=True)
    program = "from pemt_core.provenance.energy import *\nwith measured_energy() as energy: pass\nprint(energy['gpu'])"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    output = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True).stdout
    assert output.decode() == f"{joules}\n"


def test_the_block_may_fail(tmp_path: Path) -> None:
    domain(tmp_path, "0", "package-0", 0)
    with pytest.raises(ZeroDivisionError), measured_energy(tmp_path):
        1 / 0  # noqa: B018


def test_provenance_records_energy(tmp_path: Path) -> None:
    with provenance(tmp_path / "p.json"):
        pass
    energy = json.loads((tmp_path / "p.json").read_text())["energy_joules"]
    assert set(energy) == {"cpu", "gpu"}
    try:
        ctypes.CDLL(NVML)
    except OSError:
        assert energy["gpu"] is None
