"""Experiments that are tables: each run has its cell, and a page says what its runs gave."""

from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import ROOT

from fed_ist.comparisons.curves import Curve
from fed_ist.config.toml import read_defaults, read_preset
from fed_ist.errors import InputError
from sims.experiments import capacity_table, preset_table
from sims.experiments.preset_table import PLAIN, PRESETS, findings, is_behind, list_methods
from sims.experiments.variant_tables import Key, Row, Table, best, final, has_first, rows_of, sent
from sims.experiments.variants import EXPERIMENTS, Experiment, Found, render, run_experiment


def curve(key: Key, seed: int, *accuracy: float) -> Curve:
    n_bytes = tuple(1000 * (i + 1) for i in range(len(accuracy)))
    return Curve(*key, seed, n_bytes, accuracy, 1.0, 1.0)


PLAIN_KEY, OTHER_KEY, ABSENT = (Key("aid", "iid", 8, name) for name in ("plain", "other", "none"))


def gain(row: Row) -> str:
    return f"{100 * (row.runs[0][0].accuracy[-1] - row.first[0][0].accuracy[-1]):+.0f}"


def test_a_page_has_a_row_for_each_setting_that_was_run_and_holds_it_against_the_first():
    table = Table(
        title="All",
        labels=("change",),
        columns={"final": final(), "best": best, "bytes": sent, "gain": gain},
        rows={("plain",): (PLAIN_KEY,), ("a | b",): (OTHER_KEY,), ("not run",): (ABSENT,)},
        note=lambda row: f"The first is {row.labels[0]}.",
    )
    experiment = Experiment("Title", ("Note.",), lambda _: [], [table], {})
    curves = [
        curve(PLAIN_KEY, 0, 0.5, 0.4),
        curve(OTHER_KEY, 0, 0.5, 0.6),
        curve(OTHER_KEY, 1, 0.7, 0.6),
    ]
    assert render(experiment, Found(curves)) == (
        "# Title\n\nNote.\n\n## All\n\n"
        "| change | final | best | bytes | gain |\n| --- | --- | --- | --- | --- |\n"
        "| plain | 40.0% | 50.0% | 2.00 kB | +0 |\n"
        "| a \\| b | 60.0% ± 0.0 | 65.0% ± 7.1 | 2.00 kB | +20 |\n\n"
        "The first is plain.\n"
    )


def test_what_is_held_against_a_first_row_waits_for_it():
    rows = {("plain",): (PLAIN_KEY,), ("other",): (OTHER_KEY,)}
    found = [curve(OTHER_KEY, 0, 0.5)]
    assert [row.labels for row in rows_of(Table((), {}, rows), found, {})] == [("other",)]
    assert rows_of(Table((), {}, rows, is_shown=has_first), found, {}) == []


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_run_of_an_experiment_has_its_cell(name):
    experiment: Experiment = import_module(EXPERIMENTS[name]).EXPERIMENT
    defaults = read_defaults(ROOT / "pyproject.toml")
    run = {
        Key(case.dataset, case.partition, case.clients, case.method)
        for stage in experiment.stages(Path("/data"))
        for case in stage.cases(defaults | dict(stage.settings))
    }
    shown = {key for table in experiment.tables for keys in table.rows.values() for key in keys}
    assert run <= shown
    if name != "attack":  # some of whose cells stay empty
        assert shown == run
    for table in experiment.tables:
        assert all(len(labels) == len(table.labels) for labels in table.rows)


def test_an_experiment_on_real_images_asks_for_their_folder():
    with pytest.raises(InputError, match="folder of the parquet files"):
        run_experiment("privacy", None, 1)
    with pytest.raises(InputError, match="Unknown experiment 'aids'"):
        run_experiment("aids", None, 1)


def setting(ends: dict[str, float], n_test: int) -> Row:
    """A row of the presets' table: method -> final accuracy of two seeds."""
    keys = [Key("few, 9", "iid", 2, method) for method in ends]
    runs = tuple(
        [curve(key, seed, end) for seed in range(2)]
        for key, end in zip(keys, ends.values(), strict=True)
    )
    images = SimpleNamespace(test=SimpleNamespace(labels=np.zeros(n_test)))
    return Row(("few, 9", "2", "iid"), runs, runs, images)


@pytest.mark.parametrize(("end", "behind"), [(0.891, False), (0.889, True), (0.95, False)])
def test_a_preset_is_behind_if_it_is_a_point_and_a_standard_error_below(end, behind):
    """Of 0.9 on 1,500 images the standard error is 0.0077."""
    assert is_behind(setting({PLAIN: 0.9, PRESETS[0]: 0.95, PRESETS[1]: end}, 1500)) == behind


def test_few_test_images_have_a_larger_error_to_allow_for():
    ends = {PLAIN: 0.9, PRESETS[0]: 0.95, PRESETS[1]: 0.88}
    assert [is_behind(setting(ends, n)) for n in (100, 10_000)] == [False, True]
    assert "In 1 of 1 settings a preset ends" in findings([setting(ends, 10_000)])
    assert "anchored 1.00 kB" in findings([setting(ends, 10_000)])


def test_the_table_is_about_the_presets_as_they_are():
    methods = list_methods()
    assert tuple(methods) == preset_table.METHODS
    for name in PRESETS:
        assert methods[name] == read_preset(ROOT / f"sims/configs/{name}.toml")
        assert {key: methods[name][key] for key in methods[PLAIN]} == methods[PLAIN]
    assert {"num-rounds", "hidden-dim"} < set(methods[PLAIN])


def test_the_shares_and_seconds_of_the_table_of_capacities_are_those_of_its_report():
    """By AID's 8,498 training images in 30 classes; accuracies are measured, and so not here."""
    labels = np.zeros(8498)
    images = SimpleNamespace(
        train=[SimpleNamespace(labels=labels)], embed_dim=192, class_names=("c",) * 30
    )
    report = (ROOT / "results/reference/capacity.md").read_text()
    for name in capacity_table.SETTINGS:
        neurons, seconds = capacity_table.workload(Row((name,), (), (), images))
        assert f"| {name} | {neurons[0]} | {neurons[1]} | {seconds:.2f} |" in report
