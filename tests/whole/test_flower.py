"""The whole chain under a real `flwr run`: SuperLink, simulated nodes, results on disk."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
from conftest import HANG_S, ROOT
from programs import fed_ist

from fed_ist.classifier.slices import slice_bytes
from fed_ist.config.parsing import parse_config
from fed_ist.launch.processes import free_port
from fed_ist.runs.reading import read_run
from fed_ist.traffic.codecs import HEADER_BYTES

pytestmark = pytest.mark.flower
NODES = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory, image_folder) -> Path:
    """Images of four classes, two of them damaged, and room for a cache and results."""
    root = tmp_path_factory.mktemp("flower")
    shutil.copytree(image_folder, root / "images")
    (root / "images" / "beach" / "00.jpg").write_bytes(b"damaged")
    (root / "images" / "forest" / "03.jpg").write_bytes(b"")
    return root


def run(place: Path, name: str, *words: str) -> subprocess.CompletedProcess:
    settings = [
        f"dataset={place / 'images'}",
        f"results-dir={place / 'results'}",
        f"cache-dir={place / 'cache'}",
        "hidden-dim=64",
        "num-rounds=4",
        "batch-size=8",
    ]
    options = [word for setting in settings for word in ("--set", setting)]
    # From another folder, as no path may depend on where the command is started.
    return fed_ist(
        "run", "--app", ROOT, "--nodes", NODES, "--name", name, *options, *words, cwd=place
    )


@pytest.fixture(scope="module")
def first(place) -> tuple[subprocess.CompletedProcess, Path]:
    return run(place, "first"), place / "results" / "first"


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with (folder / name).open() as file:
        return list(csv.DictReader(file))


def test_the_run_ends_with_accuracy_bytes_and_an_absolute_path(first):
    done, folder = first
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads((folder / "summary.json").read_text())
    assert f"accuracy    {100 * summary['accuracy']:.2f}%" in done.stdout
    assert re.search(r"bytes down  [\d.]+ [kM]B\nbytes up    [\d.]+ [kM]B", done.stdout)
    assert f"results     {folder}" in done.stdout
    assert done.stdout.splitlines()[-1] == f"report      file://{folder}/report.html"
    told = [line for line in done.stdout.splitlines() if line.startswith("round ")]
    assert [line.split("  ")[0] for line in told] == [f"round {i} of 4" for i in range(5)]
    assert "INFO" not in done.stdout + done.stderr


def test_everything_promised_is_in_the_folder(first):
    _, folder = first
    assert {path.name for path in folder.iterdir()} == {
        "config.toml", "images.json", "rounds.csv", "times.csv", "ledger.csv", "summary.json",
        "model.safetensors", "accuracy.png", "report.html", "report.json", "checksums.json",
        "kept.png", "confusion.csv", "flower.log",
    }  # fmt: skip
    parse_config(tomllib.loads((folder / "config.toml").read_text()))
    summary = json.loads((folder / "summary.json").read_text())
    wanted = (
        "state accuracy best_accuracy loss rounds clients groups embed_dim num_classes "
        "bytes_down bytes_up seconds images_skipped"
    )
    assert set(wanted.split()) <= set(summary)
    assert (summary["clients"], summary["groups"], summary["rounds"]) == (4, 4, 4)


def test_what_images_are_taken_for_agrees_with_the_accuracy_and_the_test_images(first):
    _, folder = first
    run, summary = read_run(folder), json.loads((folder / "summary.json").read_text())
    assert run.confusion.n_images == summary["test_images"]
    assert run.confusion.accuracy == pytest.approx(summary["accuracy"], abs=1e-6)
    assert summary["seconds"] == pytest.approx(sum(row["seconds"] for row in run.rounds))


def test_damaged_images_are_skipped_and_counted(first):
    done, folder = first
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["images_skipped"] == 2
    assert summary["images"] + summary["test_images"] + 2 == 48
    log = (folder / "flower.log").read_text()
    assert log.count("skips an image") + log.count("test image is skipped") == 2
    assert "skipped     2 images that cannot be read" in done.stdout


def test_the_classifier_learns_from_real_images(first):
    accuracy = [float(row["accuracy"]) for row in rows(first[1], "rounds.csv")]
    assert accuracy[-1] > accuracy[0] + 0.2


def test_the_ledger_agrees_with_rounds_summary_and_formula(first):
    _, folder = first
    ledger, rounds = rows(folder, "ledger.csv"), rows(folder, "rounds.csv")
    summary = json.loads((folder / "summary.json").read_text())
    for direction in ("down", "up"):
        lines = [line for line in ledger if line["direction"] == direction]
        total = sum(int(line["message_bytes"]) for line in lines)
        assert total == summary[f"bytes_{direction}"]
        assert total == sum(int(row[f"bytes_{direction}"]) for row in rounds)
        column = f"link_bytes_{direction}"  # of messages both ways
        on_links = sum(int(line[column]) for line in ledger)
        assert total < on_links == summary[column] == sum(int(row[column]) for row in rounds)
        trained = [line for line in lines if line["kind"] == "train"]
        assert len(trained) == 4 * NODES
        # Nodes draw the first slice themselves; a bit tells each of its 64 neurons.
        drawn = [line for line in trained if (line["round"], direction) == ("1", "down")]
        assert {line["payload_bytes"] for line in drawn} <= {str(64 // 8)}
        payload = [int(line["payload_bytes"]) for line in trained if line not in drawn]
        formula = slice_bytes(192, 64, 4, NODES, hidden_layers=1)
        assert all(abs(n - formula) <= 0.01 * formula for n in payload)
    assert all(row["asked"] == row["answered"] == "4" for row in rounds[1:])


def require_same_files(place, *names):
    """Two runs that are the same byte for byte, but for the order in which replies came."""
    one, two = (place / "results" / name for name in names)
    for file in ("rounds.csv", "model.safetensors"):
        assert (one / file).read_bytes() == (two / file).read_bytes(), file
    lines = [sorted((run / "ledger.csv").read_text().splitlines()) for run in (one, two)]
    assert lines[0] == lines[1]


def test_a_second_identical_run_encodes_nothing_and_gives_the_same_bytes(first, place):
    before = {path.name for path in (place / "cache").iterdir()}
    done = run(place, "second")
    assert done.returncode == 0
    assert {path.name for path in (place / "cache").iterdir()} == before
    require_same_files(place, "first", "second")


def test_the_inline_engine_writes_the_same_files_byte_for_byte(first, place):
    done = run(place, "inline", "--engine", "inline")
    assert done.returncode == 0, done.stdout + done.stderr
    require_same_files(place, "first", "inline")
    summaries = [
        json.loads((place / "results" / run / "summary.json").read_text())
        for run in ("first", "inline")
    ]
    assert [s.pop("seconds") > 0 for s in summaries] == [True, True]
    assert [bool(s.pop("checksum")) for s in summaries] == [True, True]  # of the seconds too
    assert summaries[0] == summaries[1]


def test_a_run_is_repeated_from_its_config_alone(first, place):
    done = fed_ist(
        "run", "--app", ROOT, "--preset", place / "results" / "first" / "config.toml",
        "--nodes", NODES, "--name", "third", cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    model = (place / "results" / "third" / "model.safetensors").read_bytes()
    assert model == (place / "results" / "first" / "model.safetensors").read_bytes()


def test_a_name_that_is_taken_is_refused_and_loses_nothing(first, place):
    before = (first[1] / "rounds.csv").read_bytes()
    done = run(place, "first")
    assert (done.returncode, "exists already" in done.stderr) == (2, True)
    assert (first[1] / "rounds.csv").read_bytes() == before


def test_predict_names_class_and_probability(first, place):
    done = fed_ist("predict", first[1], place / "images" / "car-park", cwd=place)
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert len(lines) == 12
    assert all(0.25 <= float(probability) <= 1 for _, _, probability in lines)
    assert sum(name == "car-park" for _, name, _ in lines) >= 8
    done = fed_ist("predict", first[1], place / "images" / "beach" / "00.jpg", cwd=place)
    assert (done.returncode, "skipped: " in done.stderr) == (2, True)


def test_what_only_the_server_finds_wrong_ends_with_code_2_and_frees_the_name(place):
    """That all images of a data set are cut short is known once they are read, inside the run."""
    for name in ("beach", "forest"):
        (place / "damaged" / name).mkdir(parents=True)
        for i in range(4):
            whole = (place / "images" / name / f"{i + 2:02}.jpg").read_bytes()
            (place / "damaged" / name / f"{i}.jpg").write_bytes(whole[:700])
    done = run(place, "bad", "--set", f"dataset={place / 'damaged'}")
    assert done.returncode == 2
    assert "None of the images could be read" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not (place / "results" / "bad").exists()


def test_compare_passes_over_what_is_no_run(first, place):
    (place / "results" / "notes.md").write_text("no run")
    done = fed_ist("table", first[1], place / "results" / "notes.md")
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)
    assert "skipped: " in done.stderr


def test_the_table_of_a_sampled_run_agrees_with_the_formula(first, place):
    assert run(place, "sampled", "--set", "fraction-nodes=0.5").returncode == 0
    done = fed_ist("table", "--markdown", place / "results" / "sampled")
    row = done.stdout.splitlines()[-1].split(" | ")
    assert row[6] == "2"
    down, up, formula = (int(cell.replace(",", "")) for cell in row[9:12])
    assert formula == slice_bytes(192, 64, 4, 2, hidden_layers=1)
    assert up == formula + HEADER_BYTES
    assert down == round((3 * up + 64 // 8) / 4)  # the first of four slices does not travel


def processes_with(text: str) -> list[str]:
    """Command lines of processes that have `text` in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue  # gone, or not ours
    return found


def test_a_terminated_run_keeps_what_it_had_and_leaves_no_process(first, place, tmp_path):
    rounds = place / "results" / "cut" / "rounds.csv"
    command = [str(Path(sys.executable).parent / "fed-ist"), "run", "--app", str(ROOT)]
    config = place / "results" / "first" / "config.toml"
    command += ["--preset", str(config), "--name", "cut", "--set", "num-rounds=5000"]
    environment = os.environ | {"MARK": str(tmp_path)}
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + HANG_S
    while not rounds.exists() or len(rounds.read_text().splitlines()) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.terminate()
    _, told = process.communicate(timeout=HANG_S)
    assert process.returncode == 143
    assert f"Terminated; what the run wrote is in {rounds.parent}" in told
    assert f"fed-ist run --resume {rounds.parent}" in told
    while left := processes_with(f"MARK={tmp_path}"):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)
    done = rows(rounds.parent, "rounds.csv")
    summary = json.loads((rounds.parent / "summary.json").read_text())
    assert abs(summary["rounds"] - int(done[-1]["round"])) <= 1
    assert fed_ist("predict", rounds.parent, place / "images" / "forest" / "00.jpg").returncode == 0


def test_a_run_whose_ray_does_not_start_says_so_at_once(place, monkeypatch):
    nowhere = "/proc/none"
    monkeypatch.setenv("RAY_TMPDIR", nowhere)
    done = run(place, "rayless")
    assert done.returncode == 2
    assert done.stderr.startswith("fed-ist: Ray did not start. The end of its log:")
    assert nowhere in done.stderr
    assert "Traceback" not in done.stderr
    assert not (place / "results" / "rayless").exists()


def test_a_ray_cluster_that_does_not_answer_is_told_at_once(place, monkeypatch):
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    done = run(place, "clusterless")
    assert done.returncode == 2
    assert done.stderr.startswith(f"fed-ist: No Ray answers at RAY_ADDRESS '{address}'. ")
    assert not (place / "results" / "clusterless").exists()


def test_flwr_run_works_by_itself(place):
    """As Flower's own documentation has it, with its own local SuperLink on ports of ours."""
    port = str(free_port())
    environment = os.environ | {
        "FLWR_HOME": str(place / "flwr"),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": port,
        "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    config = (
        f"dataset='{place / 'images'}' results-dir='{place / 'results'}' "
        f"cache-dir='{place / 'cache'}' name='plain' num-rounds=2 hidden-dim=32 strategy='fedavg'"
    )
    try:
        done = subprocess.run(
            ["flwr", "run", ".", "--stream", "--run-config", config],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
        )  # fmt: skip
    finally:
        subprocess.run(["pkill", "-f", f"flower-superlink.*--port {port}"], check=False)
    assert f"results in {place / 'results' / 'plain'}" in done.stdout
    summary = json.loads((place / "results" / "plain" / "summary.json").read_text())
    assert (summary["state"], summary["clients"], summary["groups"]) == ("finished", 2, 1)
