"""Many runs over the same embeddings, and the command that compares methods."""

import json
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from conftest import HANG_S, ROOT

from fed_ist.comparisons.curves import read_curve
from fed_ist.config.toml import read_defaults
from fed_ist.errors import InputError
from sims.experiments.attackers import Attack
from sims.experiments.case_files import Case
from sims.experiments.cases import require_same
from sims.experiments.compare import METHODS, Comparison, compare, list_cases

ANCHORED = "ist + anchor"


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
            "methods": [ANCHORED, "fedavg", "fed3r"],
            "n_seeds": 2,
            "limit": 0,
            "out": str(tmp_path / "out"),
            "n_workers": 1,
        }
        return Comparison(**(settings | changes))

    return make


def test_every_method_meets_every_setting_with_every_seed(request_for):
    base = read_defaults(ROOT / "pyproject.toml")
    request = request_for(
        clients=[4, 64], partitions=["iid", "dirichlet(0.3)"], methods=[], n_seeds=3
    )
    cases = list_cases(request, base | request.overrides, "images")
    assert len(cases) == len({case.file_name("data") for case in cases}) == 2 * 2 * 3 * len(METHODS)
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


def run_here(request: Comparison) -> None:
    """A comparison whose runs are made in this process: to start another one takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sims.experiments.cases.ProcessPoolExecutor", lambda n, *_: ThreadPoolExecutor(n)
        )
        assert compare(request, ROOT) == []


def files_in(request):
    return {path.name: path.stat().st_mtime_ns for path in Path(request.out, "runs").iterdir()}


def test_a_changed_method_is_run_again_and_the_old_result_left_alone(
    request_for, monkeypatch, capsys
):
    request = request_for(clients=[2], n_seeds=1, methods=["fed3r", "fedncm"])
    run_here(request)
    before = files_in(request)
    assert "older result" not in capsys.readouterr().err
    monkeypatch.setitem(METHODS, "fed3r", {"strategy": "fed3r", "statistics-codec": "fp16"})
    run_here(request)
    after = files_in(request)
    assert len(after) == 3
    assert {name: after[name] for name in before} == before
    assert "1 older result in" in capsys.readouterr().err
    curve, fewer = (
        read_curve(Path(request.out, "runs", name)).bytes[-1]
        for names in (before, after.keys() - before.keys())
        for name in names
        if "fed3r" in name
    )
    assert fewer < curve
    report = (Path(request.out) / "compare.csv").read_text()
    assert str(fewer) in report
    assert str(curve) not in report  # of this request alone


def test_images_that_have_changed_are_not_served_old_results(request_for, image_folder, tmp_path):
    images = shutil.copytree(image_folder, tmp_path / "images")
    request = request_for(
        overrides={"dataset": str(images)}, clients=[2], n_seeds=1, methods=["fedncm"]
    )
    run_here(request)
    before = files_in(request)
    sorted(images.rglob("*.jpg"))[0].unlink()
    run_here(request)
    assert len(files_in(request)) == 2
    assert before.items() <= files_in(request).items()


def test_results_of_a_folder_from_before_their_names_told_all_are_not_served(
    request_for, image_folder, capsys
):
    request = request_for(clients=[2], n_seeds=1, methods=["fedncm"])
    runs = Path(request.out, "runs")
    runs.mkdir(parents=True)
    (runs / f"{image_folder.name}-iid-2-fedncm-0.json").write_text("of another time")
    run_here(request)
    assert "1 older result in" in capsys.readouterr().err
    assert len(files_in(request)) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_dim": 9}, {"anchor": "ridge"}, {"learning_rate": 2e-3}, {"mask_ratio": 0.4},
        {"seed": 1}, {"pooling": "avg"}, {"precision": "bf16"},
    ],
    ids=str,
)  # fmt: skip
def test_every_setting_is_in_the_name_of_a_result(make_config, changes):
    one, other = (Case("a", "iid", 4, "ist", make_config(**c)) for c in ({}, changes))
    assert one.file_name("data") != other.file_name("data")


def test_attackers_and_images_are_in_the_name_of_a_result_and_places_are_not(make_config):
    case = Case("a", "iid", 4, "ist", make_config())
    attacked = replace(case, attack=Attack(1, flips=True))
    assert case.file_name("data") != case.file_name("other data")
    assert case.file_name("d") != attacked.file_name("d")
    moved = make_config(results_dir="/r", cache_dir="/c", name="n", dataset="/d", resume=True)
    assert case.file_name("d") == Case("a", "iid", 4, "ist", moved).file_name("d")


def test_ist_sends_less_than_fedavg_and_the_closed_form_least(request_for):
    request = request_for(clients=[3], n_seeds=1)
    compare(request, ROOT)
    found = [read_curve(path) for path in Path(request.out, "runs").iterdir()]
    curves = {curve.method: curve for curve in found}
    assert len(curves["fed3r"].bytes) == 1
    assert len(curves["fedavg"].bytes) == 2  # the untrained classifier is no result
    assert len(curves[ANCHORED].bytes) == 3  # its ridge head is one
    # The statistics are the same in both; beyond them the closed form sends nothing.
    assert curves["fed3r"].bytes[0] == curves[ANCHORED].bytes[0]
    assert curves["fedavg"].device_flops == pytest.approx(
        3 * curves[ANCHORED].device_flops, rel=0.1
    )
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
        ({"methods": ["magic"]}, "Unknown method 'magic'. Choose from, separated by ';': smallest"),
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
        [sys.executable, "-m", "sims.experiments.compare", json.dumps(vars(request))],
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
    command = [sys.executable, "-m", "sims.experiments.compare", json.dumps(vars(request))]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    runs = Path(request.out, "runs")
    deadline = time.monotonic() + HANG_S
    while not list(runs.glob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    process.send_signal(how)
    _, told = process.communicate(timeout=HANG_S)
    assert process.returncode == code
    assert "Traceback" not in told
    _, alive = psutil.wait_procs(workers, timeout=HANG_S)
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
