"""How often a model is right, and what it takes for what, where the images' classes are known."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from fed_ist.classifier.layout import init_params
from fed_ist.cli.main import cli
from fed_ist.encoder.frozen import create_encoder
from fed_ist.encoder.spec import EncoderSpec
from fed_ist.runs.confusion import (
    Confusion,
    confusion_csv,
    confusion_of,
    parse_confusion,
)
from fed_ist.runs.folder import Model, RunFolder

NAMES = st.sampled_from(["beach", "field", "forest", "ice"])


@given(st.lists(st.tuples(NAMES, NAMES), min_size=1))
def test_rows_count_each_image_once_and_agree_with_the_accuracy(pairs):
    confusion = Confusion()
    for truth, found in pairs:
        confusion.add(truth, found)
    rows = confusion.rows()
    assert sum(n for _, n, _, _ in rows) == confusion.n_images == len(pairs)
    n_right = sum(truth == found for truth, found in pairs)
    assert confusion.accuracy == pytest.approx(n_right / len(pairs))
    assert sum(n * share for _, n, share, _ in rows) == pytest.approx(n_right)


def test_wrong_classes_are_named_the_most_frequent_first():
    confusion = Confusion()
    for found in ("ice", "field", "field", "beach", "forest", "ice", "field"):
        confusion.add("forest", found)
    assert confusion.rows(2) == [("forest", 7, 1 / 7, "field 3, ice 2")]


@given(st.lists(st.tuples(NAMES, NAMES), min_size=1))
def test_a_file_of_counts_reads_as_it_was_written(pairs):
    names = tuple(sorted({name for pair in pairs for name in pair}))
    labels, found = (np.array([names.index(pair[k]) for pair in pairs]) for k in (0, 1))
    confusion = confusion_of(names, labels, found)
    again = parse_confusion(confusion_csv(confusion))
    assert list(again.counts()) == list(confusion.counts())
    assert again.accuracy == pytest.approx((labels == found).mean())


@pytest.mark.parametrize(
    "text",
    ["", "a,b\n", "class,taken_for,images\na,b\n", "class,taken_for,images\na,b,-1\n",
     "class,taken_for,images\na,b,1,2\n", 'class,taken_for,images\n"a,b,1\n'],
)  # fmt: skip
def test_any_other_file_is_refused(text):
    with pytest.raises(ValueError):
        parse_confusion(text)


@pytest.fixture(scope="module")
def run(tmp_path_factory, image_folder):
    """A run whose model knows three of the four classes of the image folder."""
    folder = RunFolder(tmp_path_factory.mktemp("results"), "mine")
    folder.write_model(
        Model(
            params=init_params(192, 16, 3, np.random.default_rng(0)),
            class_names=("beach", "car-park", "farmland"),
            encoder="vit_mae_patch8_64.aid",
            encoder_weights="random",
            encoder_digest=create_encoder(EncoderSpec("vit_mae_patch8_64.aid", "random")).digest,
            pooling="cls",
            mask="fixed",
            mask_ratio=0.5,
            seed=0,
        )
    )
    return folder.path


def predict(*words: object):
    return CliRunner().invoke(cli, ["predict", *map(str, words)])


def test_where_folders_name_classes_it_ends_with_accuracy_and_what_is_taken_for_what(
    run, image_folder
):
    done = predict(run, image_folder)
    assert done.exit_code == 0, done.output
    assert len(done.stdout.splitlines()) == 48
    told = done.stderr.splitlines()
    assert told[-1].endswith("% of 36 images")  # the model knows no forest
    assert [line.split()[0] for line in told[-4:-1]] == ["beach", "car-park", "farmland"]


def test_without_classes_there_is_nothing_to_be_right_about(run, image_folder, tmp_path):
    (tmp_path / "a.jpg").write_bytes((image_folder / "beach" / "00.jpg").read_bytes())
    assert "accuracy" not in predict(run, tmp_path).output
    assert "accuracy" not in predict(run, image_folder / "forest").output


def test_a_table_names_classes_too_and_rows_without_one_do_not_count(run, image_folder, tmp_path):
    names = ["beach", "farmland", None]
    images = [{"bytes": (image_folder / "beach" / f"0{i}.jpg").read_bytes()} for i in range(3)]
    table = pa.table({"image": images, "label": pa.array(names)})
    pq.write_table(table, tmp_path / "x.parquet")
    done = predict(run, tmp_path / "x.parquet", "--json")
    assert [json.loads(line)["truth"] for line in done.stdout.splitlines()] == names


def test_lines_of_json_have_the_likeliest_classes_and_the_truth(run, image_folder):
    done = predict(run, image_folder, "--json", "--top-k", 2)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == 48
    for line in lines:
        first, second = line["classes"]
        assert first["probability"] >= second["probability"]
        assert line["truth"] in ("beach", "car-park", "farmland", None)
    assert sum(line["truth"] is None for line in lines) == 12
    assert "accuracy" not in done.output


def test_no_more_classes_are_named_than_there_are(run, image_folder):
    done = predict(run, image_folder / "beach" / "00.jpg", "--top-k", 9)
    assert len(done.stdout.split("\t")) == 1 + 2 * 3
