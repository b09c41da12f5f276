"""`fed-ist bench message`: that a message is its steps, and that a process is held back."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT
from typer.testing import CliRunner

from fed_ist.cli.main import cli
from fed_ist.errors import InputError
from sims.benchmarks.cpu_limit import GROUPS, cpu_limit, limits
from sims.benchmarks.message_bench import (
    STEPS,
    LogLine,
    MessageBench,
    figures,
    measure,
    messages_in,
    render,
)

needs_groups = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access(GROUPS, os.W_OK), reason="as root on Linux, with cgroups"
)
STAMP = {
    "moments": {
        "started": [101.0, 0.0],
        "began": [103.0, 1.5],
        "imported": [103.5, 1.75],
        "asked": [104.0, 2.0],
        "answered": [106.0, 4.0],
        "ended": [106.5, 4.25],
    },
    "wall": {"cache": 0.25, "training": 1.75},
    "cpu": {"cache": 0.25, "training": 1.5},
}


def test_a_message_is_its_parts():
    found = figures(STAMP, LogLine("", 100.5, 7.0), LogLine("", 107.0, 7.125))
    steps = [found["seconds"][step] for step in STEPS]
    assert steps == [0.5, 2.0, 0.5, 0.25, 1.75, 0.5, 1.0]
    assert sum(steps) == found["seconds"]["whole"]
    assert list(found["cpu"].values()) == [1.5, 0.25, 1.5, 4.25, 0.125]


def test_only_training_messages_are_read_from_a_nodes_log():
    texts = ["Receiving: query", "Sent successfully", "Receiving: train message", "", "[RUN 1]"]
    texts += ["Sent successfully", "Receiving: train message", "Receiving: train message"]
    log = [LogLine(text, float(i), 0.0) for i, text in enumerate([*texts, "Sent successfully"])]
    assert [(met.at, sent.at) for met, sent in messages_in(log)] == [(2, 5), (7, 8)]


@pytest.mark.parametrize("cores", ["0", "0.04", "half", "1,,1", "2"])
def test_shares_that_are_not_possible_are_one_sentence(cores, tmp_path):
    done = CliRunner().invoke(cli, ["bench", "message", "--cores", cores, "--out", str(tmp_path)])
    assert done.exit_code != 0
    assert f"--cores '{cores}' is not possible" in str(done.exception)


def test_the_age_of_a_process_is_counted_from_its_start():
    code = "from sims.benchmarks.message_app import age_s; print(age_s())"
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT)
    assert 0 < float(done.stdout) < time.monotonic() - began + 0.05


@needs_groups
def test_a_process_in_a_group_has_its_share_of_a_core_and_the_group_goes_away():
    with cpu_limit(0.25) as members:
        busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
        try:
            members.write_text(str(busy.pid))
            process = psutil.Process(busy.pid)
            process.cpu_percent()
            assert 0 < process.cpu_percent(interval=2.0) < 33  # less where others are busy
        finally:
            busy.kill()
            busy.wait()
    assert not members.parent.exists()


@needs_groups
def test_what_still_runs_at_the_end_is_free_again():
    idle = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        with cpu_limit(0.5) as members:
            members.write_text(str(idle.pid))
        assert not members.parent.exists()
        assert idle.poll() is None
    finally:
        idle.kill()
        idle.wait()


def test_both_kinds_of_control_groups_are_told_the_share():
    assert limits(0.25, unified=True) == {"cpu.max": "5000 20000"}
    assert limits(0.25, unified=False)["cpu.cfs_quota_us"] == "5000"
    assert limits(0.01, unified=True) == {"cpu.max": "1000 100000"}


def test_without_groups_one_sentence_says_what_is_needed(tmp_path):
    with (
        pytest.raises(InputError, match="as root on Linux"),
        cpu_limit(0.5, tmp_path / "none"),
    ):
        raise AssertionError("there is no such folder")


@pytest.mark.flower
@pytest.mark.slow
@needs_groups
def test_a_round_on_cached_embeddings_loads_nothing_heavy_and_its_parts_are_all_seen(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    (found,) = measure(MessageBench([1.0], 2, 16, 32, str(tmp_path)))
    assert found["loaded"] == []
    assert all(seconds > 0 for step, seconds in found["seconds"].items())
    outside = found["cpu"]["process"] + found["cpu"]["node"] - found["cpu"]["training"]
    assert 0 < outside < found["seconds"]["whole"]
    assert json.loads(json.dumps(found))["cores"] == 1.0
    assert "| 1 |" in render([found])
    assert render([found]).endswith("pyarrow: none.\n")
    assert not list(Path(GROUPS).glob("*/fed-ist-*"))
