"""`fed-ist bench superlink`, and what all benchmarks of cases keep of theirs."""

import json
import signal
import subprocess
import sys

import psutil
import pytest
from conftest import ROOT
from typer.testing import CliRunner

from fed_ist.cli.main import cli
from fed_ist.errors import InputError
from sims.benchmarks.cases import measure_cases
from sims.benchmarks.superlink import FIGURES, ServerUsage, SuperlinkBench, measure, render

CASE = {"nodes": 4, **dict.fromkeys(FIGURES, 1.5)}


def until_it_fails(error):
    yield CASE
    raise error


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [(InputError("No."), 2, "fed-ist: No.\n"), (KeyboardInterrupt(), 130, "Interrupted.\n")],
)
def test_what_was_measured_before_a_failure_is_kept(error, code, told, tmp_path, capsys):
    request = SuperlinkBench([4, 16], 1, 1.0, str(tmp_path))
    assert measure_cases("superlink", request, until_it_fails(error), 2, render) == code
    printed = capsys.readouterr()
    assert "| 4 | 1.5 | 1.5 |" in printed.out
    assert told in printed.err
    report = json.loads((tmp_path / "superlink.json").read_text())
    assert report["cases"] == [CASE]
    assert report["settings"] == {"n_nodes": [4, 16], "n_rounds": 1, "idle_s": 1.0}
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 1


def test_only_the_named_processes_count_between_two_readings():
    before = ServerUsage(10.0, {"SuperLink": 1.0, "SuperExec": 5.0}, 100)
    after = ServerUsage(70.0, {"SuperLink": 1.5, "SuperExec": 9.0, "ServerApp": 2.0}, 160)
    assert after.since(before, ["SuperLink", "ServerApp"]) == (60.0, 2.5, 60)


@pytest.mark.parametrize("nodes", ["1", "4,5000"])
def test_too_few_and_too_many_nodes_are_one_sentence(nodes, tmp_path):
    done = CliRunner().invoke(cli, ["bench", "superlink", "--nodes", nodes, "--out", str(tmp_path)])
    assert done.exit_code != 0
    assert f"--nodes '{nodes}' is not possible" in str(done.exception)


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_experiment_is_told_to_end_and_its_command_ends_with_it(how, code, tmp_path):
    """Whoever is told, a terminal's whole group or the command alone."""
    (tmp_path / "endless.py").write_text(
        "import sys, time\n"
        "print('began', flush=True)\n"
        "try:\n    time.sleep(600)\n"
        "except KeyboardInterrupt:\n    sys.exit(130)\n"
    )
    call = f"run_module(Path({str(tmp_path)!r}), 'endless', {{}})"
    words = "import sys\nfrom pathlib import Path\nfrom fed_ist.launch.processes import run_module"
    command = [sys.executable, "-c", f"{words}\nsys.exit({call})"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "began\n"
    (child,) = psutil.Process(process.pid).children()
    process.send_signal(how)
    assert process.wait(30) == code
    assert not child.is_running()


@pytest.mark.flower
@pytest.mark.slow
def test_waiting_nodes_and_rounds_cost_something(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (found,) = measure(SuperlinkBench([2], 1, 5.0, str(tmp_path)))
    assert found["nodes"] == 2
    assert all(found[name] > 0 for name in FIGURES)
