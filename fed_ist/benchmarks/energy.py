"""The energy that this machine reports: RAPL counters of Intel and AMD, or a Jetson's power sensor.

Both are files below /sys. Where there are none, or reading them is not allowed (on most systems
only root may read RAPL), there is no meter.
"""

import threading
import time
from pathlib import Path
from typing import Protocol

SAMPLE_S = 0.05


class Meter(Protocol):
    """A meter of the energy that a machine uses; name: what it measures."""

    name: str

    def joules(self) -> float:
        """The joules used since the meter was opened."""


def open_meter(sys_path: Path = Path("/sys")) -> Meter | None:
    """The machine's meter; None where it has none that can be read."""
    zones = [
        zone
        for zone in sorted((sys_path / "class/powercap").glob("intel-rapl:*"))
        if _read(zone / "name").startswith("package") and _number(zone / "energy_uj") is not None
    ]
    if zones:
        return RaplMeter(zones)
    # Jetson boards name the rail that supplies the whole module.
    for label in sorted(sys_path.glob("class/hwmon/hwmon*/in*_label")):
        channel = label.name.removeprefix("in").removesuffix("_label")
        volts, amperes = (
            label.with_name(f"in{channel}_input"),
            label.with_name(f"curr{channel}_input"),
        )
        known = _number(volts) is not None and _number(amperes) is not None
        if _read(label) in ("VDD_IN", "VIN_SYS_5V0", "POM_5V_IN") and known:
            return RailMeter(volts, amperes)
    return None


class RaplMeter:
    """A `Meter` of all processor packages together, by counters that wrap around."""

    name = "RAPL package"

    def __init__(self, zones: list[Path]) -> None:
        self._zones = zones
        self._last = [_number(zone / "energy_uj") or 0 for zone in zones]
        self._range = [_number(zone / "max_energy_range_uj") or 0 for zone in zones]
        self._total = 0

    def joules(self) -> float:
        """The joules used since the meter was opened."""
        for i, zone in enumerate(self._zones):
            now = _number(zone / "energy_uj")
            if now is None:
                continue
            step = now - self._last[i]
            self._total += step if step >= 0 else step + self._range[i]
            self._last[i] = now
        return self._total / 1e6


class RailMeter:
    """A `Meter` of one rail: millivolts times milliamperes, summed up in a thread."""

    name = "board supply"

    def __init__(self, millivolts: Path, milliamperes: Path) -> None:
        self._files = millivolts, milliamperes
        self._total = 0.0
        self._lock = threading.Lock()
        self._last = time.monotonic()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            time.sleep(SAMPLE_S)
            self._sample()

    def _sample(self) -> None:
        volts, amperes = (_number(file) for file in self._files)
        with self._lock:
            now = time.monotonic()
            if volts is not None and amperes is not None:
                self._total += volts * amperes / 1e6 * (now - self._last)
            self._last = now

    def joules(self) -> float:
        """The joules used since the meter was opened."""
        self._sample()
        return self._total


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text.lstrip("-").isdigit() else None
