"""Accuracy against bytes: step functions, means over seeds, who is above whom, and the report."""

import csv
import io
import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fed_ist.comparisons.budgets import (
    average,
    best_so_far,
    budget_grid,
    bytes_to_reach,
    envelope,
    lead,
    ranges_where,
    worst_margin,
)
from fed_ist.comparisons.curve_figure import draw_curves, method_styles
from fed_ist.comparisons.curve_report import (
    HEADER,
    budget_section,
    figure_name,
    make_section,
    write_comparison,
)
from fed_ist.comparisons.curve_words import describe_curves
from fed_ist.comparisons.curves import Curve, Setting, by_setting, read_curve
from fed_ist.errors import InputError
from fed_ist.files.seals import sealed_json


def run(method: str, n_bytes: list[int], accuracy: list[float], **changes) -> Curve:
    values = {
        "dataset": "aid", "partition": "iid", "clients": 4, "seed": 0,
        "device_seconds": 2.5, "device_flops": 0.0,
    }  # fmt: skip
    return Curve(
        method=method, bytes=tuple(n_bytes), accuracy=tuple(accuracy), **(values | changes)
    )


SETTINGS = {
    "encoder": "fed_ist_vit", "encoder-weights": "", "mask": "fixed", "mask-ratio": 0.5,
    "limit": 800, "hidden-layers": 1, "hidden-dim": 64, "num-rounds": 20, "local-steps": 0,
    "local-epochs": 3, "optimizer": "adam", "learning-rate": 0.001, "batch-size": 64,
}  # fmt: skip


def grouped(*runs: Curve) -> dict[str, list[Curve]]:
    (methods,) = by_setting(runs).values()
    return methods


@st.composite
def some_runs(draw, method: str = "ist", seed: int = 0) -> Curve:
    points = draw(st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 1)), min_size=1))
    return run(method, sorted(n for n, _ in points), [a for _, a in points], seed=seed)


@st.composite
def some_settings(draw) -> dict[str, list[Curve]]:
    """One to four methods, each with one to three seeds."""
    counts = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    names = [(f"m{i}", seed) for i, n in enumerate(counts) for seed in range(n)]
    return grouped(*(draw(some_runs(method, seed)) for method, seed in names))


BUDGETS = st.lists(st.floats(0, 2e6), min_size=1).map(lambda values: np.array(sorted(values)))


@given(some_runs(), BUDGETS)
def test_the_best_so_far_is_nothing_at_first_and_then_never_falls(curve, budgets):
    best = best_so_far(curve, budgets)
    known = best[budgets >= curve.bytes[0]]
    assert np.isnan(best[budgets < curve.bytes[0]]).all()
    assert (np.diff(known) >= 0).all()
    assert all(a in curve.accuracy for a in known)


@given(some_runs(), st.integers(0, 2 * 10**6))
def test_the_best_so_far_is_the_maximum_of_what_was_evaluated_within_the_budget(curve, budget):
    within = [a for n, a in zip(curve.bytes, curve.accuracy, strict=True) if n <= budget]
    (best,) = best_so_far(curve, np.array([budget], dtype=float))
    assert best == max(within) if within else np.isnan(best)


def test_a_budget_of_just_the_bytes_buys_the_accuracy_and_one_byte_less_does_not():
    curve = run("ist", [100, 200, 300], [0.5, 0.4, 0.7])
    best = best_so_far(curve, np.array([99.0, 100, 200, 299, 300, 10**9]))
    assert np.isnan(best[0])
    assert best[1:].tolist() == [0.5, 0.5, 0.5, 0.7, 0.7]


def test_mean_and_spread_are_over_seeds_and_wait_for_all_of_them():
    found = average(
        [run("ist", [100, 300], [0.5, 0.7]), run("ist", [200], [0.6], seed=1)],
        np.array([100.0, 200, 300]),
    )
    assert np.isnan(found.mean[0])
    assert found.mean[1:] == pytest.approx([0.55, 0.65])
    assert found.deviation[1:] == pytest.approx([0.1 / 2**0.5, 0.1 / 2**0.5])
    alone = average([run("ist", [100], [0.5])], np.array([100.0]))
    assert (alone.mean[0], np.isnan(alone.deviation[0]), alone.n_seeds) == (0.5, True, 1)


def test_the_grid_is_log_spaced_and_has_the_start_of_each_method():
    methods = grouped(run("a", [0, 10, 10_000], [0.1, 0.2, 0.3]), run("b", [777], [0.5]))
    budgets = budget_grid(methods)
    assert (budgets[0], budgets[-1], 777 in budgets) == (10, 10_000, True)
    ratios = np.diff(np.log(budgets[budgets != 777]))
    assert ratios == pytest.approx(np.full(255, np.log(1000) / 255))


@given(some_settings())
def test_the_grid_ascends_and_at_its_end_each_method_has_something(methods):
    budgets = budget_grid(methods)
    assert (np.diff(budgets) > 0).all()
    assert budgets[0] > 0
    for runs in methods.values():
        best = np.mean([max(curve.accuracy) for curve in runs])
        assert average(runs, budgets).mean[-1] == pytest.approx(best)


@given(some_settings())
def test_the_envelope_is_no_lower_than_any_method_and_is_the_method_it_names(methods):
    budgets = budget_grid(methods)
    averages = {method: average(runs, budgets) for method, runs in methods.items()}
    names, top = envelope(averages)
    for found in averages.values():
        known = ~np.isnan(found.mean)
        assert (top[known] >= found.mean[known]).all()
    for i, name in enumerate(names):
        assert np.isnan(top[i]) if name is None else top[i] == averages[name].mean[i]


@given(some_settings())
def test_a_peer_is_above_somewhere_just_where_the_worst_margin_is_negative(methods):
    budgets = budget_grid(methods)
    averages = {method: average(runs, budgets) for method, runs in methods.items()}
    worst = worst_margin(averages, "m0", budgets)
    leads = [lead(averages, peer, "m0", budgets) for peer in methods if peer != "m0"]
    largest = max((one.largest.difference for one in leads if one), default=None)
    if worst is None:
        assert len(methods) == 1
    elif largest is None:
        assert worst.difference >= -1e-9
    else:
        assert worst.difference == pytest.approx(-largest)


def test_bytes_to_reach_are_those_of_the_mean_and_exact():
    runs = [
        run("ist", [100, 200, 300], [0.40, 0.90, 0.90]),
        run("ist", [110, 210, 310], [0.20, 0.50, 0.70], seed=1),
    ]
    # The mean: 0.30 from 110 on, 0.55 from 200, 0.70 from 210, 0.80 from 310.
    assert [bytes_to_reach(runs, a) for a in (0.0, 0.30, 0.31, 0.55, 0.60, 0.80, 0.81)] == [
        110, 110, 200, 200, 210, 310, None,
    ]  # fmt: skip
    # 0.9 * 0.8 is 0.7200000000000001 in binary.
    assert bytes_to_reach([run("a", [7], [0.72])], 0.9 * 0.8) == 7
    assert bytes_to_reach([run("a", [0, 7], [0.72, 0.8])], 0.5) == 0


def test_ranges_are_named_by_their_first_and_last_budget():
    budgets = np.array([1.0, 2, 3, 4, 5])
    holds = np.array([False, True, True, False, True])
    assert ranges_where(holds, budgets) == ((2, 3), (5, 5))
    assert ranges_where(~holds, budgets) == ((1, 1), (4, 4))
    assert ranges_where(np.zeros(5, dtype=bool), budgets) == ()


def with_seeds(method: str, n_bytes: list[int], accuracy: list[float], spread: float):
    return [
        run(method, n_bytes, [a + d for a in accuracy], seed=seed)
        for seed, d in enumerate((-spread, 0, spread))
    ]


def test_where_no_peer_is_above_the_report_says_so_plainly():
    methods = grouped(
        *with_seeds("ist", [1000, 2000], [0.6, 0.8], 0.004),
        *with_seeds("fedavg", [1000, 9000], [0.5, 0.795], 0.004),
    )
    assert describe_curves(methods, "ist") == [
        "The best method is ist at every budget.",
        "No peer is above ist at any budget.",
        "Within its 2.00 kB ist reaches 80.0%, 30.00 points above what the best of all others "
        "reaches within as many, fedavg (50.0%).",
        "The worst margin of ist over the best of all others is +0.50 points, against fedavg at "
        "9.00 kB, within one standard deviation (0.57 points).",
    ]


def test_a_peer_that_is_above_is_named_with_its_budgets_and_the_noise():
    methods = grouped(
        *with_seeds("ist", [1000, 100_000], [0.6, 0.8], 0.001),
        *with_seeds("fed3r", [10_000], [0.7], 0.001),
        *with_seeds("fedavg", [1_000_000], [0.805], 0.01),
    )
    best, above, narrow, end, worst = describe_curves(methods, "ist")
    # A range begins and ends at the first and last budget of the grid that are in it.
    assert re.fullmatch(
        r"The best method is ist between 1\.00 kB and 9\.\d\d kB and between 100\.\d\d kB and "
        r"9\d\d\.\d\d kB; fed3r between 10\.00 kB and 9\d\.\d\d kB; fedavg from 1\.00 MB on\.",
        best,
    )
    assert re.fullmatch(
        r"fed3r is above ist between 10\.00 kB and 9\d\.\d\d kB, most at 10\.00 kB: "
        r"by 10\.00 points, more than one standard deviation \(0\.14 points\)\.",
        above,
    )
    assert narrow == (
        "fedavg is above ist from 1.00 MB on, most at 1.00 MB: by 0.50 points, within one "
        "standard deviation (1.00 points)."
    )
    assert end == (
        "Within its 100.00 kB ist reaches 80.0%, 10.00 points above what the best of all others "
        "reaches within as many, fed3r (70.0%)."
    )
    assert worst == (
        "The worst margin of ist over the best of all others is -10.00 points, against fed3r at "
        "10.00 kB, more than one standard deviation (0.14 points)."
    )


def test_what_a_cheaper_peer_has_before_the_method_begins_is_said():
    methods = grouped(
        run("fed3r", [100], [0.6]), run("ist", [1000, 2000], [0.7, 0.8]), run("x", [3000], [0.75])
    )
    assert describe_curves(methods, "ist")[1:] == [
        "Below 1.00 kB ist has no result yet; the best there is fed3r with 60.0%.",
        "No peer is above ist at any budget from there on.",
        "Within its 2.00 kB ist reaches 80.0%, 20.00 points above what the best of all others "
        "reaches within as many, fed3r (60.0%).",
        "The worst margin of ist over the best of all others is +5.00 points, against x at "
        "3.00 kB, with a spread that one seed cannot show.",
    ]


def test_many_crossings_are_counted_and_not_listed():
    steps = [10.0**i for i in range(1, 9)]
    methods = grouped(
        run("ist", [int(n) for n in steps], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]),
        run("peer", [int(3 * n) for n in steps], [0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 0.75, 0.8]),
    )
    _, above, _, _ = describe_curves(methods, "ist")
    assert above.startswith("peer is above ist in 7 ranges between 30 B and 9")


def test_a_method_whose_bytes_no_other_can_do_with_has_nobody_beside_it_at_its_end():
    methods = grouped(run("ist", [1000], [0.6]), run("fedavg", [5000], [0.5]))
    assert not any("Within" in sentence for sentence in describe_curves(methods, "ist"))


def test_a_variant_is_in_the_table_but_is_no_peer():
    methods = grouped(
        run("ist", [1000], [0.6]), run("ist, wider", [1000], [0.7]), run("fedavg", [1000], [0.5])
    )
    section = make_section(Setting("aid", "iid", 4), methods, "ist", ["ist, wider", "ist"])
    assert [row[0] for row in section.texts] == ["ist, wider", "ist", "fedavg"]
    assert "No peer is above ist at any budget." in section.points
    assert section.points[-1].endswith("since they have a part of ist: ist, wider.")


def test_a_method_that_is_alone_or_absent_is_said_to_be_so():
    methods = grouped(run("ist", [100], [0.6]))
    best = "The best method is ist at every budget."
    assert describe_curves(methods, "ist") == [best, "No peer of ist was run here."]
    assert describe_curves(methods, "fed3r") == [best, "fed3r was not run here."]


def test_settings_are_told_apart_iid_first_and_a_run_is_not_counted_twice():
    runs = [
        run("b", [1], [0.5], partition="dirichlet(0.3)"), run("b", [1], [0.5], clients=16),
        run("b", [1], [0.5]), run("a", [1], [0.5]), run("b", [1], [0.6], seed=1),
    ]  # fmt: skip
    found = by_setting(runs)
    assert list(found) == [
        Setting("aid", "iid", 4), Setting("aid", "iid", 16), Setting("aid", "dirichlet(0.3)", 4),
    ]  # fmt: skip
    first = found[Setting("aid", "iid", 4)]
    assert [(m, [r.seed for r in rs]) for m, rs in first.items()] == [("b", [0, 1]), ("a", [0])]
    with pytest.raises(InputError, match=r"two runs of b on aid, iid, 4 clients, with seed 1\."):
        by_setting([*runs, runs[-1]])


@given(some_runs())
def test_a_run_is_read_back_as_it_was_written(curve):
    assert Curve.from_json(curve.to_json(), Path("x.json")) == curve


BAD_VALUES = {
    "dataset": (" ", "dataset = ' ' is not possible; it is a name"),
    "clients": (0, "clients = 0 is not possible"),
    "seed": (True, "seed = True is not possible"),
    "bytes": ([5, 4], r"bytes = \(5, 4\) is not possible; it is sums"),
    "accuracy": ([0.5, 1.5], "accuracy = 1.5 is not possible; it is numbers from 0 to 1"),
    "device_seconds": (float("nan"), "device_seconds = nan is not possible"),
    "device_flops": (float("inf"), "device_flops = inf is not possible"),
}


@pytest.mark.parametrize("key", BAD_VALUES)
def test_a_value_that_cannot_be_is_named_with_its_file(key, tmp_path):
    value, sentence = BAD_VALUES[key]
    values = asdict(run("ist", [1, 2], [0.5, 0.6])) | {key: value}
    (tmp_path / "a.json").write_text(json.dumps(values))
    with pytest.raises(InputError, match=rf"a\.json' is not a run .*{sentence}.* Delete it and"):
        read_curve(tmp_path / "a.json")


WHOLE = json.dumps(asdict(run("ist", [1, 2], [0.5, 0.6])))  # as earlier versions wrote it
BAD_FILES = {
    "cut short": (WHOLE[:40].encode(), "is not a run of fed-ist: "),
    "a list": (b"[]", "it is no JSON object"),
    "a key less": (WHOLE.replace('"seed": 0, ', "").encode(), "it has to be a JSON object"),
    "a number for a list": (WHOLE.replace("[1, 2]", "3").encode(), "bytes = 3 is not possible"),
    "text for numbers": (WHOLE.replace("[1, 2]", '"12"').encode(), "bytes = '12' is not"),
    "uneven": (WHOLE.replace("[1, 2]", "[1]").encode(), "bytes has 1 numbers and accuracy 2"),
    "no number": (WHOLE.replace("[1, 2]", "[1, null]").encode(), "bytes = None is not possible"),
    "too large": (WHOLE.replace("[1, 2]", f"[1, {10**30}]").encode(), "bytes = 1000000"),
    "no text": (b"\xff\xfe", "cannot be read"),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_malformed_file_is_one_sentence_that_names_it_and_says_what_to_do(case, tmp_path):
    data, sentence = BAD_FILES[case]
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(
        InputError, match=rf"a\.json' .*{sentence}.* Delete it and give the command again"
    ):
        read_curve(tmp_path / "a.json")


def test_an_absent_file_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"none\.json' cannot be read"):
        read_curve(tmp_path / "none.json")


def some_report() -> list[Curve]:
    """Two methods in one setting, one of them in a second, with a label that pages must escape."""
    return [
        run("ist", [1000, 2_000_000], [0.7, 0.82], device_flops=2e9),
        run("ist", [1000, 2_000_000], [0.7, 0.80], device_flops=2e9, seed=1),
        run("<b>|3r", [60_000], [0.75], device_seconds=0.5),
        run("ist", [1000, 2000, 3000], [0.5, 0.6, 0.55], partition="dirichlet(0.3)", clients=16),
    ]


def test_the_table_has_the_numbers_of_each_method_the_best_first():
    methods = next(iter(by_setting(some_report()).values()))
    section = make_section(Setting("aid", "iid", 4), methods, "ist")
    assert section.lead == (
        "The best mean accuracy here is 81.0%, of ist. Not all methods ran with the same seeds."
    )
    # 90%, 95%, 99% of 81.0% are 72.9%, 76.95%, 80.19%.
    assert section.texts == (
        ("ist", "2", "81.0% ± 1.4", "81.0% ± 1.4", "2.00 MB", "unknown",
         "2.00 MB", "2.00 MB", "2.00 MB", "2.5", "2.00e+09"),
        ("<b>|3r", "1", "75.0%", "75.0%", "60.00 kB", "unknown", "60.00 kB", "never", "never",
         "0.5", "unknown"),
    )  # fmt: skip
    assert len(section.rows[0]) == len(HEADER)


def test_a_budget_has_the_best_that_each_method_shows_within_it():
    runs = [
        run("ist", [20_000, 50_000], [0.5, 0.8]),
        run("ist", [20_000, 50_000], [0.7, 0.9], seed=1),
        run("head", [4_000, 90_000], [0.65, 0.6]),
    ]
    section = budget_section(Setting("aid", "iid", 4), grouped(*runs))
    assert section.header[:5] == ("within", "5.00 kB", "10.00 kB", "25.00 kB", "60.00 kB")
    assert [row[:5] for row in section.texts] == [
        ("head", "65.0%", "65.0%", "65.0%", "65.0%"),
        ("ist", "", "", "60.0% ± 14.1", "85.0% ± 7.1"),
    ]
    marked = [[cell.is_marked for cell in row[1:5]] for row in section.rows]
    assert marked == [[True, True, True, False], [False, False, False, True]]


def test_bytes_on_a_link_are_the_mean_of_the_last_or_unknown():
    known = run("ist", [10, 20], [0.1, 0.2], link_bytes=(100, 3000))
    (row,) = make_section(Setting("aid", "iid", 4), grouped(known), "ist").texts
    assert row[5] == "3.00 kB"


def test_a_file_without_bytes_on_a_link_is_read(tmp_path):
    path = tmp_path / "run.json"
    values = vars(run("ist", [10], [0.5])) | {}
    del values["link_bytes"]
    path.write_bytes(sealed_json(values))
    assert read_curve(path).link_bytes == ()


def test_a_report_is_four_files_and_the_page_needs_nothing_else(tmp_path):
    curves = some_report()
    write_comparison(SETTINGS, curves, "ist", tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "compare-aid.png", "compare.csv", "compare.html", "compare.md",
    ]  # fmt: skip
    text = (tmp_path / "out" / "compare.md").read_text()
    for part in (
        "same embeddings: fed_ist_vit, mask fixed, mask-ratio 0.5, 800 images of each split.",
        "1 hidden layer of 64 neurons in 20 rounds of 3 local epochs, with adam at a rate of 0.001",
        "## aid\n\n![Best test accuracy against bytes, aid](compare-aid.png)\n",
        "### iid, 4 clients\n\nThe best mean accuracy here is 81.0%, of ist.",
        "| ist | 2 | 81.0% ± 1.4 | 81.0% ± 1.4 | 2.00 MB | unknown | 2.00 MB | 2.00 MB |",
        "| <b>\\|3r | 1 | 75.0% | 75.0% | 60.00 kB | unknown | 60.00 kB | never |",
        "- <b>|3r is above ist between 60.00 kB and 1.",
        "### dirichlet(0.3), 16 clients\n\nThe best mean accuracy here is 60.0%, of ist.",
        "| ist | 1 | 55.0% | 60.0% | 3.00 kB | unknown | 2.00 kB | 2.00 kB | 2.00 kB |",
        "- No peer of ist was run here.",
    ):
        assert part in text
    page = (tmp_path / "out" / "compare.html").read_text()
    assert not re.search(r"(src|href)=\"(?!data:)|https?://|url\(|@import|<b>", page)
    assert page.count("<script") == 1  # ours, which sorts tables
    for part in ("&lt;b&gt;|3r", "<td>81.0% ± 1.4</td>", "dirichlet(0.3), 16 clients"):
        assert part in page
    with (tmp_path / "out" / "compare.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(curve.bytes) for curve in curves)
    assert rows[-1] == {
        "dataset": "aid", "partition": "dirichlet(0.3)", "clients": "16", "method": "ist",
        "seed": "0", "bytes": "3000", "accuracy": "0.55", "device_seconds": "2.5",
        "device_flops": "0.0", "link_bytes": "",
    }  # fmt: skip


def test_each_data_set_has_a_figure_of_its_own_whatever_its_name(tmp_path):
    curves = [run("ist", [1], [0.5]), run("ist", [1], [0.5], dataset="uoft-cs/cifar10")]
    write_comparison(SETTINGS, curves, "fed3r", tmp_path)
    assert figure_name("uoft-cs/cifar10") == "compare-uoft-cs-cifar10.png"
    assert (tmp_path / "compare-uoft-cs-cifar10.png").exists()
    assert "fed3r was not run here" in (tmp_path / "compare.md").read_text()


def test_without_a_run_there_is_no_report(tmp_path):
    with pytest.raises(InputError, match="no run to report on"):
        write_comparison(SETTINGS, [], "ist", tmp_path)


@pytest.mark.parametrize(
    "curves",
    [
        [run("ist", [0], [0.5])],
        [run("ist", [60_000], [0.0])],
        [run("ist", [0, 0, 10], [0.1, 0.2, 1.0]), run("ist", [5], [0.5], seed=1)],
        some_report(),
    ],
    ids=["no bytes", "one point", "seeds of other lengths", "panels without runs"],
)
def test_the_figure_is_a_png_whatever_was_run(curves):
    styles = method_styles(list(dict.fromkeys(curve.method for curve in curves)))
    image = Image.open(io.BytesIO(draw_curves(curves, styles, "ist")))
    assert image.format == "PNG"
    assert image.size[0] > 400


def test_a_panel_more_makes_the_figure_wider_or_higher():
    curve = run("ist", [10, 20], [0.5, 0.6])
    other = [replace(curve, clients=16), replace(curve, partition="dirichlet(0.3)")]
    styles = method_styles(["ist"])
    sizes = [
        Image.open(io.BytesIO(draw_curves([curve, *more], styles, "ist"))).size
        for more in ([], other[:1], other[1:])
    ]
    assert sizes[1][0] > sizes[0][0]
    assert sizes[2][1] > sizes[0][1]


def test_methods_look_different_from_one_another():
    styles = method_styles([f"m{i}" for i in range(28)])
    assert len({(style.colour, style.dashes) for style in styles.values()}) == 28
    assert len({style.colour for style in styles.values()}) == 7
    assert len(set(method_styles([f"m{i}" for i in range(56)]).values())) == 56
