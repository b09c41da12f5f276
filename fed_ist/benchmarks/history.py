"""The files of benchmarks: the latest figures as JSON, and a history with a line for each run."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from fed_ist.files.atomic import write_atomic

PACKAGES = ("fed-ist", "flwr", "numpy", "torch")


def keep_figures(
    out: Path, name: str, settings: Mapping[str, object], cases: Sequence[Mapping[str, object]]
) -> None:
    """Write OUT/NAME.json anew, and append a line to OUT/history.jsonl.

    settings: of the benchmark. cases: its figures. The machine and the versions of packages are
    written with them.
    """
    report = {
        "benchmark": name,
        "when": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "versions": {package: version(package) for package in PACKAGES},
        "settings": dict(settings),
        "cases": list(cases),
    }
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / f"{name}.json", (json.dumps(report, indent=1) + "\n").encode())
    with (out / "history.jsonl").open("a", encoding="utf-8") as history:
        history.write(json.dumps(report) + "\n")
