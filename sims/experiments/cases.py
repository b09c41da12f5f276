"""Many runs over the same embeddings: in parallel, with a file each, and only those not done yet.

A folder holds `settings.json`, what all runs share, and `runs/<case>.json`, whose names are those
of `case_files`.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from threadpoolctl import threadpool_limits
from tqdm import tqdm

from fed_ist.comparisons.curves import Curve, read_curve
from fed_ist.config.parsing import parse_config
from fed_ist.config.run_config import RunConfig
from fed_ist.config.toml import Value
from fed_ist.errors import InputError
from fed_ist.files.atomic import clear, write_atomic
from fed_ist.files.paths import require_writable
from fed_ist.files.seals import read_sealed_json, sealed_json
from sims.endings import exit_code
from sims.experiments.case_files import Case, tell_of_others
from sims.experiments.one_run import run_case
from sims.experiments.shared_embeddings import SharedFiles, load_shared


def require_same(folder: Path, settings: Mapping[str, object]) -> None:
    """Make a folder for runs with these settings; raises `InputError` where it has others."""
    require_writable(folder, "--out")
    path = folder / "settings.json"
    if path.exists():
        before = read_sealed_json(path, "Choose another --out.")
        changed = [key for key in settings if before.get(key) != settings[key]]
        if changed:
            raise InputError(
                f"'{folder}' holds runs with another {changed[0]} ({before.get(changed[0])!r}, not "
                f"{settings[changed[0]]!r}). Choose another --out, or the same settings."
            )
    write_atomic(path, sealed_json(settings, indent=2))


def run_cases(
    cases: Sequence[Case],
    data: str,
    embed: Callable[[Case], SharedFiles],
    folder: Path,
    n_workers: int,
) -> tuple[list[tuple[Case, Curve]], list[str]]:
    """(each case and its curve, sentences on what was wrong with cases that have none).

    data: the digest of all cases' images, see `data_digest`. embed: gets the embeddings of a case
    ready; it is not called for cases that were run before. n_workers: how many run at a time.
    """
    runs = folder / "runs"
    runs.mkdir(exist_ok=True)
    tell_of_others(runs, cases, data)
    found = [(case, runs / case.file_name(data)) for case in cases]
    left = [(case, path) for case, path in found if not _is_done(case, path)]
    # The slowest cases go first, so that no worker is alone with one at the end.
    left.sort(key=lambda one: (one[0].config.strategy == "ist", -one[0].clients))
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(n_workers, context, _start_worker, (os.getpid(),)) as pool,
        tqdm(total=len(cases), initial=len(cases) - len(left)) as progress,
    ):
        asked = {}
        try:
            for case, path in left:
                # The first cases run while the embeddings of the next are computed.
                progress.set_description("runs, encoding")
                done = pool.submit(_work, case, embed(case), path)
                done.add_done_callback(lambda run: progress.update(not run.cancelled()))
                asked[done] = case
            progress.set_description("runs")
            failures = [
                f"{asked[done].label}: {done.result()}"
                for done in as_completed(asked)
                if done.result()
            ]
        except KeyboardInterrupt:
            progress.set_description("interrupted: the runs under way are finished")
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [(case, read_curve(path)) for case, path in found if path.exists()], failures


def _is_done(case: Case, path: Path) -> bool:
    """Whether the result of a case is there; a damaged one, or that of another case, is removed."""
    if not os.path.lexists(path):
        return False
    try:
        found = read_curve(path)
        label = (found.dataset, found.partition, found.clients, found.method, found.seed)
        if label == (case.dataset, case.partition, case.clients, case.method, case.config.seed):
            return True
    except InputError:
        pass
    print(f"'{path}' is damaged, so that it is run again.", file=sys.stderr)
    clear(path)
    return False


def _start_worker(parent: int) -> None:
    """Set a worker up.

    It has one thread, as there is a worker for each core, and ends with its parent.
    """
    threadpool_limits(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what becomes of a run

    def end_with_parent() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)  # otherwise a killed command would leave its workers behind

    threading.Thread(target=end_with_parent, daemon=True).start()


def _work(case: Case, files: SharedFiles, path: Path) -> str:
    """Run a case and write its file; returns what is wrong with its settings, or ""."""
    try:
        outcome = run_case(case.config, load_shared(files), case.clients, case.attack)
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
        link_bytes=outcome.link_bytes,
    )
    write_atomic(path, curve.to_json().encode())
    return ""


def configure(base: Mapping[str, Value], *changes: Mapping[str, Value]) -> RunConfig:
    """The configuration of a run: defaults, changed one after the other."""
    values = dict(base)
    for change in changes:
        values |= change
    return parse_config(values)


def answer(work: Callable[[], list[str]], report: Path) -> int:
    """The exit code of a command that prints what could not be run, and the report.

    work: writes the report, and returns sentences on what could not be run. report: the path
    without its suffix; there is a .md and a .html.
    """

    def told() -> int:
        failures = work()
        for failure in failures:
            print(f"not run: {failure}", file=sys.stderr)
        print(report.with_suffix(".md").read_text(encoding="utf-8"))
        print(f"The whole report: {report}.html")
        return 1 if failures else 0

    return exit_code(told, "Interrupted. The same command goes on where this one was.")
