"""What `fed-ist bench` measures is what it says."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from fed_ist.benchmarks.encoding import RATIOS, Overlap, encoding_speed, overlap, write_json
from fed_ist.benchmarks.history import keep_figures
from fed_ist.benchmarks.training import FILES, OURS, OURS_1, PLAIN, PLAIN_1, PRODUCTS
from fed_ist.cli.main import cli
from fed_ist.datasets.data_set import open_all
from fed_ist.encoder.frozen import create_encoder, images_in_step
from fed_ist.encoder.spec import EncoderSpec


def test_every_case_is_measured_beside_timms_forward(tmp_path, monkeypatch):
    monkeypatch.setattr("fed_ist.benchmarks.encoding.ROUNDS", 1)  # a run's batches take seconds
    for batch_size, precisions in ((0, ["fp32"]), (4, ["fp32", "bf16"])):
        specs = [EncoderSpec(precision=precision) for precision in precisions]
        speeds = list(encoding_speed(specs, [batch_size], 0.01))
        wanted = [precision for precision in precisions for _ in RATIOS]
        assert [row.precision for row in speeds] == ["timm", *wanted]
        assert [row.mask_ratio for row in speeds[1:]] == [*RATIOS] * len(specs)
        assert speeds[0].against_timm == 1
        for row in speeds[1:]:
            assert row.images_s > 0
            assert row.against_timm == row.images_s / speeds[0].images_s
            assert row.peak_mb is None or row.peak_mb > 10
            kept = int(64 * (1 - row.mask_ratio))
            assert row.batch_size == (batch_size or images_in_step(kept))
    write_json(tmp_path / "speeds.json", speeds)
    written = json.loads((tmp_path / "speeds.json").read_text())
    assert len(written["speeds"]) == 11
    assert written["machine"]["threads"] >= 1


def test_hidden_is_the_share_of_the_shorter_work_that_took_no_time():
    assert Overlap(1, 2.0, 5.0, 7.0).hidden == 0
    assert Overlap(1, 2.0, 5.0, 5.0).hidden == 1
    assert Overlap(1, 2.0, 5.0, 6.0).hidden == 0.5


def test_the_pipeline_is_measured_on_real_files_and_leaves_none(image_folder, tmp_path):
    found = overlap(open_all(str(image_folder)), create_encoder(EncoderSpec()), 0.5, tmp_path)
    assert found.n_images == 48
    assert min(found.pack_s, found.encode_s, found.both_s) > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_peak_memory_is_of_the_case_not_of_what_came_before(precision):
    ballast = bytearray(400_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])
    del ballast
    rows = list(encoding_speed([EncoderSpec(precision=precision)], [2], 0.01))
    peaks = [row.peak_mb for row in rows if row.peak_mb is not None]
    assert not peaks or max(peaks) - min(peaks) < 300


def test_training_is_paced_against_torch_on_the_same_batches(tmp_path):
    command = [
        "bench",
        "train",
        "--width",
        "16",
        "--layers",
        "1,2",
        "--images",
        "64",
        "--batch-size",
        "16",
        "--out",
    ]
    done = CliRunner().invoke(cli, [*command, str(tmp_path)])
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "train.json").read_text())
    assert json.loads((tmp_path / "history.jsonl").read_text()) == report
    assert [(case["hidden_layers"], case["way"]) for case in report["cases"]] == [
        (layers, way)
        for layers in (1, 2)
        for way in (OURS, OURS_1, PRODUCTS, PLAIN, PLAIN_1, FILES)
    ]
    for case in report["cases"]:
        assert case["epoch_s"] == pytest.approx(4 / case["steps_s"])
        assert (case["difference"] is None) == (case["way"] in (FILES, PRODUCTS))
        assert (case["difference"] or 0) < 1e-5
    fastest = max(case["against_torch"] for case in report["cases"] if "torch loop" in case["way"])
    assert fastest == 1


def test_each_run_of_a_benchmark_is_a_line_of_its_history(tmp_path):
    for number in range(2):
        keep_figures(tmp_path, "train", {"width": number}, [{"steps_s": 1.0}])
    lines = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [line["settings"]["width"] for line in lines] == [0, 1]
    assert json.loads((tmp_path / "train.json").read_text()) == lines[1]
    assert lines[0]["versions"]["numpy"] == np.__version__
