"""Data sets by name and path, their splits, labels and partitions."""

import io
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import SHARED_DATA
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fed_ist.datasets import scenes
from fed_ist.datasets.data_set import open_all, open_dataset, open_own
from fed_ist.datasets.folders import folder_source
from fed_ist.datasets.hold_out import hold_out
from fed_ist.datasets.partitions import PARTITIONERS, _partitions, partition
from fed_ist.datasets.scenes import N_TEST, N_TRAIN, SCENES, scenes_source
from fed_ist.errors import InputError
from fed_ist.images.decoding import UnreadableImageError
from fed_ist.images.source import Reading, content_digest, squares


def png(colour: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20, 10), (colour, 0, 0)).save(out, "PNG")
    return out.getvalue()


NONE = Path("/proc/none")
STATIONS = Reading(columns=("station",))


@pytest.fixture
def parquet(tmp_path):
    """24 images in the Hugging Face layout; row 5 is damaged; stations a, b and c."""
    cells = [{"bytes": b"damaged" if i == 5 else png(i), "path": f"{i}.png"} for i in range(24)]
    columns = {"image": cells, "label": [i % 2 for i in range(24)], "station": list("abc") * 8}
    names = ClassLabel(names=["dry", "wet"])
    features = Features({"image": ImageFeature(), "label": names, "station": Value("string")})
    path = tmp_path / "tiny.parquet"
    Dataset.from_dict(columns, features=features).to_parquet(path)
    return path


def split(source, kind, n_nodes, cache=NONE, **changes):
    """What each node gets; without a cache, where nothing can be written."""
    options = {"alpha": 0.3, "classes_per_node": 2, "column": "station", "seed": 0, "cache": cache}
    return [partition(source, kind, n_nodes, i, **(options | changes)) for i in range(n_nodes)]


def test_scenes_that_are_drawn_otherwise_have_another_signature(monkeypatch):
    before = scenes_source("train", 0).signature
    assert scenes_source("train", 0).signature == before
    monkeypatch.setitem(SCENES, "forest", SCENES["river"])
    scenes._hand.cache_clear()
    assert scenes_source("train", 0).signature != before
    monkeypatch.undo()
    scenes._hand.cache_clear()
    assert scenes_source("train", 0).signature == before


def test_scenes_are_the_same_for_a_seed_and_others_for_another():
    first, same, other = (scenes_source("train", seed) for seed in (0, 0, 1))
    assert len(first) == N_TRAIN
    assert len(scenes_source("test", 0)) == N_TEST
    assert (first.labels == same.labels).all()
    for i in (0, 17):
        assert first.load(i)[0].tobytes() == same.load(i)[0].tobytes()
        assert first.load(i)[0].tobytes() != other.load(i)[0].tobytes()
    assert first.load(0)[0].tobytes() != scenes_source("test", 0).load(0)[0].tobytes()
    assert (np.bincount(first.labels) == N_TRAIN // len(SCENES)).all()


def test_a_parquet_file_brings_images_class_names_and_columns(parquet):
    source = open_all(str(parquet))
    assert source.class_names == ("dry", "wet")
    assert source.columns == {}
    source = open_own(str(parquet), STATIONS)
    assert source.load(3)[0].getpixel((0, 0)) == (3, 0, 0)
    assert source.load(3)[1] == len(png(3))
    assert source.columns["station"][:3].tolist() == ["a", "b", "c"]
    with pytest.raises(UnreadableImageError):
        source.load(5)


def test_without_a_test_part_some_of_each_class_is_held_out(parquet):
    train, test = (open_dataset(str(parquet), "", split) for split in ("train", "test"))
    assert len(train) + len(test) == 24
    assert (np.bincount(test.labels) >= 1).all()


def contents(n: int) -> np.ndarray:
    """Digests of n unlike images."""
    digests = b"".join(content_digest(b"%d" % i) for i in range(n))
    return np.frombuffer(digests, np.uint8).reshape(n, -1)


def test_the_papers_splits_are_a_share_of_each_class():
    """RESISC45 has 45 classes of 700 images: the paper trains on 27,000 and tests on 4,500."""
    rows = hold_out(np.arange(45).repeat(700), contents(31_500), 0.1429)
    assert abs(len(rows["test"]) - 4_500) < 4 * np.sqrt(4_500)


@pytest.mark.parametrize("test_share", [0.01, 0.15, 0.99])
def test_a_class_keeps_an_image_to_train_on_and_gives_one_to_the_test(test_share):
    labels = np.array([0, 1, 1, 2, 2, 2])
    rows = hold_out(labels, contents(6), test_share)
    assert set(labels[rows["train"]]) == {0, 1, 2}
    assert set(labels[rows["test"]]) == {1, 2}


def test_a_chosen_share_is_held_out():
    rows = hold_out(np.zeros(1000, dtype=np.int64), contents(1000), 0.5)
    assert 400 < len(rows["test"]) < 600


def test_held_out_images_are_never_trained_on():
    labels = np.random.default_rng(0).integers(0, 5, 300)
    rows = hold_out(labels, contents(300))
    assert sorted(np.concatenate([rows["train"], rows["test"]])) == list(range(300))


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 60)), min_size=1, max_size=80))
def test_identical_images_are_held_out_together_or_not_at_all(images):
    labels = np.array([label for label, _ in images])
    digests = contents(61)[[content for _, content in images]]
    rows = hold_out(labels, digests)
    sides = [{images[i][1] for i in rows[split]} for split in ("train", "test")]
    assert not sides[0] & sides[1]


@given(st.permutations(range(90)), st.integers(0, 89))
def test_an_image_that_comes_or_goes_moves_no_other(order, gone):
    """Of classes of thirty, which have images below and above the share without any help."""
    labels, digests = np.arange(90) % 3, contents(90)
    before = set(hold_out(labels, digests)["test"])
    rows = np.array([i for i in order if i != gone])
    after = {int(rows[i]) for i in hold_out(labels[rows], digests[rows])["test"]}
    assert after == before - {gone}


def test_folders_named_train_and_test_are_used_as_such(image_folder, tmp_path):
    (tmp_path / "train").symlink_to(image_folder)
    (tmp_path / "test" / "forest").mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(tmp_path / "test" / "forest" / "x.png")
    test = open_dataset(str(tmp_path), "", "test")
    assert test.class_names == folder_source(image_folder).class_names
    assert test.labels.tolist() == [test.class_names.index("forest")]
    assert len(open_dataset(str(tmp_path), "", "train")) == 48


def test_a_test_dataset_is_labelled_by_the_training_classes(image_folder, tmp_path):
    (tmp_path / "forest").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "forest" / "x.png")
    test = open_dataset(str(image_folder), str(tmp_path), "test")
    assert test.labels.tolist() == [3]
    (tmp_path / "forest").rename(tmp_path / "moon")
    with pytest.raises(InputError, match="classes that the training images have not: moon"):
        open_dataset(str(image_folder), str(tmp_path), "test")


@pytest.mark.parametrize("kind", PARTITIONERS)
def test_every_partitioner_gives_each_image_to_one_node(kind, parquet):
    source = open_own(str(parquet), STATIONS)
    nodes = split(source, kind, 3)
    reds = [
        node.load(i)[0].getpixel((0, 0))[0]
        for node in nodes
        for i in range(len(node))
        if loads(node, i)
    ]
    assert sorted(reds) == [i for i in range(24) if i != 5]
    assert len({node.signature for node in nodes}) == 3


def loads(node, i) -> bool:
    try:
        node.load(i)
    except UnreadableImageError:
        return False
    return True


def test_partition_by_a_column_gives_each_station_to_one_node(parquet):
    for node in split(open_own(str(parquet), STATIONS), "column", 3):
        assert len(set(node.columns["station"])) == 1


def test_dirichlet_partitions_are_uneven_and_iid_ones_are_not():
    source = scenes_source("train", 0)
    shares = {
        kind: np.stack([np.bincount(p.labels, minlength=10) for p in split(source, kind, n_nodes)])
        for kind, n_nodes in (("iid", 4), ("dirichlet", 4), ("pathological", 9))
    }
    assert shares["iid"].std(axis=0).mean() < 15
    assert shares["dirichlet"].std(axis=0).mean() > 60
    assert ((shares["pathological"] > 0).sum(axis=1) == 2).all()


@pytest.mark.parametrize(
    ("kind", "n_nodes", "sentence"),
    [
        ("column", 2, "Column 'station' has 3 values"),
        ("iid", 100, "too few for 100 nodes|cannot be divided among 100 nodes"),
        ("pathological", 3, "cannot be divided among 3 nodes by 'pathological'"),
    ],
)
def test_impossible_partitions_are_one_sentence(kind, n_nodes, sentence, parquet):
    with pytest.raises(InputError, match=sentence):
        split(open_own(str(parquet), STATIONS), kind, n_nodes, classes_per_node=5)


def test_no_class_is_left_to_nobody():
    source = scenes_source("train", 0)
    match = "5 of 10 classes would go to none of 4 nodes .* or classes-per-node = 7"
    with pytest.raises(InputError, match=match):
        split(source, "pathological", 4, classes_per_node=2)
    assert len(split(source, "pathological", 4, classes_per_node=7)) == 4


def test_a_column_that_is_not_there_is_named(parquet):
    with pytest.raises(InputError, match="partition-column = 'nope' is not there"):
        split(open_all(str(parquet)), "column", 3, column="nope")


def test_bad_paths_are_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "flat").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "flat" / "x.png")
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "a.txt").write_text("no image")
    (tmp_path / "a.csv").write_text("no image")
    (tmp_path / "a.parquet").write_text("no table")
    for dataset, sentence in {
        "secnes": "dataset = 'secnes' is unknown. Choose scenes",
        "/absent/folder": "does not exist",
        "absent.parquet": "is unknown",
        str(tmp_path / "empty"): "No images in",
        str(tmp_path / "words"): "No images in",
        str(tmp_path / "flat"): "have no class",
        str(tmp_path / "a.csv"): "not a .parquet one",
        str(tmp_path / "a.parquet"): "cannot be read as parquet",
    }.items():
        with pytest.raises(InputError) as caught:
            open_dataset(dataset, "", "train")
        assert sentence in str(caught.value)


def test_a_hub_name_without_network_says_what_to_do(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"'fed-ist/no-such-set' is no path here.*network"):
        open_dataset("fed-ist/no-such-set", "", "train")


@pytest.mark.data
@pytest.mark.skipif(not SHARED_DATA.exists(), reason=f"{SHARED_DATA} is not here")
def test_the_aerial_image_dataset_is_read():
    files = [str(SHARED_DATA / f"aid-{split}.parquet") for split in ("train", "test")]
    train, test = (open_dataset(*files, split) for split in ("train", "test"))
    assert (len(train), len(test), len(train.class_names)) == (8498, 1502, 30)
    assert train.class_names[0].lower() == "airport"
    image, n_bytes = test.load(0)
    assert image.size == (128, 128)
    assert n_bytes > 1000


def test_a_link_to_nothing_and_a_file_that_is_gone_are_passed_over(image_folder, tmp_path):
    folder = tmp_path / "images"
    shutil.copytree(image_folder, folder)
    broken = folder / "forest" / "broken.png"
    broken.symlink_to("nowhere.png")
    gone = folder / "forest" / "gone.png"
    Image.new("RGB", (9, 9)).save(gone)
    source = folder_source(folder)
    gone.unlink()
    skipped = []
    read = list(squares(source, 64, skipped.append))
    assert len(read) == len(source) - 2
    assert [str(path) in " ".join(skipped) for path in (broken, gone)] == [True, True]
    assert folder_source(folder).signature != source.signature


def test_a_partition_is_drawn_once_and_then_read_from_the_cache(parquet, tmp_path, monkeypatch):
    source = open_all(str(parquet))
    drawn = split(source, "dirichlet", 3)
    first = split(source, "dirichlet", 3, tmp_path)
    _partitions.cache_clear()
    with monkeypatch.context() as absent:
        absent.setitem(sys.modules, "flwr_datasets.partitioner", None)
        again = split(source, "dirichlet", 3, tmp_path)
        with pytest.raises(ImportError):
            split(source, "dirichlet", 3, tmp_path, seed=1)
    assert [p.labels.tolist() for p in first] == [p.labels.tolist() for p in drawn]
    assert [p.signature for p in again] == [p.signature for p in drawn]
    (entry,) = tmp_path.glob("partition-*")
    entry.write_bytes(entry.read_bytes()[:100])
    _partitions.cache_clear()
    assert [p.signature for p in split(source, "dirichlet", 3, tmp_path)] == [
        p.signature for p in drawn
    ]
