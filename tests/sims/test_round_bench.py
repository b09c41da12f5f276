"""`fed-ist bench round`: that its figures are of what they say, and its files."""

import json

import numpy as np
import pytest
from conftest import ROOT
from typer.testing import CliRunner

from clients.app import create_app
from fed_ist.cli.main import cli
from fed_ist.launch.bundle import slim_app
from sims.benchmarks.round_bench import COMPONENTS, ratios, render
from sims.benchmarks.round_data import DrawnData, share_of, write_examples
from sims.benchmarks.round_steps import FLOWER, STEPS, plain_round, timed_rounds
from sims.benchmarks.stopwatch import Stopwatch
from sims.local_grid import LocalGrid

SECONDS = {
    "flower": dict.fromkeys(STEPS, 0.01) | {"round": 0.3},
    "empty": {"round": 0.05},
    "fedavg": {"round": 0.6},
    "inline": {"round": 0.22},
    "plain": {"round": 0.2},
}


def test_a_part_within_another_counts_for_itself_alone():
    now = 0
    watch = Stopwatch(lambda: now)
    with watch.on("outer"):
        now = 1
        with watch.on("inner"):
            now = 11
        now = 13
        with watch.on("inner"):
            now = 33
    assert watch.take() == {"outer": 1 + 2, "inner": 10 + 20}
    assert watch.take() == {}


def test_nodes_have_equal_parts_of_what_was_drawn_and_none_twice(tmp_path):
    write_examples(tmp_path, 24)
    shares = [share_of(number, 3, tmp_path) for number in range(3)]
    assert [len(labels) for _, labels in shares] == [8, 8, 8]
    assert len({row.tobytes() for values, _ in shares for row in values}) == 24


@pytest.fixture
def drawn(make_config, tmp_path):
    write_examples(tmp_path, 8 * 16)
    return make_config(dataset=str(tmp_path), hidden_dim=32, num_rounds=3, local_steps=2)


def test_a_round_is_its_parts(drawn, tmp_path):
    grid = LocalGrid(create_app(DrawnData()), drawn, range(1, 9))
    found = timed_rounds(grid, drawn, tmp_path, 1)
    assert all(found[step] > 0 for step in STEPS if step != FLOWER)
    # Of two rounds the median is the mean, so that nothing is lost or counted twice.
    assert sum(found[step] for step in STEPS) == pytest.approx(found["round"], rel=1e-9)
    assert plain_round(drawn, 8)["round"] > 0


def test_ratios_of_a_worked_example():
    found = ratios(SECONDS)
    assert list(found.values()) == pytest.approx([0.3 / 0.25, 0.5, 1.1])


def test_where_fedavg_takes_too_long_the_report_has_a_dash():
    seconds = {way: steps for way, steps in SECONDS.items() if way != "fedavg"}
    case = {"nodes": 1024, "cores": 2, "seconds": seconds, "ratios": ratios(seconds)}
    assert "| 1024 | 300 | - | 50 | 220 | 200 | 1.20 | - | 1.10 |" in render([case])


def test_the_report_shows_milliseconds_and_ratios():
    case = {"nodes": 4, "cores": 2, "seconds": SECONDS, "ratios": ratios(SECONDS)}
    assert "| 4 | 300 | 600 | 50 | 220 | 200 | 1.20 | 0.50 | 1.10 |" in render([case])


@pytest.mark.parametrize("nodes", ["0", "two", "2,,4", "2000"])
def test_numbers_of_nodes_that_are_not_possible_are_one_sentence(nodes, tmp_path):
    done = CliRunner().invoke(cli, ["bench", "round", "--nodes", nodes, "--out", str(tmp_path)])
    assert done.exit_code != 0
    assert f"--nodes '{nodes}' is not possible" in str(done.exception)


def test_the_bench_app_has_the_settings_of_a_run():
    with slim_app(ROOT, COMPONENTS) as app:
        assert "mask-ratio" in (app / "pyproject.toml").read_text()


@pytest.mark.flower
def test_the_command_measures_rounds_on_flower_and_beside_it(tmp_path):
    options = ["--nodes=2", "--rounds=2", "--images=8", "--hidden-dim=32", "--local-steps=2"]
    command = ["bench", "round", *options, "--app", str(ROOT), "--out", str(tmp_path)]
    done = CliRunner().invoke(cli, command)
    assert done.exit_code == 0
    (case,) = json.loads((tmp_path / "round.json").read_text())["cases"]
    assert case["nodes"] == 2
    rounds = {way: seconds["round"] for way, seconds in case["seconds"].items()}
    assert set(rounds) == {"flower", "empty", "fedavg", "inline", "plain"}
    assert all(np.isfinite(seconds) and seconds > 0 for seconds in rounds.values())
