"""Whether a soak sees what it is to see: every lasting process, and growth where there is some."""

import dataclasses
import json
import sqlite3

import pytest
from conftest import ROOT

from sims.benchmarks.process_samples import Sample, Usage, count_bytes, count_rows
from sims.benchmarks.soak import Soak, soak
from sims.benchmarks.soak_report import choose_windows, judge, render

MB = 10**6
OTHER = {"server: SuperLink": Usage(150 * MB, 100 * MB, 4, 20)}


def sample(round_: int, resident: float = 150 * MB, handles: int = 20, disk: int = MB) -> Sample:
    usage = Usage(int(resident), int(resident) - 50 * MB, 4, handles)
    processes = OTHER | {"node 0: SuperNode": usage}
    return Sample(round_, 10.0 * round_, processes, 1, {"logs": disk}, {"run": 1})


def verdicts(samples: list[Sample]) -> list[bool]:
    windows = choose_windows(samples)
    assert windows is not None
    return [criterion.holds for criterion in judge(windows)]


def test_rounds_40_to_60_are_compared_with_the_last_20():
    windows = choose_windows([sample(i) for i in range(500)])
    assert windows is not None
    assert [s.round for s in windows.before] == list(range(40, 61))
    assert [s.round for s in windows.after] == list(range(480, 500))


@pytest.mark.parametrize("n", [3, 4, 5, 29, 60, 149, 150, 160])
def test_the_windows_of_a_short_soak_do_not_overlap(n):
    windows = choose_windows([sample(i) for i in range(n)])
    assert windows is not None
    assert windows.before[-1].round < windows.after[0].round


def test_too_few_samples_are_not_compared():
    assert choose_windows([]) is None
    assert "Too few rounds" in render([sample(0)], 500, 8, "It goes on.")


def test_what_stays_as_it_is_holds():
    assert verdicts([sample(i) for i in range(100)]) == [True] * 5


def test_growth_before_the_settled_round_does_not_count():
    assert verdicts([sample(i, (100 + min(i, 40)) * MB) for i in range(500)])[1]


@pytest.mark.parametrize(
    ("criterion", "grown"),
    [
        (0, lambda i: sample(i) if i < 300 else dataclasses.replace(sample(i), processes=OTHER)),
        (1, lambda i: sample(i, 150 * MB + 20_000 * i)),  # 5.8% from round 50 to 490
        (2, lambda i: sample(i, handles=20 + i // 100)),
        (3, lambda i: dataclasses.replace(sample(i), zombies=i)),
        (4, lambda i: sample(i, disk=200_000 * i)),
    ],
)
def test_a_slow_leak_fails_its_criterion_and_no_other(criterion, grown):
    found = verdicts([grown(i) for i in range(500)])
    assert [i for i, holds in enumerate(found) if not holds] == [criterion]


def test_rows_and_bytes_are_those_on_the_disk(tmp_path):
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("CREATE TABLE empty (x)")
        connection.executemany("INSERT INTO t VALUES (?)", [(1,), (2,)])
    assert count_rows(tmp_path / "a.db") == {"t": 2}
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(bytes(10_000))
    assert 10_000 <= count_bytes(tmp_path / "folder") <= 20_000
    assert count_bytes(tmp_path / "nothing") == 0


@pytest.mark.flower
@pytest.mark.slow
def test_every_lasting_process_is_found_and_the_report_is_written(tmp_path):
    samples = soak(Soak(2, 3, 4.0, str(tmp_path)), ROOT)
    lasting = ["server: SuperLink", "server: SuperExec", "server: ServerApp"]
    lasting += [f"node {i}: {role}" for i in range(2) for role in ("SuperNode", "SuperExec")]
    assert [s.round for s in samples] == [0, 1, 2]
    for one in samples:
        assert sorted(one.processes) == sorted(lasting)
        assert all(usage.resident_bytes > 30 * MB for usage in one.processes.values())
        assert one.disk_bytes["Flower's database"] > 100_000
        assert one.rows["run"] == 1
    report = (tmp_path / "soak.md").read_text()
    assert "All rounds were run." in report
    assert "resident memory grows by less than 5%" in report
    assert len(json.loads((tmp_path / "soak.json").read_text())["samples"]) == 3
