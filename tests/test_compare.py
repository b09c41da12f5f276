"""Many runs over the same embeddings, and the command that compares methods."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import ROOT

from fed_ist.config import read_defaults
from fed_ist.curves import read_curve
from fed_ist.errors import InputError
from sims.cases import require_same
from sims.compare import CHOSEN, METHODS, Request, compare, list_cases


@pytest.fixture
def request_for(image_folder, tmp_path):
    def make(**changes):
        overrides = {
            "dataset": str(image_folder),
            "encoder-weights": "random",
            "cache-dir": str(tmp_path / "cache"),
            "hidden-dim": 16,
            "num-rounds": 2,
        }
        settings = {
            "overrides": overrides | changes.pop("overrides", {}),
            "clients": [2, 3],
            "partitions": ["iid"],
            "methods": [CHOSEN, "fedavg", "fed3r"],
            "n_seeds": 2,
            "limit": 0,
            "out": str(tmp_path / "out"),
            "n_workers": 1,
        }
        return Request(**(settings | changes))

    return make


def test_every_method_meets_every_setting_with_every_seed(request_for):
    base = read_defaults(ROOT / "pyproject.toml")
    request = request_for(
        clients=[4, 64], partitions=["iid", "dirichlet(0.3)"], methods=[], n_seeds=3
    )
    cases = list_cases(request, base | request.overrides, "images")
    assert len(cases) == len({case.file_name for case in cases}) == 2 * 2 * 3 * len(METHODS)
    assert {case.config.seed for case in cases} == {0, 1, 2}
    groups = {case.clients: case.config.groups for case in cases if case.method == "ist"}
    assert groups == {4: 4, 64: 8}
    alphas = {c.config.partition_alpha for c in cases if c.config.partitioner == "dirichlet"}
    assert alphas == {0.3}


def test_a_cut_comparison_goes_on_where_it_was_and_repeats_nothing(request_for):
    request = request_for()
    assert compare(request, ROOT) == []
    runs = Path(request.out, "runs")
    before = {path: path.stat().st_mtime_ns for path in runs.iterdir()}
    assert len(before) == 2 * 3 * 2
    lost = sorted(before)[0]
    was = read_curve(lost)
    lost.unlink()
    (Path(request.out) / "compare.md").unlink()
    assert compare(request, ROOT) == []
    after = {path: path.stat().st_mtime_ns for path in runs.iterdir()}
    assert {path for path in after if after[path] != before[path]} == {lost}
    again = read_curve(lost)
    assert (again.bytes, again.accuracy) == (was.bytes, was.accuracy)
    report = (Path(request.out) / "compare.md").read_text()
    assert "iid, 2 clients" in report
    assert all(f"| {method} | 2 |" in report for method in request.methods)
    with pytest.raises(InputError, match="holds runs with another hidden-dim"):
        compare(request_for(overrides={"hidden-dim": 8}), ROOT)


def test_ist_sends_less_than_fedavg_and_the_closed_form_least(request_for):
    request = request_for(clients=[3], n_seeds=1)
    compare(request, ROOT)
    found = [read_curve(path) for path in Path(request.out, "runs").iterdir()]
    curves = {curve.method: curve for curve in found}
    assert len(curves["fed3r"].bytes) == 1
    assert len(curves["fedavg"].bytes) == 2  # the untrained classifier is no result
    assert len(curves[CHOSEN].bytes) == 3  # its ridge head is one
    # The statistics are the same in both; beyond them the closed form sends nothing.
    assert curves["fed3r"].bytes[0] == curves[CHOSEN].bytes[0]
    assert curves["fedavg"].device_flops == pytest.approx(3 * curves[CHOSEN].device_flops, rel=0.1)
    assert curves["fedavg"].bytes[-1] > curves["fedavg"].bytes[0]


def test_variants_alone_are_reported_too(request_for):
    request = request_for(clients=[2], n_seeds=1, methods=["ist"])
    assert compare(request, ROOT) == []
    assert "| ist | 1 |" in (Path(request.out) / "compare.md").read_text()


def test_the_narrow_fedavg_has_as_many_neurons_as_a_slice(request_for):
    base = read_defaults(ROOT / "pyproject.toml") | {"hidden-dim": 96}
    request = request_for(clients=[3, 16], methods=["fedavg, narrow"], n_seeds=1)
    cases = list_cases(request, base, "images")
    assert [case.config.hidden_dim for case in cases] == [32, 12]


def test_what_cannot_be_run_is_told_and_does_not_stop_the_rest(request_for):
    """48 images cannot be shared by 60 clients, but by 2."""
    failures = compare(request_for(clients=[2, 60], n_seeds=1, methods=["fed3r"]), ROOT)
    assert len(failures) == 1
    assert "60" in failures[0]
    assert (Path(request_for().out) / "compare.html").exists()


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"methods": ["magic"]}, "Unknown method 'magic'. Choose from, separated by ';': ist"),
        ({"partitions": ["odd"]}, "Unknown partition 'odd'. Choose from: dirichlet"),
        ({"overrides": {"dataset": "/absent"}}, "/absent"),
        ({"overrides": {"anchor": "lead"}}, "the comparison sets it itself"),
        ({"overrides": {"norm": "odd"}}, "Unknown norm 'odd'"),
        ({"clients": [60]}, "No run was possible. The first: "),
        ({"limit": 2}, "--limit 2 is fewer than the 4 classes"),
    ],
)
def test_bad_input_is_one_sentence(request_for, changes, says):
    request = request_for(**changes)
    done = subprocess.run(
        [sys.executable, "-m", "sims.compare", json.dumps(vars(request))],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("how, code", [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_interrupted_command_keeps_what_it_had_and_leaves_no_process(request_for, how, code):
    request = request_for(overrides={"num-rounds": 200}, n_workers=2)
    command = [sys.executable, "-m", "sims.compare", json.dumps(vars(request))]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    runs = Path(request.out, "runs")
    deadline = time.monotonic() + 120
    while not list(runs.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.send_signal(how)
    _, told = process.communicate(timeout=120)
    assert process.returncode == code
    assert "Traceback" not in told
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert alive == []
    kept = [read_curve(path) for path in runs.glob("*.json")]
    assert 1 <= len(kept) < 12
    if how == signal.SIGINT:
        assert not list(runs.glob(".*"))  # nothing half-written


def test_a_folder_without_settings_gets_them(tmp_path):
    require_same(tmp_path / "new", {"seed": 0})
    require_same(tmp_path / "new", {"seed": 0})
    with pytest.raises(InputError, match="another seed"):
        require_same(tmp_path / "new", {"seed": 1})
