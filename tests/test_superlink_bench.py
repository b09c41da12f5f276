"""`fed-ist bench superlink`, and what all benchmarks of cases keep of theirs."""

import json

import pytest
from conftest import ROOT
from typer.testing import CliRunner

from fed_ist.cli import cli
from fed_ist.errors import InputError
from sims.bench_cases import measure_cases
from sims.superlink_bench import FIGURES, Reading, Request, measure, render

CASE = {"nodes": 4, **dict.fromkeys(FIGURES, 1.5)}


def until_it_fails(error):
    yield CASE
    raise error


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [(InputError("No."), 2, "fed-ist: No.\n"), (KeyboardInterrupt(), 130, "Interrupted.\n")],
)
def test_what_was_measured_before_a_failure_is_kept(error, code, told, tmp_path, capsys):
    request = Request([4, 16], 1, 1.0, str(tmp_path))
    assert measure_cases("superlink", request, until_it_fails(error), 2, render) == code
    printed = capsys.readouterr()
    assert "| 4 | 1.5 | 1.5 |" in printed.out
    assert told in printed.err
    report = json.loads((tmp_path / "superlink.json").read_text())
    assert report["cases"] == [CASE]
    assert report["settings"] == {"n_nodes": [4, 16], "n_rounds": 1, "idle_s": 1.0}
    assert len((tmp_path / "history.jsonl").read_text().splitlines()) == 1


def test_only_the_named_processes_count_between_two_readings():
    before = Reading(10.0, {"SuperLink": 1.0, "SuperExec": 5.0}, 100)
    after = Reading(70.0, {"SuperLink": 1.5, "SuperExec": 9.0, "ServerApp": 2.0}, 160)
    assert after.since(before, ["SuperLink", "ServerApp"]) == (60.0, 2.5, 60)


def test_too_few_nodes_are_one_sentence(tmp_path):
    done = CliRunner().invoke(cli, ["bench", "superlink", "--nodes", "1", "--out", str(tmp_path)])
    assert done.exit_code != 0
    assert "--nodes '1' is not possible" in str(done.exception)


@pytest.mark.flower
@pytest.mark.slow
def test_waiting_nodes_and_rounds_cost_something(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (found,) = measure(Request([2], 1, 5.0, str(tmp_path)))
    assert found["nodes"] == 2
    assert all(found[name] > 0 for name in FIGURES)
