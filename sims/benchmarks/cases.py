"""Runs the cases of a benchmark one after the other, shows each result, and keeps the figures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fed_ist.benchmarks.history import keep_figures
from sims.endings import exit_code

Figures = Mapping[str, Any]


def measure_cases(
    name: str,
    request: Any,
    cases: Iterable[Figures],
    n_cases: int,
    render: Callable[[Sequence[Figures]], str],
) -> int:
    """The exit code of a benchmark's command, once all cases are measured, or one has failed.

    name: of the benchmark. request: a dataclass; its `out` is the folder for NAME.json and
    history.jsonl. cases: the figures of each case, measured as they are taken. render: the figures
    so far as text.
    """
    assert is_dataclass(request) and not isinstance(request, type)
    settings = asdict(request)
    out = Path(settings.pop("out"))
    found: list[Figures] = []

    def work() -> int:
        try:
            for case in tqdm(cases, total=n_cases, unit="run", disable=None):
                found.append(case)
                print(render(found), flush=True)
        finally:
            if found:
                keep_figures(out, name, settings, found)
                print(f"figures  {out / f'{name}.json'}")
        return 0

    return exit_code(work)
