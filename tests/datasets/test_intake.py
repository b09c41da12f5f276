"""What lies on the disk is what is learnt: real folders and tables, each told before a run."""

import io
import json
import os
import shutil
import struct
import unicodedata
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset
from datasets import Image as ImageFeature
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from programs import fed_ist
from test_datasets import contents

from fed_ist.config.derive import open_run_data
from fed_ist.datasets.data_set import open_all, open_data
from fed_ist.datasets.hold_out import hold_out
from fed_ist.datasets.inspection import inspect
from fed_ist.datasets.layouts import arrange
from fed_ist.datasets.splits import split_of_table
from fed_ist.datasets.walk import walk
from fed_ist.errors import InputError
from fed_ist.images.decoding import UnreadableImageError, decode
from fed_ist.images.source import Reading
from fed_ist.printable import class_name, printable


def img(c: int, i: int, px: int = 16) -> Image.Image:
    return Image.new("RGB", (px, px), [(60 + i, 0, 0), (0, 60 + i, 0), (0, 0, 60 + i)][c % 3])


def rename(old: bytes, new: bytes) -> None:
    """To a name of any bytes."""
    os.rename(old, new)  # noqa: PTH104 - pathlib takes texts


def png(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def put(root: Path, names: tuple[str, ...] = ("a", "b", "c"), n: int = 12) -> Path:
    for c, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            img(c, i).save(root / name / f"{i}.png")
    return root


def look(path: Path, test: Path | str = "", **reading: object):
    how = Reading(**reading)
    return inspect(open_data(str(path), str(test), how), how)


def totals(path: Path, **reading: object) -> dict[str, int]:
    """Class -> images of both splits."""
    return {name: sum(row.values()) for name, row in look(path, **reading).counts.items()}


def table(path: Path, labels: list[object], names=("cat", "dog", "fox"), **more: object) -> Path:
    images = [img(i, i) for i in range(len(labels))]
    data = Dataset.from_dict({"image": images, "label": labels} | more)
    data = data.cast_column("image", ImageFeature())
    if names:
        data = data.cast_column("label", ClassLabel(names=list(names)))
    path.parent.mkdir(parents=True, exist_ok=True)
    data.to_parquet(path)
    return path


LABELS = [i % 3 for i in range(36)]


# Folders


def test_a_linked_class_is_followed_and_a_circle_of_links_is_not(tmp_path):
    put(tmp_path / "images", ("a", "b"))
    put(tmp_path / "store", ("c",))
    (tmp_path / "images" / "c").symlink_to(tmp_path / "store" / "c")
    (tmp_path / "images" / "a" / "up").symlink_to(tmp_path / "images")
    (tmp_path / "images" / "b" / "self").symlink_to(tmp_path / "images" / "b")
    found = look(tmp_path / "images")
    assert {name: sum(row.values()) for name, row in found.counts.items()} == dict.fromkeys(
        "abc", 12
    )
    assert found.left_out == {"link to a folder that is read already": 2}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("Train", "Test"),
        ("training", "TESTING"),
        ("train", "val"),
        ("TRAIN", "Dev"),
        ("train", "eval"),
    ],
)
def test_splits_are_known_by_their_usual_names_in_any_case(train, test, tmp_path):
    put(tmp_path / train)
    put(tmp_path / test, n=2)
    found = look(tmp_path)
    assert (found.total("train"), found.total("test")) == (36, 6)
    assert list(found.counts) == ["a", "b", "c"]


def test_a_class_that_is_called_train_is_a_class(tmp_path):
    put(tmp_path, ("bus", "car", "train"))
    assert totals(tmp_path) == {"bus": 12, "car": 12, "train": 12}
    (tmp_path / "train" / "steam").mkdir()
    img(2, 99).save(tmp_path / "train" / "steam" / "x.png")
    assert totals(tmp_path)["train"] == 13


def test_splits_without_classes_are_refused(tmp_path):
    put(tmp_path, ("train", "test"))
    with pytest.raises(InputError, match="hold no folders of classes"):
        look(tmp_path)


def test_splits_inside_the_classes_are_refused(tmp_path):
    for name in ("a", "b"):
        put(tmp_path / name, ("train", "test"))
    with pytest.raises(InputError, match=r"Put the splits outside: .*/train/a/<image>"):
        look(tmp_path)


def test_an_only_folder_around_the_classes_is_entered_and_told(tmp_path):
    put(tmp_path / "AID" / "images")
    found = look(tmp_path)
    assert (list(found.counts), found.total("train") + found.total("test")) == (["a", "b", "c"], 36)
    assert "AID/images" in " ".join(found.notes)


def test_a_single_class_is_nothing_to_learn_and_the_folder_in_it_is_named(tmp_path):
    put(tmp_path, ("only",))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"of one class, 'only'.*nothing to learn"):
        look(tmp_path)


def test_a_folder_too_deep_by_stations_is_told(tmp_path):
    for station in ("north", "south"):
        put(tmp_path / station)
    assert "each of them holds the folders a, b, c" in " ".join(look(tmp_path).notes)


def test_empty_classes_and_images_beside_the_classes_are_told(tmp_path):
    put(tmp_path)
    (tmp_path / "d").mkdir()
    img(0, 200).save(tmp_path / "overview.png")
    found = look(tmp_path)
    assert found.left_out == {"beside the class folders, so without a class": 1}
    assert found.notes == ("No image is in the folders d.",)


def test_one_name_is_one_class_however_its_accents_are_written(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "forêt") for form in ("NFC", "NFD"))
    put(tmp_path / "train", (composed, "b"))
    put(tmp_path / "test", (decomposed, "b"))
    found = look(tmp_path)
    assert found.counts == {"b": {"train": 12, "test": 12}, composed: {"train": 12, "test": 12}}


def test_names_that_are_no_utf_8_are_shown_escaped(tmp_path):
    put(tmp_path)
    rename(os.fsencode(tmp_path / "a"), os.fsencode(tmp_path) + b"/pr\xe9s")
    rename(os.fsencode(tmp_path / "b/0.png"), os.fsencode(tmp_path) + b"/b/caf\xe9.png")
    assert totals(tmp_path) == {"b": 12, "c": 12, "pr\\xe9s": 12}
    done = fed_ist("inspect", tmp_path, "--json")
    assert json.loads(done.stdout)["counts"].keys() == {"b", "c", "pr\\xe9s"}


@given(st.binary(min_size=1, max_size=12))
def test_any_bytes_make_a_name_that_can_be_sent_and_is_its_own_name(name):
    text = class_name(os.fsdecode(name))
    assert text.encode() and "\n" not in text
    assert class_name(text) == text == unicodedata.normalize("NFC", text)
    assert printable(printable(text)) == printable(text)


def test_a_test_class_that_was_never_trained_on_is_refused_with_a_guess(tmp_path):
    put(tmp_path / "train")
    put(tmp_path / "test", ("a", "b", "C"))
    with pytest.raises(InputError, match=r"training images have not: C\. Is it meant for 'c'"):
        look(tmp_path)


def test_a_test_part_without_labels_gives_way_to_validation(tmp_path):
    put(tmp_path / "train")
    put(tmp_path / "val", n=3)
    put(tmp_path, ("test",))
    found = look(tmp_path)
    assert (found.total("train"), found.total("test")) == (36, 9)
    assert found.left_out == {"no label": 12}
    shutil.rmtree(tmp_path / "val")
    found = look(tmp_path)
    assert found.total("train") + found.total("test") == 36
    assert found.is_held_out


def test_an_image_is_known_by_its_content_and_others_are_counted_by_ending(tmp_path):
    put(tmp_path, ("a", "b"))
    (tmp_path / "c").mkdir()
    kinds = ["JPEG", "PPM", "AVIF", "WEBP", "BMP", "TIFF", "GIF", "JPEG2000"]
    for i, kind in enumerate(kinds):
        for name in (f"{i}.JFIF", f"{i}", f"{i}.data"):
            image = img(2, i + 10 * len(name))
            (tmp_path / "c" / name).write_bytes(png(image, kind))
    (tmp_path / "c" / "notes.TXT").write_text("no image")
    (tmp_path / "c" / "README").write_text("no image")
    (tmp_path / "c" / "raw.NEF").write_bytes(png(img(0, 0), "TIFF"))
    found = look(tmp_path)
    assert sum(found.counts["c"].values()) == 3 * len(kinds)
    assert found.left_out == {
        "no image, ending .txt": 1,
        "no image, without an ending": 1,
        "no image, ending .nef": 1,
    }


def test_folders_that_systems_leave_are_passed_over_and_counted(tmp_path):
    put(tmp_path)
    for name in ("@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", "__MACOSX"):
        put(tmp_path / "a", (name,), n=3)
    put(tmp_path, (".ipynb_checkpoints",), n=3)
    (tmp_path / "a" / "._0.png").write_bytes(b"\0\5\x16\7")
    found = look(tmp_path)
    assert found.total("train") + found.total("test") == 36
    assert found.left_out == {"in a folder of the system, such as thumbnails": 15, "hidden": 2}


def test_pipes_and_folders_that_cannot_be_listed_do_not_stop_a_look(tmp_path):
    put(tmp_path)
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    found = walk(tmp_path)
    assert len(found.images) == 36
    assert found.left_out.counts == {"neither file nor folder": 1}


def test_identical_images_are_told_within_and_across_splits_and_classes(tmp_path):
    put(tmp_path / "train")
    put(tmp_path / "test", n=1)
    shutil.copy(tmp_path / "train" / "a" / "3.png", tmp_path / "train" / "a" / "copy.png")
    shutil.copy(tmp_path / "train" / "a" / "4.png", tmp_path / "train" / "b" / "other.png")
    assert look(tmp_path).identical == {
        "copies in the same class and split": 1,
        "test images that are also trained on": 3,
        "images that are in several classes": 2,
    }


def test_a_server_of_devices_tests_on_all_that_it_is_given(tmp_path, make_config):
    config = make_config(dataset=str(put(tmp_path / "images")))
    data = open_run_data(config, is_simulated=False)
    assert (data.train, len(data.test)) == (None, 36)
    put(tmp_path / "split" / "train", n=2)
    put(tmp_path / "split" / "test")
    config = make_config(dataset=str(tmp_path / "split"))
    assert len(open_run_data(config, is_simulated=False).test) == 36


def test_a_folder_is_walked_once_a_run(tmp_path, make_config, monkeypatch):
    put(tmp_path / "images")
    config = make_config(dataset=str(tmp_path / "images"), name="mine")
    first = open_run_data(config)
    monkeypatch.setattr("fed_ist.datasets.walk.os.scandir", lambda _: pytest.fail("walked again"))
    again = open_run_data(config)
    assert again.test.signature == first.test.signature
    assert again.train.signature == first.train.signature


NAMES = st.sampled_from(["train", "Test", "val", "a", "b", "train_station", "latest"])


@given(st.lists(st.lists(NAMES, min_size=1, max_size=3).map(tuple), min_size=1, max_size=12))
def test_every_image_of_a_folder_is_in_one_part_or_in_none(folders):
    images = sorted({(*names, f"{i}.png") for i, names in enumerate(folders)})
    try:
        found = arrange(images, sorted(set(folders)), "root")
    except InputError:
        return
    assert len(found.split_names) == len(found.label_names) == len(images)
    assert set(found.split_names) <= {"train", "test", "validation", "all", ""}
    assert "all" not in found.split_names or set(found.split_names) == {"all"}


# What a file says beside its pixels


def test_what_is_transparent_is_black_whatever_colour_it_hides():
    red = np.full((8, 8, 4), (200, 0, 0, 255), dtype=np.uint8)
    red[:4, :, 3] = 0
    pictures = [
        png(Image.fromarray(red)),
        png(Image.fromarray(red), "WEBP", lossless=True, exact=True),
        png(Image.fromarray(red).quantize(4)),
    ]
    for data in pictures:
        pixels = np.asarray(decode(data, "x"))
        assert (pixels[:4] == 0).all()
        assert (np.abs(pixels[4:].astype(int) - (200, 0, 0)) < 8).all()
    grey = Image.fromarray(np.full((8, 8), 90, dtype=np.uint8))
    assert (np.asarray(decode(png(grey, transparency=90), "x")) == 0).all()


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG file."""
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def deep_folder(root: Path, top: int, channels: int = 1) -> Path:
    """PNGs of 16 bits with values up to `top`, which Pillow cannot write in colour."""
    header = struct.pack(">IIBBBBB", 8, 8, 16, {1: 0, 3: 2}[channels], 0, 0, 0)
    for c, name in enumerate("ab"):
        (root / name).mkdir(parents=True)
        for i in range(10):
            values = np.linspace(0, top - 16 * i - c, 64 * channels).astype(">u2")
            rows = b"".join(b"\0" + row.tobytes() for row in values.reshape(8, 8 * channels))
            chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
            data = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in chunks)
            (root / name / f"{i}.png").write_bytes(data)
    return root


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_few_bits_of_sixteen_are_asked_about_and_shown_as_said(bits, channels, tmp_path):
    root, top = deep_folder(tmp_path / "deep", 2**bits - 1, channels), 2**bits - 1
    with pytest.raises(InputError, match=f"value-range = '0:{top}'"):
        look(root)
    with pytest.raises(InputError, match="value-range"):
        open_all(str(root))
    source = open_all(str(root), Reading(value_range=(0, top)))
    assert np.asarray(source.load(0)[0]).max() == 255


@pytest.mark.parametrize("channels", [1, 3])
def test_all_of_sixteen_bits_are_shown_and_told(channels, tmp_path):
    found = look(deep_folder(tmp_path / "deep", 65535, channels))
    assert all("of 16 bits, shown with 0 to 65535 as 0 to 255" in note for note in found.notes)
    assert found.notes


# Tables


def test_all_shards_of_a_split_are_read_and_missing_ones_told(tmp_path):
    for k in range(3):
        table(tmp_path / "data" / f"train-0000{k}-of-00004.parquet", [k] * 6)
    table(tmp_path / "data" / "test-00000-of-00001.parquet", LABELS)
    found = look(tmp_path)
    assert (found.total("train"), found.total("test")) == (18, 36)
    assert "1 of 4 tables like 'train-00000-of-00004.parquet' are missing" in found.notes[0]


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (("latest-train.parquet",), "train"),
        (("contest.parquet",), ""),
        (("train2017.parquet",), "train"),
        (("default", "test", "0000.parquet"), "test"),
        (("data", "dev_00.parquet"), "validation"),
        (("evaluation_of_nothing.parquet",), ""),
    ],
)
def test_words_of_a_table_name_count_whole(names, split):
    assert split_of_table(names) == split


def test_a_table_that_names_two_splits_is_refused():
    with pytest.raises(InputError, match="names 2 splits, test and train"):
        split_of_table(("train-test.parquet",))


def test_rows_without_a_class_or_an_image_are_counted_and_make_no_class(tmp_path):
    negative = table(tmp_path / "a.parquet", [-1] * 4 + LABELS, names=())
    assert totals(negative) == {"0": 12, "1": 12, "2": 12}
    assert look(negative).left_out == {"no label": 4}
    absent = table(tmp_path / "b.parquet", [None, *LABELS[1:]])
    assert look(absent).left_out == {"no label": 1}
    read = pq.read_table(table(tmp_path / "c.parquet", LABELS))
    cells = [None, {"bytes": None, "path": None}, *read["image"].to_pylist()[2:]]
    field = read.schema.field("image")
    pq.write_table(read.set_column(0, field, pa.array(cells, field.type)), tmp_path / "c.parquet")
    found = look(tmp_path / "c.parquet")
    assert (found.total("train") + found.total("test"), found.left_out) == (
        34,
        {"no image in the row": 2},
    )


def test_labels_beyond_the_declared_classes_are_counted(tmp_path):
    path = table(tmp_path / "a.parquet", LABELS)
    read = pq.read_table(path)
    labels = pa.array([7, *LABELS[1:]], pa.int64())
    pq.write_table(read.set_column(1, read.schema.field("label"), labels), path)
    assert look(path).left_out == {"label out of range": 1}


@pytest.mark.parametrize("kind", ["text", "dictionary", "float", "bool"])
def test_classes_may_be_texts_numbers_or_truth_values(kind, tmp_path):
    images = [png(img(i, i)) for i in range(36)]
    words = [None if i == 35 else ["dog", "cat"][i % 2] for i in range(36)]
    columns = {
        "text": pa.array(words),
        "dictionary": pa.array(words).dictionary_encode(),
        "float": pa.array([None if w is None else float(w == "dog") for w in words]),
        "bool": pa.array([None if w is None else w == "dog" for w in words]),
    }
    pq.write_table(pa.table({"image": images, "class": columns[kind]}), tmp_path / "x.parquet")
    found = look(tmp_path / "x.parquet")
    assert (len(found.counts), found.total("train") + found.total("test")) == (2, 35)
    assert found.left_out == {"no label": 1}


def test_only_columns_that_were_asked_for_are_read(tmp_path):
    boxes = [[1.0] * (i % 3) for i in LABELS]
    assert sum(totals(table(tmp_path / "a.parquet", LABELS, boxes=boxes)).values()) == 36


def test_one_of_several_columns_is_taken_told_and_chosen(tmp_path):
    path = table(tmp_path / "a.parquet", LABELS, thumb=[png(img(0, 99))] * 36, coarse=LABELS)
    read = Dataset.from_parquet(str(path), cache_dir=str(tmp_path / "hub"))
    read.cast_column("coarse", ClassLabel(names=["x", "y", "z"])).to_parquet(path)
    found = look(path)
    assert set(found.counts) == {"cat", "dog", "fox"}
    assert all("column" in note for note in found.notes[:2])
    assert set(look(path, label_column="coarse").counts) == {"x", "y", "z"}
    chosen = look(
        path,
        image_column="thumb",
        test=table(tmp_path / "t.parquet", LABELS, thumb=[png(img(0, 9))] * 36),
    )
    assert chosen.identical
    with pytest.raises(InputError, match=r"label-column = 'none' is no column.*coarse"):
        look(path, label_column="none")


def test_a_table_that_says_nothing_of_its_columns_is_known_by_content(tmp_path):
    path = table(tmp_path / "a.parquet", LABELS)
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    assert totals(path) == {"0": 12, "1": 12, "2": 12}
    with pytest.raises(InputError, match="none can be told to be the image column"):
        pq.write_table(pa.table({"text": ["a"] * 3, "label": [0, 1, 2]}), path)
        look(path)


def test_a_large_table_is_read_from_the_cache(tmp_path, monkeypatch):
    path = table(tmp_path / "a.parquet", LABELS)
    plain = open_all(str(path))
    monkeypatch.setattr("fed_ist.datasets.tables.SMALL_TABLE", 0)
    mapped = open_all(str(path), Reading(cache=tmp_path / "cache"))
    assert len(list((tmp_path / "cache").glob("table-*.images"))) == 1
    for i in range(36):
        assert mapped.read(i) == plain.read(i)


def test_a_path_that_is_not_there_is_told_before_the_hub_is_asked(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "fed_ist.datasets.openings._load_hub", lambda _: pytest.fail("the Hub was asked")
    )
    monkeypatch.chdir(put(tmp_path / "data").parent)
    for name in ("data/aid", "./aid", "~/absent/aid", "/absent/aid"):
        with pytest.raises(InputError, match="does not exist"):
            open_data(name, "", Reading())
    with pytest.raises(InputError, match="test-dataset = '/absent/test' does not exist"):
        open_data("uoft-cs/cifar10", "/absent/test", Reading())


# What an attack found


def test_what_is_no_file_neither_hangs_nor_stops_a_look(tmp_path):
    put(tmp_path / "images")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "images" / "a" / "linked.jpg").symlink_to(tmp_path / "pipe")
    (tmp_path / "images" / "a" / "self").symlink_to("self")
    (tmp_path / "images" / "self").symlink_to("self")
    assert len(walk(tmp_path / "images").images) == 36
    for path in (tmp_path / "pipe", tmp_path / "images" / "self"):
        with pytest.raises(InputError, match=r"'.*(pipe|self)'"):
            look(path)


@pytest.mark.parametrize("name", ["~nosuchuser/x", "x" * 300, "/tmp/" + "x" * 300, "", "a\0b"])
def test_what_can_be_no_path_is_one_sentence(name):
    with pytest.raises(InputError, match=r"is unknown|does not exist|no path"):
        open_data(name, "", Reading())


def test_a_cut_header_is_an_unreadable_image(tmp_path):
    put(tmp_path)
    for n in range(8, 30):
        (tmp_path / "a" / f"cut{n}.png").write_bytes(png(img(0, n))[:n])
    found = look(tmp_path)
    assert found.left_out == {"unreadable image": 22}
    assert len(open_all(str(tmp_path))) == 58


def test_a_tiff_or_jpeg_2000_of_few_bits_in_sixteen_is_not_shown_in_silence(tmp_path):
    values = np.linspace(0, 4095, 64).reshape(8, 8).astype(np.uint16)
    with pytest.raises(InputError, match="value-range = '0:4095'"):
        for c, name in enumerate(("a", "b")):
            (tmp_path / "jp2" / name).mkdir(parents=True)
            for i in range(10):
                image = Image.fromarray(np.roll(values, 8 * i + c))
                (tmp_path / "jp2" / name / f"{i}.jp2").write_bytes(png(image, "JPEG2000"))
        look(tmp_path / "jp2")
    rasterio = pytest.importorskip("rasterio")
    path = tmp_path / "x.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=3, height=8, width=8, dtype="uint16", photometric="RGB"
    ) as file:
        file.write(np.stack([values] * 3))
    with pytest.raises(UnreadableImageError, match="not 8 bits"):
        decode(path.read_bytes(), "x")


def test_large_labels_stay_apart(tmp_path):
    images = [png(img(i, i)) for i in range(36)]
    for kind, labels in (("int64", [2**60, 2**60 + 1, 5]), ("uint64", [2**63 + 5, 2**63 + 9, 5])):
        column = pa.array(labels * 12, getattr(pa, kind)())
        pq.write_table(pa.table({"image": images, "label": column}), tmp_path / "x.parquet")
        assert list(look(tmp_path / "x.parquet").counts) == [str(v) for v in sorted(labels)]


def test_tables_beside_folders_of_images_are_counted(tmp_path):
    put(tmp_path)
    pq.write_table(pa.table({"image_id": ["a"], "image": ["a/0.png"]}), tmp_path / "meta.parquet")
    (tmp_path / "empty.parquet").touch()
    assert look(tmp_path).left_out == {"table beside the images": 2}


def test_tables_of_a_test_and_a_validation_part_alone_are_nothing_to_learn(tmp_path):
    for name in ("test", "validation"):
        table(tmp_path / f"{name}.parquet", LABELS)
    with pytest.raises(InputError, match="test and validation images with classes, but none to"):
        look(tmp_path)


def test_a_table_that_cannot_be_read_is_one_sentence(tmp_path):
    path = table(tmp_path / "a.parquet", LABELS)
    data = bytearray(path.read_bytes())
    data[4:1000] = bytes(996)
    path.write_bytes(data)
    with pytest.raises(InputError, match="cannot be read as parquet"):
        look(path)
    pq.write_table(pq.read_table(table(path, LABELS)).slice(0, 0), path)
    with pytest.raises(InputError, match="holds no rows"):
        look(path)
    twice = pa.table([pa.array([b"x"]), pa.array([1]), pa.array([2])], ["image", "label", "label"])
    pq.write_table(twice, path)
    with pytest.raises(InputError, match="several columns called 'label'"):
        look(path)


def test_a_folder_called_train_with_folders_alone_beside_others_is_asked_about(tmp_path):
    put(tmp_path / "train")
    put(tmp_path, ("unlabelled",))
    with pytest.raises(InputError, match=r"holds 'train', .*like a split.*give .*/train"):
        look(tmp_path)


def test_a_class_without_a_readable_image_is_told(tmp_path):
    put(tmp_path)
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x.jpg").write_bytes(b"<html>")
    assert "No image can be read of the classes d." in look(tmp_path).notes


def test_copies_in_a_small_class_move_no_image_of_another():
    large, digests = np.zeros(30, dtype=np.int64), contents(30)
    sides = hold_out(large, digests)
    for side in ("train", "test"):
        copied = sides[side][:2]
        labels = np.concatenate([large, np.ones(len(copied), dtype=np.int64)])
        after = hold_out(labels, np.concatenate([digests, digests[copied]]))
        assert set(after["test"][after["test"] < 30]) == set(sides["test"])


# The commands


def test_every_command_takes_a_folder_with_odd_names(tmp_path):
    images, cache = put(tmp_path / "images"), tmp_path / "cache"
    rename(os.fsencode(images / "a/0.png"), os.fsencode(images) + b"/a/caf\xe9.png")
    rename(os.fsencode(images / "b"), os.fsencode(images) + b"/\xe9t\xe9")
    there = {"XDG_CACHE_HOME": str(cache)}
    run = fed_ist(
        *("run", "--engine", "inline", "--nodes", "2", "--name", "odd"),
        *("--set", f"dataset={images}", "--set", f"results-dir={tmp_path / 'results'}"),
        *("--set", "num-rounds=1", "--set", "hidden-dim=16"),
        **there,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("images      36 in 3 classes: ")
    found = json.loads((tmp_path / "results" / "odd" / "images.json").read_text())
    assert "\\xe9t\\xe9" in found["counts"]
    for words in (
        ("predict", tmp_path / "results" / "odd", images),
        ("doctor", "--data-path", images),
        ("pack", images, "--out", tmp_path / "packed.arrow"),
        ("inspect", images),
    ):
        done = fed_ist(*words, **there, LC_ALL="C")
        assert "Traceback" not in done.stderr, done.stderr
        assert "\\xe9" in done.stdout or words[0] == "pack"
    assert "caf\\xe9.png" in fed_ist("predict", tmp_path / "results/odd", images, **there).stdout


def test_inspect_says_what_is_wrong_in_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    for words in ((tmp_path / "empty",), ("/absent",), (put(tmp_path / "one", ("a",)),)):
        done = fed_ist("inspect", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1
