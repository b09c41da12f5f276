"""Many runs over the same embeddings: in parallel, one file each, and only those not done yet.

A folder holds `settings.json`, what all runs have in common, and `runs/<case>.json`.
"""

import json
import multiprocessing
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from fed_ist.config import RunConfig, Value, parse_config
from fed_ist.curves import Curve, read_curve
from fed_ist.errors import InputError
from fed_ist.paths import require_writable
from fed_ist.results import write_atomic
from sims.experiment import run_case
from sims.shared import Shared


@dataclass(frozen=True)
class Case:
    """One run. method: how reports call it. config: all that it depends on but its images."""

    dataset: str
    partition: str
    clients: int
    method: str
    config: RunConfig

    @property
    def file_name(self) -> str:
        parts = (self.dataset, self.partition, str(self.clients), self.method)
        words = "-".join(re.sub(r"[^A-Za-z0-9.]+", "_", part) for part in parts)
        return f"{words}-{self.config.seed}.json"


def require_same(folder: Path, settings: Mapping[str, object]) -> None:
    """Create `folder` for runs with these settings; raises `InputError` where it has others."""
    require_writable(folder, "--out")
    path = folder / "settings.json"
    if path.exists():
        before = json.loads(path.read_text())
        changed = [key for key in settings if before.get(key) != settings[key]]
        if changed:
            raise InputError(
                f"'{folder}' holds runs with another {changed[0]} ({before.get(changed[0])!r}, not "
                f"{settings[changed[0]]!r}). Choose another --out, or the same settings."
            )
    write_atomic(path, (json.dumps(settings, indent=2) + "\n").encode())


def run_cases(
    cases: Sequence[Case], shared: Shared, folder: Path, n_workers: int
) -> tuple[list[Curve], list[str]]:
    """(the curves of all cases, what was wrong with those that have none)."""
    runs = folder / "runs"
    runs.mkdir(exist_ok=True)
    left = [case for case in cases if not (runs / case.file_name).exists()]
    # The slowest first, so that no worker is left with one at the end.
    left.sort(key=lambda case: (case.config.strategy == "ist", -case.clients))
    failures: list[str] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_workers, context, _start_worker, (shared,)) as pool:
        asked = {pool.submit(_work, case, runs): case for case in left}
        progress = tqdm(total=len(cases), initial=len(cases) - len(left), desc="runs")
        for done in as_completed(asked):
            reason = done.result()
            if reason:
                failures.append(f"{asked[done].file_name}: {reason}")
            progress.update()
        progress.close()
    found = [runs / case.file_name for case in cases]
    return [read_curve(path) for path in found if path.exists()], failures


_shared: Shared | None = None


def _start_worker(shared: Shared) -> None:
    global _shared
    _shared = shared
    torch.set_num_threads(1)  # as many workers as cores: more threads would only wait for them


def _work(case: Case, runs: Path) -> str:
    """Run a case and write its file; returns what is wrong with its settings, if anything is."""
    assert _shared is not None
    try:
        outcome = run_case(case.config, _shared, case.clients)
    except InputError as reason:
        return str(reason)
    curve = Curve(
        dataset=case.dataset,
        partition=case.partition,
        clients=case.clients,
        method=case.method,
        seed=case.config.seed,
        bytes=outcome.client_bytes,
        accuracy=outcome.accuracy,
        device_seconds=outcome.compute_s,
        device_flops=outcome.multiply_adds,
    )
    write_atomic(runs / case.file_name, curve.to_json().encode())
    return ""


def configure(base: Mapping[str, Value], *changes: Mapping[str, Value]) -> RunConfig:
    """A run's configuration: defaults, then changes one after the other."""
    values = dict(base)
    for change in changes:
        values |= change
    return parse_config(values)
