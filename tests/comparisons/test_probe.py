"""Probes: what they can tell, what they must not see, and what they say of the paper's findings."""

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image

from fed_ist.cli.main import main
from fed_ist.comparisons import probe, probe_table
from fed_ist.comparisons.findings import difference_noise
from fed_ist.comparisons.probe import (
    C_VALUES,
    choose_c,
    linear_probe,
    mean_and_deviation,
    mlp_probe,
)
from fed_ist.comparisons.probe_report import (
    PROBES,
    accuracy_of,
    draw_probe,
    fixed_in_probes,
    half_in_probes,
    make_table,
    render_probe,
)
from fed_ist.comparisons.probe_table import (
    N_PASSES,
    NO_MASK,
    ProbeRow,
    choose_stratified,
    list_cells,
    open_probe_folder,
    parse_masks,
    parse_ratios,
    read_probe_rows,
    write_probe_rows,
)
from fed_ist.datasets.data_set import open_dataset
from fed_ist.errors import InputError
from fed_ist.images.masks import MASKS

LINEAR, MLP = PROBES


def clusters(n: int, spread: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (n, 8) of four classes, each around a corner of its own, and their labels."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 4
    return (3 * np.eye(8)[labels] + spread * rng.normal(size=(n, 8))).astype(np.float32), labels


def row(mask: str, ratio: float, linear: float, mlp: float, **changes) -> ProbeRow:
    values = {"c": 0.1, "mlp_deviation": 0.01, "n_seeds": 4, "n_train": 900, "n_test": 1000}
    return ProbeRow(mask=mask, mask_ratio=ratio, linear=linear, mlp=mlp, **(values | changes))


def both_probes(passes, labels, test, test_labels) -> tuple[float, float]:
    linear, _ = linear_probe(passes, labels, test, test_labels, 0)
    return linear, mlp_probe(passes, labels, test, test_labels, 4, 0)


def test_separable_embeddings_are_told_apart_and_shuffled_labels_are_not():
    (train, labels), (test, test_labels) = clusters(200, 0.3, 0), clusters(400, 0.3, 1)
    assert min(both_probes([train], labels, test, test_labels)) > 0.99
    shuffle = np.random.default_rng(2).permutation
    for accuracy in both_probes([train], shuffle(labels), test, shuffle(test_labels)):
        assert accuracy == pytest.approx(0.25, abs=0.08)  # 400 images: 0.02 is one deviation


def test_the_same_seed_gives_the_same_accuracy_and_another_another():
    (train, labels), (test, test_labels) = clusters(80, 3, 0), clusters(400, 3, 1)
    first, same = (both_probes([train], labels, test, test_labels) for _ in range(2))
    assert first == same
    assert mlp_probe([train], labels, test, test_labels, 4, 1) != first[1]


def test_c_is_chosen_without_the_test_images_and_without_the_held_out_ones(monkeypatch):
    train, labels = clusters(80, 2, 0)
    train[:, 7] = np.arange(80)  # tells which image a row is of
    calls = []

    class Spy:
        def __init__(self, values, labels, c):
            self.fitted = set(values[:, 7].tolist())
            calls.append((c, self))

        def predict(self, values):
            self.judged = set(values[:, 7].tolist())
            return np.zeros(len(values), dtype=np.int64)

    monkeypatch.setattr(probe, "_fitted", Spy)
    test = np.full((5, 8), -1, dtype=np.float32)
    linear_probe([train, train + np.float32(0)], labels, test, np.zeros(5, dtype=np.int64), 0)
    assert [c for c, _ in calls] == [*C_VALUES, C_VALUES[0]]
    for _, spy in calls[:-1]:
        assert len(spy.judged) == 12  # 15% of each class
        assert spy.judged | spy.fitted == set(range(80))
        assert not spy.judged & spy.fitted
    assert calls[-1][1].fitted == set(range(80))
    assert calls[-1][1].judged == {-1}


def test_noise_wants_a_stronger_penalty_than_a_clear_signal_needs():
    rng = np.random.default_rng(0)
    noisy, labels = clusters(120, 3, 0)
    noisy = np.hstack([noisy, rng.normal(size=(120, 60))]).astype(np.float32)
    assert choose_c([noisy], labels, 0) < C_VALUES[-1]
    assert choose_c([noisy[:4]], labels[:4], 0) in C_VALUES  # one image a class


def test_passes_are_stacked_for_the_linear_probe_and_used_in_turn_by_the_mlp(monkeypatch):
    (train, labels), (test, test_labels) = clusters(40, 1, 0), clusters(40, 1, 1)
    passes = [train + np.float32(i) for i in range(N_PASSES)]
    seen = []
    fitted = probe._fitted

    def note_rows(values, labels, c):
        seen.append(len(values))
        return fitted(values, labels, c)

    def take_passes(params, examples, how, scale, rng):
        seen.extend(float((examples(i)[0] - train).mean().round()) for i in range(6))
        return params, 0.0

    monkeypatch.setattr(probe, "_fitted", note_rows)
    monkeypatch.setattr(probe, "train", take_passes)
    linear_probe(passes, labels, test, test_labels, 0)
    assert seen[-1] == 4 * 40
    seen.clear()
    mlp_probe(passes, labels, test, test_labels, 4, 0)
    assert seen == [0, 1, 2, 3, 0, 1]


def test_the_deviation_is_the_samples_and_of_one_run_there_is_none():
    assert mean_and_deviation([0.5, 0.7]) == pytest.approx((0.6, 0.02**0.5))
    mean, deviation = mean_and_deviation([0.5])
    assert mean == 0.5
    assert np.isnan(deviation)


def test_the_row_without_a_mask_is_there_once_and_first():
    assert list_cells(["fixed", "grid"], [0.0, 0.5, 0.9]) == [
        (NO_MASK, 0.0), ("fixed", 0.5), ("fixed", 0.9), ("grid", 0.5), ("grid", 0.9),
    ]  # fmt: skip
    assert list_cells(["grid"], [0.5]) == [("grid", 0.5)]


def test_masks_and_ratios_are_read_from_lists():
    assert parse_masks("all") == list(MASKS)
    assert parse_masks("grid, fixed,grid") == ["grid", "fixed"]
    assert parse_ratios("0.5,0, 0.25,0.5") == [0.0, 0.25, 0.5]


def test_a_limited_choice_is_stratified_seeded_and_just_as_large():
    labels = np.array([0] * 100 + [1] * 50 + [2] * 2 + [-1] * 20)
    first, same, other = (
        choose_stratified(labels, 30, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert (first == same).all()
    assert (first != other).any()
    assert len(set(first)) == 30
    counts = np.bincount(labels[first])  # a class label of -1 would raise here
    assert abs(counts[0] - 2 * counts[1]) <= 2
    assert counts[2] == 1
    assert len(choose_stratified(labels, 999, np.random.default_rng(0))) == 152


def test_the_table_shows_the_unmasked_row_in_each_line():
    rows = [row(NO_MASK, 0, 0.6, 0.7), row("fixed", 0.5, 0.5, 0.6), row("grid", 0.9, 0.3, 0.4)]
    table = make_table(LINEAR, rows)
    assert table.header == ("linear", "0% dropped", "50% dropped", "90% dropped")
    assert table.texts == (("fixed", "60.0%", "50.0%", ""), ("grid", "60.0%", "", "30.0%"))
    assert make_table(MLP, rows[:1]).texts == (("none", "70.0%"),)


def test_noise_is_two_errors_of_the_test_images_and_the_seeds():
    def noise(probe, a, b):
        return difference_noise(accuracy_of(probe, a), accuracy_of(probe, b))

    a, b = row("fixed", 0.5, 0.5, 0.5), row("random", 0.5, 0.5, 0.5)
    assert noise(LINEAR, a, b) == pytest.approx(2 * (2 * 0.25 / 1000) ** 0.5)
    with_seeds = 2 * (2 * 0.25 / 1000 + 2 * 0.01**2 / 4) ** 0.5
    assert noise(MLP, a, b) == pytest.approx(with_seeds)
    single = row("fixed", 0.5, 0.5, 0.5, n_seeds=1, mlp_deviation=float("nan"))
    assert noise(MLP, single, single) == noise(LINEAR, a, b)


def test_the_report_says_where_a_fixed_mask_is_no_worse_and_where_it_is():
    rows = [
        row("fixed", 0.5, 0.50, 0.60), row("random", 0.5, 0.51, 0.70),
        row("fixed", 0.75, 0.50, 0.50), row("random", 0.75, 0.40, 0.50),
    ]  # fmt: skip
    near, better, worse, equal = fixed_in_probes(rows)
    assert near == (
        "linear, 50% dropped: fixed 50.0%, random 51.0%. The difference is -1.0 points, the noise "
        "4.5; it is within the noise: fixed is no worse, and the finding holds as far as this "
        "tells."
    )
    assert better.endswith("+10.0 points, the noise 4.4; it is beyond the noise: fixed is better, "
                           "and the finding holds.")  # fmt: skip
    assert "MLP, 50% dropped" in worse
    assert worse.endswith("fixed is worse, and the finding does not hold.")
    assert "no worse" in equal
    assert fixed_in_probes(rows[:1])[0].startswith("Not measured: probe fixed and random")


def test_the_report_says_where_half_the_image_is_enough_and_where_it_is_not():
    rows = [row(NO_MASK, 0, 0.60, 0.80), row("fixed", 0.5, 0.59, 0.40), row("grid", 0.75, 0.5, 0.5)]
    enough, not_enough = half_in_probes(rows)
    assert enough == (
        "linear, fixed: 59.0% with half of the image, 60.0% with the whole. That keeps 98.3% of "
        "the accuracy (noise 7.3), at least 97%, but by less than the noise: whether half the "
        "image suffices, this cannot tell."
    )
    assert not_enough.startswith("MLP, fixed: 40.0% with half of the image, 80.0% with the whole.")
    assert not_enough.endswith("less than 97%, beyond the noise: half the image does not suffice.")
    better, _ = half_in_probes([row(NO_MASK, 0, 0.50, 0.5), row("fixed", 0.5, 0.70, 0.5)])
    assert better.endswith("at least 97%, beyond the noise: half the image suffices.")
    assert half_in_probes(rows[1:])[0].startswith("Not measured: probe the ratios 0 and 0.5")


def test_the_figure_is_a_png_whatever_was_probed():
    rows = [row(NO_MASK, 0, 0.6, 0.7)]
    for some in (rows, [*rows, *(row(mask, 0.5, 0.5, 0.6) for mask in MASKS)]):
        assert Image.open(io.BytesIO(draw_probe(some, "title"))).size[0] > 800


def test_rows_are_read_back_as_they_were_written(tmp_path):
    rows = [row("fixed", 0.1, 1 / 3, 0.7), row("grid", 0.9, 0.5, 0.6)]
    write_probe_rows(tmp_path, rows)
    assert read_probe_rows(tmp_path) == rows


def test_a_folder_of_other_settings_or_a_damaged_one_is_refused(tmp_path):
    assert open_probe_folder(tmp_path, {"limit": 100, "seed": 0}) == []
    assert open_probe_folder(tmp_path, {"limit": 100, "seed": 0}) == []
    with pytest.raises(InputError, match=r"written with limit = 100; now it is 200\. Choose"):
        open_probe_folder(tmp_path, {"limit": 200, "seed": 0})
    (tmp_path / "probe.csv").write_text("mask,mask_ratio\nfixed,half\n")
    with pytest.raises(InputError, match=r"probe\.csv' cannot be read"):
        open_probe_folder(tmp_path, {"limit": 100, "seed": 0})
    (tmp_path / "probe.json").write_text("[")
    with pytest.raises(InputError, match=r"probe\.json' is damaged"):
        open_probe_folder(tmp_path, {"limit": 100, "seed": 0})
    (tmp_path / "probe.json").unlink()
    with pytest.raises(InputError, match=r"has a probe\.csv but not the probe\.json"):
        open_probe_folder(tmp_path, {"limit": 100, "seed": 0})


@pytest.fixture
def command(monkeypatch, tmp_path, capsys):
    """Call `fed-ist probe` here; returns (exit code, stdout, stderr)."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fed-ist", "probe", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return (int(ended.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture
def few_epochs(monkeypatch):
    how = probe_table.MLP_TRAINING
    short = type(how)(**(vars(how) | {"local_epochs": 1}))
    monkeypatch.setattr(probe, "MLP_TRAINING", short)


def test_a_probe_prints_its_rows_and_leaves_a_report(command, few_epochs, image_folder, tmp_path):
    out = tmp_path / "out"
    words = ["--mask", "fixed,random", "--mask-ratio", "0,0.5", "--limit", "24", "--seeds", "2"]
    code, printed, progress = command(image_folder, *words, "--out", out)
    assert code == 0, progress
    lines = [line.split() for line in printed.splitlines()]
    assert [line[:2] for line in lines[1:4]] == [
        ["none", "0.00"], ["fixed", "0.50"], ["random", "0.50"],
    ]  # fmt: skip
    assert lines[1][-1] == "1.000"
    assert "3/3" in progress
    rows = read_probe_rows(out)
    n_test = len(open_dataset(str(image_folder), "", "test"))
    assert [(r.n_train, r.n_test, r.n_seeds) for r in rows] == [(24, n_test, 2)] * 3
    report = (out / "probe.md").read_text()
    for text in ("| fixed |", "| random |", "fixed is", "half the image", f"probe {image_folder}"):
        assert text in report
    assert report == render_probe(json.loads((out / "probe.json").read_text()), rows, b"")
    assert Image.open(out / "probe.png").size[0] > 800
    assert len(list((tmp_path / "cache" / "fed-ist").iterdir())) == 2 + 2 + N_PASSES + 2


def test_what_is_there_is_not_computed_again(
    command, few_epochs, image_folder, tmp_path, monkeypatch
):
    words = [image_folder, "--weights", "random", "--seeds", "1", "--out", tmp_path / "out"]
    code, first, _ = command(*words, "--mask-ratio", "0.5")
    assert code == 0
    before = (tmp_path / "out" / "probe.csv").read_bytes()
    measured = []
    measure_row = probe_table.measure_row

    def note(subject, mask, ratio, *rest):
        measured.append((mask, ratio))
        return measure_row(subject, mask, ratio, *rest)

    monkeypatch.setattr(probe_table, "measure_row", note)
    code, again, _ = command(*words, "--mask-ratio", "0.5")
    assert (code, again, measured) == (0, first, [])
    assert (tmp_path / "out" / "probe.csv").read_bytes() == before
    assert command(*words, "--mask-ratio", "0.5,0.75")[0] == 0
    assert measured == [("fixed", 0.75)]
    assert (tmp_path / "out" / "probe.csv").read_bytes().startswith(before)
    code, _, error = command(*words, "--seed", "1")
    assert (code, "was written with seed = 0; now it is 1" in error) == (2, True)


def test_embeddings_are_encoded_once_and_for_good(command, few_epochs, image_folder, monkeypatch):
    words = [image_folder, "--limit", "20", "--mask-ratio", "0.5", "--seeds", "1"]
    code, first, _ = command(*words)
    assert code == 0
    monkeypatch.setattr(
        "fed_ist.encoder.frozen.Encoder.encode_all", lambda *_: pytest.fail("encoded again")
    )
    assert command(*words)[:2] == (0, first)


def test_an_unreadable_image_is_named_and_left_out(command, few_epochs, image_folder, tmp_path):
    folder = tmp_path / "images"
    for path in sorted(image_folder.glob("*/0[0-5].jpg")):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / path.parent.name / path.name).write_bytes(path.read_bytes())
    (folder / "beach" / "bad.jpg").write_text("no image")
    words = [folder, "--mask-ratio", "0.5", "--seeds", "1", "--weights", "random"]
    code, _, error = command(*words, "--out", tmp_path / "out")
    assert code == 0
    assert error.count("bad.jpg") == 1
    (found,) = read_probe_rows(tmp_path / "out")
    assert found.n_train + found.n_test == 24


BAD_WORDS = {
    "mask": (["--mask", "fixed,stripes"], "Unknown mask 'stripes'. Choose from: all, block"),
    "ratio": (["--mask-ratio", "0,1"], "mask-ratio = 1.0 is not possible"),
    "no number": (["--mask-ratio", "0,half"], "'half' is no number"),
    "pooling": (["--pooling", "max"], "Unknown pooling 'max'"),
    "encoder": (["--encoder", "vit_huge"], "Unknown encoder 'vit_huge'"),
    "weights": (["--weights", "/absent.pth"], "'/absent.pth' (--weights) is not a file"),
    "limit": (["--limit", "3"], "--limit 3 is fewer than the 4 classes"),
    "test images": (["--test-dataset", "/absent"], "test-dataset = '/absent' does not exist"),
    "out": (["--out", "/proc/none"], "--out = '/proc/none' cannot be written to"),
}


@pytest.mark.parametrize("case", BAD_WORDS)
def test_bad_input_is_one_sentence_and_exit_code_2(case, command, image_folder):
    words, sentence = BAD_WORDS[case]
    code, printed, error = command(image_folder, *words)
    assert (code, printed) == (2, "")
    assert sentence in error
    assert error.count("\n") == 1


def test_data_that_cannot_be_probed_is_one_sentence(command, image_folder, tmp_path):
    assert "is unknown" in command("secnes")[2]
    (tmp_path / "one" / "beach").mkdir(parents=True)
    (tmp_path / "one" / "beach" / "a.jpg").write_bytes(
        (image_folder / "beach" / "00.jpg").read_bytes()
    )
    code, _, error = command(tmp_path / "one")
    assert (code, "of one class, 'beach'" in error) == (2, True)
    (tmp_path / "one" / "beach" / "b.jpg").write_bytes(
        (image_folder / "beach" / "01.jpg").read_bytes()
    )
    code, _, error = command(tmp_path / "one")
    assert (code, "nothing to learn" in error) == (2, True)


def test_without_scikit_learn_one_sentence_says_how_to_get_it(command, image_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    code, printed, error = command(image_folder)
    assert (code, printed) == (2, "")
    assert error == (
        "fed-ist: fed-ist probe needs scikit-learn, which is not installed. "
        "Install it with: pip install 'fed-ist[probe]'\n"
    )
