"""The report of a soak: what grew between its settled beginning and its end."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from fed_ist.files.atomic import write_atomic
from fed_ist.words import readable_bytes, table
from sims.benchmarks.process_samples import Sample

SETTLED_ROUND = 50  # caches are full by then, and pools have their size
WINDOW_ROUNDS = 20
MAX_GROWTH = 0.05
MAX_NEW_HANDLES = 3  # connections come and go, a few at a time; a leak goes beyond this
PROCESS_HEADER = (
    *("process", "resident", "then", "growth", "a round"),
    *("own", "then", "threads", "handles"),
)
MAX_DISK_BYTES = 100_000  # a round, all nodes together: a thousand rounds take 0.1 GB


@dataclass(frozen=True)
class Change:
    """The medians of a figure over the rounds of the two windows. rounds: between the two."""

    before: float
    after: float
    rounds: float

    @property
    def share(self) -> float:
        """The growth as a share of what was before."""
        return self.after / self.before - 1

    @property
    def by_round(self) -> float:
        """The growth in a round."""
        return (self.after - self.before) / self.rounds


@dataclass(frozen=True)
class Windows:
    """The samples that are compared: those around the settled round, and the last ones."""

    before: Sequence[Sample]
    after: Sequence[Sample]

    def change(self, of: Callable[[Sample], float]) -> Change:
        """The change of a figure. of: takes it from a sample."""
        rounds = median(s.round for s in self.after) - median(s.round for s in self.before)
        return Change(median(of(s) for s in self.before), median(of(s) for s in self.after), rounds)


def choose_windows(samples: Sequence[Sample]) -> Windows | None:
    """The samples of rounds 40 to 60 and of the last 20; None while these are too few.

    Where a soak has less than 150 rounds, they are those around the end of the first third, and of
    the last third.
    """
    if not samples:
        return None
    last = samples[-1].round
    settled = min(SETTLED_ROUND, last // 3)
    half = max(1, min(WINDOW_ROUNDS, last // 3) // 2)
    before = [s for s in samples if abs(s.round - settled) <= half]
    after = [s for s in samples if s.round > max(last - 2 * half, settled + half)]
    return Windows(before, after) if before and after else None


@dataclass(frozen=True)
class Criterion:
    """A property that a soak is to show. holds: whether it did. found: the figure, in words."""

    name: str
    holds: bool
    found: str


def judge(windows: Windows) -> list[Criterion]:
    """Whether processes last, none is left over, and memory, handles and disk stay in bounds."""
    memory = {role: windows.change(_of(role, "resident_bytes")) for role in _roles(windows)}
    handles = {role: windows.change(_of(role, "handles")) for role in _roles(windows)}
    zombies = windows.change(lambda s: s.zombies)
    disk = windows.change(lambda s: sum(s.disk_bytes.values()))
    most = max(memory, key=lambda role: memory[role].share)
    leak = max(handles, key=lambda role: handles[role].after - handles[role].before)
    n_processes = len(windows.after[-1].processes)  # each leaves one until its next start
    n_new = handles[leak].after - handles[leak].before
    lost = sorted(set(windows.before[0].processes) - set(_roles(windows)))
    return [
        Criterion("all processes last", not lost, f"lost: {', '.join(lost) or 'none'}"),
        Criterion(
            f"resident memory grows by less than {MAX_GROWTH:.0%}",
            memory[most].share < MAX_GROWTH,
            f"at most by {memory[most].share:+.1%} ({most})",
        ),
        Criterion(
            "no open file or socket is left over",
            n_new <= MAX_NEW_HANDLES,
            f"at most {n_new:+g} ({leak})",
        ),
        Criterion(
            "no ended process is left over",
            zombies.after - zombies.before <= n_processes,
            f"{zombies.before:g}, then {zombies.after:g}",
        ),
        Criterion(
            f"the disk takes less than {readable_bytes(MAX_DISK_BYTES)} more a round",
            disk.by_round < MAX_DISK_BYTES,
            f"{readable_bytes(max(0, disk.by_round))} a round",
        ),
    ]


def _of(role: str, what: str) -> Callable[[Sample], float]:
    return lambda sample: float(getattr(sample.processes[role], what))


def _roles(windows: Windows) -> list[str]:
    """The processes that are in all samples of both windows."""
    samples = [*windows.before, *windows.after]
    return [r for r in samples[0].processes if all(r in s.processes for s in samples)]


def render(samples: Sequence[Sample], n_rounds: int, n_nodes: int, ended: str) -> str:
    """The report in Markdown. ended: a sentence on why there are no more samples."""
    lines = [f"# {n_rounds} rounds of {n_nodes} nodes on loopback", "", ended, ""]
    windows = choose_windows(samples)
    if windows is None:
        return "\n".join([*lines, "Too few rounds were sampled to compare any.", ""])
    last, first = samples[-1], samples[0]
    seconds = (last.at_s - first.at_s) / (last.round - first.round)
    lines += [
        f"A round took {seconds:.1f} s. Compared are medians of rounds {_rounds(windows.before)} "
        f"and of rounds {_rounds(windows.after)}.",
        "",
        *(f"- {'holds' if c.holds else 'FAILS'}: {c.name}; {c.found}" for c in judge(windows)),
        "",
        _process_table(windows),
        "",
        "Own: what the process shares with no other. ClientApps are not listed, as each lives for "
        "one message.",
        "",
        _growth_table("on disk", "bytes", windows, lambda s: s.disk_bytes, readable_bytes),
        "",
        _growth_table("table of Flower's database", "rows", windows, lambda s: s.rows, _count),
    ]
    return "\n".join([*lines, ""])


def _rounds(window: Sequence[Sample]) -> str:
    return f"{window[0].round} to {window[-1].round}"


def _process_table(windows: Windows) -> str:
    rows = []
    for role in _roles(windows):
        resident, own, threads, handles = (
            windows.change(_of(role, what))
            for what in ("resident_bytes", "own_bytes", "threads", "handles")
        )
        rows.append(
            (
                role,
                readable_bytes(resident.before),
                readable_bytes(resident.after),
                f"{resident.share:+.1%}",
                f"{resident.by_round / 1000:+.1f} kB",
                readable_bytes(own.before),
                readable_bytes(own.after),
                f"{threads.before:g}, {threads.after:g}",
                f"{handles.before:g}, {handles.after:g}",
            )
        )
    return table(PROCESS_HEADER, rows)


def _growth_table(
    title: str,
    what: str,
    windows: Windows,
    of: Callable[[Sample], dict[str, int]],
    show: Callable[[float], str],
) -> str:
    rows = []
    for name in sorted({name for sample in windows.after for name in of(sample)}):
        change = windows.change(lambda s, name=name: of(s).get(name, 0))  # type: ignore[misc]
        rows.append((name, show(change.before), show(change.after), f"{change.by_round:,.1f}"))
    return table((title, what, "then", "more a round"), rows)


def _count(value: float) -> str:
    return f"{value:,.0f}"


def write_soak(
    out: Path, samples: Sequence[Sample], n_rounds: int, n_nodes: int, ended: str
) -> None:
    """Write soak.json, with all samples, and soak.md to the folder `out`."""
    windows = choose_windows(samples)
    data = {
        "nodes": n_nodes,
        "rounds": n_rounds,
        "ended": ended,
        "criteria": [asdict(criterion) for criterion in judge(windows)] if windows else [],
        "samples": [asdict(sample) for sample in samples],
    }
    write_atomic(out / "soak.json", (json.dumps(data, indent=1) + "\n").encode())
    write_atomic(out / "soak.md", render(samples, n_rounds, n_nodes, ended).encode())
