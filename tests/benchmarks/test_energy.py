"""Joules are read from the files that Linux has for them."""

import time
from pathlib import Path

from fed_ist.benchmarks.energy import open_meter


def write(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")


def rapl(root: Path, zone: str, name: str, energy: int) -> Path:
    folder = root / "class/powercap" / zone
    write(folder / "name", name)
    write(folder / "max_energy_range_uj", 1_000_000)
    write(folder / "energy_uj", energy)
    return folder / "energy_uj"


def test_a_machine_without_sensors_has_no_meter(tmp_path):
    assert open_meter(tmp_path) is None


def test_rapl_adds_the_packages_and_survives_a_counter_that_wraps(tmp_path):
    first = rapl(tmp_path, "intel-rapl:0", "package-0", 900_000)
    second = rapl(tmp_path, "intel-rapl:1", "package-1", 0)
    rapl(tmp_path, "intel-rapl:0:0", "core", 5)  # a part of a package, counted in it
    meter = open_meter(tmp_path)
    assert meter.name == "RAPL package"
    assert meter.joules() == 0
    write(second, 250_000)
    assert meter.joules() == 0.25
    write(first, 100_000)  # 900,000 -> 1,000,000 -> 100,000
    assert abs(meter.joules() - 0.45) < 1e-9


def test_a_jetsons_rail_is_volts_times_amperes_times_seconds(tmp_path):
    folder = tmp_path / "class/hwmon/hwmon3"
    write(folder / "in1_label", "VDD_IN")
    write(folder / "in1_input", 5000)  # mV
    write(folder / "curr1_input", 2000)  # mA
    write(folder / "in2_label", "VDD_CPU")
    meter = open_meter(tmp_path)
    assert meter.name == "board supply"
    began = time.monotonic()
    before, started = meter.joules(), time.monotonic()
    time.sleep(0.3)
    ended = time.monotonic()
    used, over = meter.joules() - before, time.monotonic()
    rounding = 1e-6
    assert 10 * (ended - started) - rounding <= used <= 10 * (over - began) + rounding
