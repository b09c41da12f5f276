"""`fed-ist bench start`: what passes until a simulation's first round."""

import psutil
import pytest
from conftest import ROOT

from fed_ist.errors import InputError
from sims.benchmarks.start_bench import FIGURES, StartBench, measure, render, timed


def test_the_table_ends_with_medians_and_what_passes_after_rays_start():
    turns = [(4.0, 8.0), (5.0, 9.0), (9.0, 12.0)]
    cases = [dict.fromkeys(FIGURES, 20.0) | {"Ray s": r, "fed-ist s": f} for r, f in turns]
    lines = [line for line in render(cases).splitlines() if line.startswith("|")]
    assert lines[-1] == "| median | 5.0 | 20.0 | 9.0 | 20.0 | 4.0 |"
    assert len(lines) == 2 + 3 + 1


def test_a_command_that_fails_is_told_with_the_end_of_its_log(tmp_path):
    command = ["sh", "-c", "echo no such thing; exit 3"]
    with pytest.raises(InputError) as failure:
        timed(command, {}, tmp_path / "log", lambda: False)
    assert str(failure.value) == "'sh' failed. The end of its log:\nno such thing"


def test_a_command_is_timed_until_what_it_is_for_and_until_its_end(tmp_path):
    sign = tmp_path / "sign"
    found, ended = timed(
        ["sh", "-c", f"sleep 0.3; touch {sign}; sleep 0.5"], {}, tmp_path / "log", sign.exists
    )
    assert 0.3 <= found < ended
    assert ended - found >= 0.4


@pytest.mark.flower
@pytest.mark.slow
def test_starts_are_measured_and_leave_no_superlink(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (found,) = measure(StartBench(1, str(tmp_path)))
    assert found["whole s"] > found["fed-ist s"] > 0
    assert min(found["Ray s"], found["flwr s"]) > 0
    words = [word for process in psutil.process_iter(["cmdline"]) for word in process.cmdline()]
    assert not [word for word in words if "fed-ist-start-" in word]
