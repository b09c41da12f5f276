"""Run folders, reports, and predictions."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save

from fed_ist.classifier.layout import init_params
from fed_ist.encoder.frozen import create_encoder
from fed_ist.encoder.spec import EncoderSpec
from fed_ist.errors import InputError
from fed_ist.files.atomic import write_atomic
from fed_ist.reports.accuracy_figure import draw_accuracy
from fed_ist.reports.table import render_table, show_table
from fed_ist.runs.folder import Model, Round, RunFolder
from fed_ist.runs.predict import classify
from fed_ist.runs.reading import open_run
from fed_ist.words import readable_bytes

ENCODER = "vit_mae_patch8_64.aid"
ROUNDS = [
    Round(0, 0.1, 2.3, 500, 400, 1.0, 0, 0, 0, 900, 800),
    Round(1, 0.6, 1.1, 5000, 4000, 0.5, 4, 4, 0, 9000, 8000),
    Round(2, 0.8, 0.6, 5000, 4000, 0.5, 4, 4, 1, 9000, 8000),
]


@pytest.fixture
def model() -> Model:
    return Model(
        params=init_params(192, 16, 3, np.random.default_rng(0)),
        class_names=("dry", "wet <&>", "ice"),
        encoder=ENCODER,
        encoder_weights="random",
        encoder_digest=create_encoder(EncoderSpec(ENCODER, "random")).digest,
        pooling="cls",
        mask="fixed",
        mask_ratio=0.5,
        seed=0,
    )


def test_rounds_are_on_disk_as_soon_as_they_are_added(tmp_path):
    folder = RunFolder(tmp_path, "run")
    for row in ROUNDS:
        folder.add_round(row)
        with (tmp_path / "run" / "rounds.csv").open() as file:
            lines = list(csv.DictReader(file))
        assert lines[-1]["accuracy"] == str(row.accuracy)
        with (tmp_path / "run" / "times.csv").open() as file:
            times = list(csv.DictReader(file))
        assert times[-1] == {"round": str(row.round), "seconds": str(row.seconds)}
    columns = "round accuracy loss bytes_down bytes_up asked answered rejected"
    assert list(lines[0]) == [*columns.split(), "link_bytes_down", "link_bytes_up"]


def test_no_run_is_ever_overwritten(tmp_path):
    RunFolder(tmp_path, "run").add_round(ROUNDS[0])
    before = (tmp_path / "run" / "rounds.csv").read_bytes()
    with pytest.raises(InputError, match=r"exists already.*another --name"):
        RunFolder(tmp_path, "run")
    assert (tmp_path / "run" / "rounds.csv").read_bytes() == before


def test_a_place_that_cannot_hold_results_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"results-dir = .* cannot be written to"):
        RunFolder(tmp_path / "file", "run")


def test_a_failed_write_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "f"
    write_atomic(path, b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_model_is_read_back_as_it_was_written(tmp_path, model):
    RunFolder(tmp_path, "run").write_model(model)
    again = open_run(tmp_path / "run").model
    assert all((again.params[name] == model.params[name]).all() for name in model.params)
    assert {k: v for k, v in vars(again).items() if k != "params"} == {
        k: v for k, v in vars(model).items() if k != "params"
    }


def test_a_model_from_before_there_were_bands_is_one_of_rgb(tmp_path, model):
    extras = {k: v for k, v in vars(model).items() if k not in ("params", "bands", "band_range")}
    data = save(model.params, metadata={"fed-ist": json.dumps(extras)})
    (tmp_path / "model.safetensors").write_bytes(data)
    again = open_run(tmp_path).model
    assert (again.bands, again.band_range) == ("", "")


def test_a_damaged_model_or_no_run_is_one_sentence(tmp_path, model):
    RunFolder(tmp_path, "run").write_model(model)
    path = tmp_path / "run" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(InputError, match="is cut short or not a fed-ist model"):
        _ = open_run(tmp_path / "run").model
    with pytest.raises(InputError, match="is no run with a model"):
        _ = open_run(tmp_path).model
    with pytest.raises(InputError, match=r"no readable summary\.json"):
        _ = open_run(tmp_path).required_summary


def test_the_figure_is_a_png(tmp_path):
    (tmp_path / "a.png").write_bytes(draw_accuracy(ROUNDS, "run"))
    assert Image.open(tmp_path / "a.png").size[0] > 800


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1234, "1.23 kB"), (5.2e9, "5.20 GB"), (3e12, "3000.00 GB")],
)
def test_bytes_are_shown_in_decimal_units(n_bytes, text):
    assert readable_bytes(n_bytes) == text


def test_the_table_compares_bytes_with_the_formula(tmp_path, make_config):
    folder = RunFolder(tmp_path, "x")
    settings = {"dataset": "/data/x.parquet", "mask": "grid", "mask_ratio": 0.5, "strategy": "ist"}
    folder.write_config(make_config(**settings, hidden_dim=1024, hidden_layers=2), 4)
    folder.write_summary(
        {
            "clients": 4, "groups": 4, "asked": 40, "answered": 40, "embed_dim": 192,
            "num_classes": 30, "accuracy": 0.5, "best_accuracy": 0.6,
            "payload_bytes_down": 40 * 491_640, "payload_bytes_up": 40 * 491_640,
            "bytes_down": 20_000_000, "bytes_up": 20_000_000,
        }
    )  # fmt: skip
    table = render_table([open_run(folder.path)])
    cells = table.splitlines()[-1].strip("| ").split(" | ")
    assert cells[:7] == ["x", "x.parquet", "ist", "grid", "0.50", "4", "4"]
    assert cells[7:] == ["50.0%", "60.0%", "491,640", "491,640", "491,640", "40.0"]
    cells = show_table([open_run(folder.path)]).splitlines()[-1].split("  ")
    assert [cell.strip() for cell in cells if cell.strip()] == [
        *("x", "ist", "0.50", "4", "50.0%", "491.64 kB", "491.64 kB", "40.00 MB")
    ]


def test_images_are_classified_and_unreadable_ones_named(tmp_path, model, image_folder):
    (tmp_path / "bad.jpg").write_text("no image")
    skipped: list[str] = []
    paths = [image_folder / "beach", tmp_path / "bad.jpg", tmp_path / "absent.jpg"]
    found = list(classify(model, paths, skipped.append))
    assert [Path(each.name).name for each in found] == [f"{i:02}.jpg" for i in range(12)]
    for each in found:
        assert each.probabilities.shape == (len(model.class_names),)
        assert each.probabilities.sum() == pytest.approx(1, abs=1e-5)
        assert each.truth == ""  # a class that the model does not know
    assert ["bad.jpg" in skipped[0], "absent.jpg" in skipped[1]] == [True, True]


def test_a_model_of_another_encoder_is_refused(tmp_path, model, image_folder):
    other = Model(**(vars(model) | {"encoder_digest": "0" * 64}))
    with pytest.raises(InputError, match="are not those that this model was trained on"):
        list(classify(other, [image_folder], pytest.fail))
