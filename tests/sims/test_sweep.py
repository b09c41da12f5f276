"""The paper's sweep: its cases, what each pass sees, resumption, and what the report says."""

import csv
import io
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image

from clients.node import Node
from fed_ist.classifier.slices import slice_bytes
from fed_ist.cli.main import main as command_line
from fed_ist.comparisons.probe_table import NO_MASK
from fed_ist.comparisons.sweep_figure import draw_sweep
from fed_ist.comparisons.sweep_report import (
    cost_of_clients,
    fixed_in_sweep,
    half_in_sweep,
    make_page,
    write_sweep,
)
from fed_ist.comparisons.sweep_runs import SweepRun, by_cell, render_runs
from fed_ist.config.derive import encoder_spec
from fed_ist.config.toml import read_defaults
from fed_ist.encoder.embeddings import Counts, Embeddings
from fed_ist.errors import InputError
from sims.experiments.shared_embeddings import SharedData, load_shared
from sims.experiments.sweep import PAPER, PaperSweep, count_rounds, list_cases, main, sweep

SMALL = {"encoder-weights": "random", "hidden-dim": 16, "local-steps": 2}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="module")
def request_for(image_folder, work):
    def make(**changes) -> PaperSweep:
        overrides = {"dataset": str(image_folder), "cache-dir": str(work / "cache")} | SMALL
        values = {
            "overrides": overrides | changes.pop("overrides", {}),
            "mask_ratios": [0.0, 0.5],
            "masks": ["random", "fixed"],
            "clients": [1, 2],
            "epochs": 3,
            "n_seeds": 1,
            "limit": 0,
            "out": str(work / "out"),
            "n_workers": 1,
        }
        return PaperSweep(**(values | changes))

    return make


def run_here(request: PaperSweep) -> None:
    """A sweep whose runs are made in this process: to start another one takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sims.experiments.cases.ProcessPoolExecutor", lambda n, *_: ThreadPoolExecutor(n)
        )
        assert sweep(request, ROOT) == []


@pytest.fixture(scope="module")
def finished(request_for) -> Path:
    """The folder of a small sweep."""
    request = request_for()
    run_here(request)
    return Path(request.out)


# --- cases ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "n_images, clients, n_rounds",
    [
        (8500, 1, 200),  # 30 x 133 steps
        (8500, 2, 201),  # 60 x 67
        (8500, 3, 203),  # 90 x 45 = 4050
        (8500, 4, 204),  # 120 x 34
        (27000, 4, 636),  # 120 x 106
        (64, 1, 2),  # 30 x 1
        (65, 1, 3),
    ],
)
def test_rounds_are_as_many_as_the_epochs_take(make_config, n_images, clients, n_rounds):
    config = make_config(batch_size=64, local_steps=20)
    assert count_rounds(config, 30, n_images, clients) == n_rounds


def test_a_round_may_be_of_epochs_too(make_config):
    assert count_rounds(make_config(local_epochs=3), 30, 8500, 4) == 40


def test_every_mask_meets_every_ratio_and_number_of_clients_and_ratio_0_comes_once(request_for):
    base = read_defaults(ROOT / "pyproject.toml") | PAPER
    request = request_for(mask_ratios=[0, 0.1, 0.9], clients=[1, 4], epochs=30, n_seeds=2)
    cases = list_cases(request, base, "aid", 8500)
    assert len({case.file_name("data") for case in cases}) == len(cases) == (1 + 2 * 2) * 2 * 2
    found = {(c.method, c.clients, c.config.seed) for c in cases}
    names = {NO_MASK, "random 0.1", "random 0.9", "fixed 0.1", "fixed 0.9"}
    assert found == {(m, n, seed) for m in names for n in (1, 4) for seed in (0, 1)}
    for case in cases:
        config = case.config
        assert (config.strategy, config.hidden_dim, config.hidden_layers) == ("ist", 1024, 2)
        assert (config.batch_size, config.optimizer, config.learning_rate) == (64, "adam", 1e-3)
        assert (config.local_steps, config.partitioner) == (20, "iid")
        assert config.groups == case.clients
        assert config.num_rounds == {1: 200, 4: 204}[case.clients]


# --- what a pass sees ----------------------------------------------------------------------------


def test_a_mask_per_pass_shows_four_draws_in_turn(make_config):
    labels = np.arange(12) % 3
    counts = Counts(12, 0, 0, 0, 0)
    draws = [
        Embeddings(np.full((12, 2), i, np.float32) + labels[:, None], labels, counts)
        for i in range(4)
    ]
    passes = SharedData(draws, make_config(), 2).passes(None, Node(1, 2, ""), make_config())
    seen = [passes(i) for i in range(6)]
    assert [(values - own[:, None]).mean() for values, own in seen] == [0, 1, 2, 3, 0, 1]
    assert all((own == seen[0][1]).all() and len(own) == 6 for _, own in seen)


def test_embeddings_are_shared_by_runs_and_drawn_anew_for_random_alone(
    finished, request_for, monkeypatch, work
):
    """Nothing is encoded here that the sweep has not encoded."""
    from fed_ist.encoder.frozen import create_encoder
    from sims.experiments.cases import configure
    from sims.experiments.shared_embeddings import embed_shared, open_shared

    monkeypatch.setattr(
        "fed_ist.encoder.frozen.Encoder.encode_all", lambda *_: pytest.fail("encoded again")
    )
    base = read_defaults(ROOT / "pyproject.toml") | PAPER | request_for().overrides
    encoder = create_encoder(encoder_spec(configure(base)), work / "cache")
    images = open_shared(configure(base), 0)
    random, fixed, whole = (
        embed_shared(configure(base, {"mask": mask, "mask-ratio": ratio}), encoder, images)
        for mask, ratio in (("random", 0.5), ("fixed", 0.5), ("fixed", 0.0))
    )
    assert [len(set(files.train)) for files in (random, fixed, whole)] == [4, 1, 1]
    folders = {*random.train, random.test, *fixed.train, fixed.test, *whole.train, whole.test}
    assert {p.parent for p in (work / "cache").rglob("embeddings.npy")} == folders
    assert not list((work / "cache").glob("*.arrow"))
    train = load_shared(random).train
    assert all((one.labels == train[0].labels).all() for one in train)
    assert len({one.values.tobytes() for one in train}) == 4


# --- running -------------------------------------------------------------------------------------


def test_a_cut_sweep_goes_on_where_it_was_and_repeats_nothing(finished, request_for):
    before = {path: path.stat().st_mtime_ns for path in (finished / "runs").iterdir()}
    assert len(before) == (1 + 2) * 2
    lost = finished / "runs" / sorted(path.name for path in before)[-1]
    was = json.loads(lost.read_text())
    lost.unlink()
    (finished / "sweep.md").unlink()
    run_here(request_for())
    after = {path: path.stat().st_mtime_ns for path in (finished / "runs").iterdir()}
    assert {path for path in after if after[path] != before[path]} == {lost}
    again = json.loads(lost.read_text())
    assert {k: v for k, v in again.items() if k not in ("device_seconds", "checksum")} == {
        k: v for k, v in was.items() if k not in ("device_seconds", "checksum")
    }
    assert (finished / "sweep.md").exists()


def test_the_command_gives_the_same_runs_and_a_report(finished, image_folder, work):
    out = work / "by-command"
    words = ["sweep", "paper", image_folder, "--mask-ratio", "0,0.5", "--clients", "2,1"]
    words += ["--epochs", 3, "--workers", 1, "--out", out, "--app", ROOT]
    words += [
        f"--set={key}={value}" for key, value in (SMALL | {"cache-dir": work / "cache"}).items()
    ]
    code = "from fed_ist.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    assert "6/6" in done.stderr
    assert "| 50% | random |" in done.stdout
    assert {p.name for p in out.iterdir()} == {
        "runs", "settings.json", "sweep.csv", "sweep.html", "sweep.md", "sweep.png",
    }  # fmt: skip
    names = sorted(path.name for path in (out / "runs").iterdir())
    assert names == sorted(path.name for path in (finished / "runs").iterdir())
    for name in names:
        ours, theirs = (json.loads((f / "runs" / name).read_text()) for f in (finished, out))
        assert ours.pop("device_seconds") > 0 < theirs.pop("device_seconds")
        assert ours.pop("checksum") and theirs.pop("checksum")  # of the seconds too
        assert ours == theirs
    with (out / "sweep.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["mask"], row["clients"]) for row in rows] == [
        (mask, n) for mask in (NO_MASK, "random", "fixed") for n in ("1", "2")
    ]
    # 40 training images, 3 epochs of one step, or 6 of one by each of two clients.
    assert [row["rounds"] for row in rows[:2]] == ["2", "3"]
    assert (rows[0]["n_train"], rows[0]["n_test"]) == ("43", "5")
    (whole,) = (out / "runs").glob("*-iid-1-none-0-*.json")
    accuracy = json.loads(whole.read_text())["accuracy"]
    assert float(rows[0]["late_deviation"]) == pytest.approx(np.std(accuracy, ddof=1))
    for row in rows:
        formula = slice_bytes(192, 16, 4, int(row["clients"]))
        assert float(row["slice_bytes"]) == formula
        assert formula < float(row["round_bytes"]) < formula + 6000


def test_a_folder_of_other_settings_is_refused_and_so_is_a_damaged_one(finished, request_for):
    with pytest.raises(InputError, match="holds runs with another epochs"):
        sweep(request_for(epochs=4), ROOT)
    with pytest.raises(InputError, match="holds runs with another hidden-dim"):
        sweep(request_for(overrides={"hidden-dim": 8}), ROOT)
    settings = finished / "settings.json"
    whole = settings.read_text()
    settings.write_text("{")
    with pytest.raises(InputError, match=r"settings\.json' is damaged"):
        sweep(request_for(), ROOT)
    settings.write_text(whole)


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"overrides": {"dataset": "/absent"}}, "dataset = '/absent' does not exist"),
        ({"overrides": {"mask": "fixed"}}, "--set mask is not possible here"),
        ({"overrides": {"seed": 3}}, "give --seeds instead"),
        ({"overrides": {"hiden-dim": 3}}, "Did you mean 'hidden-dim'?"),
        ({"overrides": {"hidden-dim": 1}}, "smaller than groups = 2"),
        ({"clients": [44]}, "--clients 44 is more than the 43 training images"),
        ({"limit": 2}, "--limit 2 is fewer than the 4 classes"),
        ({"out": "/proc/x"}, "--out = '/proc/x' cannot be written to"),
    ],
)
def test_bad_input_is_one_sentence(request_for, changes, says, monkeypatch, capsys):
    request = request_for(**changes)
    monkeypatch.setattr(sys, "argv", ["sweep", json.dumps(vars(request))])
    monkeypatch.chdir(ROOT)
    assert main() == 2
    printed, error = capsys.readouterr()
    assert (printed, says in error, error.count("\n")) == ("", True, 1)


@pytest.mark.parametrize(
    "words, says",
    [
        (["--masks", "fixed,stripes"], "Unknown mask 'stripes'. Choose from"),
        (["--mask-ratio", "0,1"], "mask-ratio = 1.0 is not possible"),
        (["--mask-ratio", "half"], "'half' is no number"),
        (["--clients", "0"], "--clients '0' is not possible"),
        (["--set", "x"], "--set x is not possible"),
    ],
)
def test_bad_words_are_refused_before_anything_starts(words, says, monkeypatch, capsys):
    start = ["fed-ist", "sweep", "paper", "scenes", "--out", "/proc/x", "--app", str(ROOT)]
    monkeypatch.setattr(sys, "argv", [*start, *words])
    with pytest.raises(SystemExit, match="2"):
        command_line()
    assert says in capsys.readouterr().err


# --- the report ----------------------------------------------------------------------------------


def run(mask: str, ratio: float, clients: int, accuracy: float, **changes) -> SweepRun:
    values = {
        "seed": 0, "rounds": 200, "best_accuracy": accuracy + 0.01, "late_deviation": 0.008,
        "round_bytes": 5100.0 / clients, "slice_bytes": 5000.0 / clients,
        "device_seconds": 1.5, "device_flops": 4e9 / clients, "n_train": 8000, "n_test": 10_000,
    }  # fmt: skip
    return SweepRun(
        mask=mask, mask_ratio=ratio, clients=clients, final_accuracy=accuracy, **(values | changes)
    )


RUNS = [
    run("random", 0.5, 1, 0.78), run("random", 0.5, 4, 0.72), run("random", 0.9, 1, 0.60),
    run("fixed", 0.5, 1, 0.77), run("fixed", 0.5, 4, 0.66), run("fixed", 0.9, 1, 0.60),
    run(NO_MASK, 0.0, 1, 0.80), run(NO_MASK, 0.0, 4, 0.75),
]  # fmt: skip
SETTINGS = {
    "dataset": "/data/<aid>.parquet", "encoder": "vit", "hidden-layers": 2, "hidden-dim": 1024,
    "local-steps": 20, "local-epochs": 3, "partitioner": "iid", "batch-size": 64,
    "optimizer": "adam", "learning-rate": 0.001, "epochs": 30,
}  # fmt: skip


def test_fixed_is_held_against_random_by_clients_and_where_it_is_worse_in_full():
    # Two errors: 2 sqrt(0.77 0.23 / 1e4 + 0.78 0.22 / 1e4) is 1.18 points.
    assert fixed_in_sweep(by_cell(RUNS)) == [
        "Fixed is no worse than random, as far as this tells, in 2 of 3 comparisons, of each ratio "
        "with each number of clients.",
        "1 client: fixed minus random is -0.5 points on average of 2, from -1.0 (50% dropped) to "
        "+0.0 (90% dropped); beyond the noise it is below 0 in 0 of them and above in 0.",
        "4 clients: fixed minus random is -6.0 points (50% dropped), beyond the noise of 1.3.",
        "4 clients, 50% dropped: fixed 66.0%, random 72.0%. The difference is -6.0 points, the "
        "noise 1.3; it is beyond the noise: fixed is worse, and the finding does not hold.",
    ]
    assert fixed_in_sweep(by_cell(RUNS[:3]))[0].startswith("Not measured: sweep fixed and")


def test_half_is_held_against_the_whole():
    found = half_in_sweep(by_cell(RUNS))
    # 78/80, 72/75, 77/80, 66/75
    assert found[0] == "Half of the image keeps 88.0% to 97.5% of the accuracy, 94.4% on average."
    assert found[1].startswith("random, 1 client: 78.0% with half of the image, 80.0% with the")
    assert "keeps 97.5% of the accuracy" in found[1]
    assert [said.split(":")[0] for said in found[1:]] == [
        "random, 1 client", "random, 4 clients", "fixed, 1 client", "fixed, 4 clients",
    ]  # fmt: skip
    assert found[4].endswith("beyond the noise: half the image does not suffice.")
    assert half_in_sweep(by_cell(RUNS[:6])) == ["Not measured: sweep the ratios 0 and 0.5."]


def test_more_clients_are_held_against_the_fewest():
    accuracy, cost = cost_of_clients(by_cell(RUNS))
    assert accuracy == (
        "4 clients instead of 1: the accuracy differs by -7.3 points on average of 3, from -11.0 "
        "(fixed, 50% dropped) to -5.0 (nothing dropped); beyond the noise it is below 0 in 3 of "
        "them and above in 0."
    )
    assert cost == (
        "4 clients instead of 1: a slice has 1.25 kB by formula instead of 5.00 kB; the messages "
        "of a round with a client, measured one way, have 1.27 kB instead of 5.10 kB, 25.0%. In "
        "the whole run a client makes 25.0% of the multiply-adds."
    )
    alone = [one for one in RUNS if one.clients == 1]
    assert cost_of_clients(by_cell(alone)) == ["Not measured: sweep two numbers of clients."]


def test_the_table_has_ratio_by_mask_by_clients_and_means_over_seeds():
    seeds = [run("fixed", 0.9, 1, 0.62, seed=1)]
    report = make_page(SETTINGS, [*RUNS, *seeds], b"")
    table = report.sections[1]
    assert table.header == ("dropped", "mask", "1 client", "4 clients")
    assert table.texts == (
        ("0%", "any", "80.0% (81.0%)", "75.0% (76.0%)"),
        ("50%", "random", "78.0% (79.0%)", "72.0% (73.0%)"),
        ("50%", "fixed", "77.0% (78.0%)", "66.0% (67.0%)"),
        ("90%", "random", "60.0% (61.0%)", ""),
        ("90%", "fixed", "61.0% ± 1.4 (62.0% ± 1.4)", ""),
    )
    assert "Means of 2 seeds" in report.notes[1]
    assert "pass i sees draw i modulo 4" in report.notes[2]
    assert "the last 10 rounds by a standard deviation of 0.8 points" in report.notes[3]
    assert "drawn anew" not in str(make_page(SETTINGS, RUNS[3:], b"").notes)


def test_the_report_is_four_files_and_the_page_needs_nothing_else(tmp_path):
    write_sweep(SETTINGS, RUNS, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "sweep.csv", "sweep.html", "sweep.md", "sweep.png",
    ]  # fmt: skip
    text = (tmp_path / "out" / "sweep.md").read_text()
    for part in (
        "](sweep.png)\n\n### Accuracy\n\n| dropped | mask | 1 client |",
        "| 50% | fixed | 77.0% (78.0%) | 66.0% (67.0%) |",
        "### What do more clients cost?\n\n- 4 clients instead of 1",
    ):
        assert part in text
    page = (tmp_path / "out" / "sweep.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)|https?://|url\(|@import|<aid>", page)
    assert page.count("<script") == 1  # ours, which sorts tables
    assert page.count('<table class="sortable">') == 1
    with pytest.raises(InputError, match="no run to report on"):
        write_sweep(SETTINGS, [], tmp_path)


def test_the_csv_file_has_a_line_a_run():
    (line,) = csv.DictReader(io.StringIO(render_runs(RUNS[:1])))
    assert line == {name: str(value) for name, value in vars(RUNS[0]).items()}


@pytest.mark.parametrize("runs", [RUNS[-1:], RUNS, [*RUNS, run("fixed", 0.9, 1, 0.7, seed=1)]])
def test_the_figure_is_a_png_whatever_was_run(runs):
    image = Image.open(io.BytesIO(draw_sweep(by_cell(runs))))
    assert image.format == "PNG"
    assert image.size[0] > 800
