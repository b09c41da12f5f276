"""A budget names a method that stays within it, and more budget never a cheaper one."""

from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from fed_ist.config.toml import read_preset
from fed_ist.errors import InputError
from fed_ist.planning.budget import (
    OPTIONS,
    UP_CODEC,
    Problem,
    choose,
    cost_of,
    within_bytes,
    within_link,
)
from fed_ist.planning.frontier import METHODS, TABLE, expected, summarise
from fed_ist.traffic.links import find_link, wait_s

REPORTS = [ROOT / f"results/reference/frontier-{name}" for name in ("aid", "eurosat", "cifar10")]
PROBLEMS = st.builds(Problem, st.integers(2, 300), st.integers(1, 1024), st.integers(1, 100))


@given(problem=PROBLEMS, n_bytes=st.integers(1, 10**7))
def test_what_is_chosen_is_within_the_budget(problem, n_bytes):
    try:
        chosen = choose(problem, within_bytes(n_bytes))
    except InputError:
        assert cost_of(OPTIONS[0], 1, problem).message_bytes > n_bytes
        return
    assert chosen.cost.message_bytes <= n_bytes
    least, most = chosen.option.rounds
    assert least <= chosen.n_rounds <= most


@given(problem=PROBLEMS, n_bytes=st.integers(10**4, 10**6), more=st.integers(0, 10**6))
def test_a_larger_budget_never_has_an_earlier_method(problem, n_bytes, more):
    try:
        small = choose(problem, within_bytes(n_bytes))
    except InputError:
        return
    large = choose(problem, within_bytes(n_bytes + more))
    assert OPTIONS.index(large.option) >= OPTIONS.index(small.option)


@pytest.mark.parametrize(
    ("kilobytes", "preset", "n_rounds"),
    [
        (7, "smallest", 1),
        (10, "smallest", 2),
        (50, "small", 5),
        (60, "small", 6),
        (200, "balanced", 16),
        (900, "best", 20),
    ],
)
def test_presets_are_for_their_budgets(kilobytes, preset, n_rounds):
    chosen = choose(Problem(30, 192, 8), within_bytes(1000 * kilobytes))
    assert (chosen.option.preset, chosen.n_rounds) == (preset, n_rounds)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.preset)
def test_an_option_is_what_its_preset_says(option):
    preset = read_preset(ROOT / f"sims/configs/{option.preset}.toml")
    assert preset.get("anchor", "") == option.anchor
    assert bool(preset["hidden-layers"]) == bool(option.hidden_dim)
    assert preset.get("hidden-dim", 0) == option.hidden_dim
    assert (preset["down-codec"], preset["up-codec"]) == (option.down_codec, UP_CODEC)
    assert preset["num-rounds"] <= option.rounds[1]


def test_hours_on_a_link_are_kept():
    link, problem = find_link("lte-m"), Problem(30, 192, 8)
    for hours in (0.001, 0.01, 1.0):
        chosen = choose(problem, within_link(link, hours, None))
        assert wait_s(link, chosen.cost.link_bytes) <= 3600 * hours


@pytest.mark.parametrize("changes", [(1, 192, 8), (10, 0, 8), (10, 192, 0)])
def test_an_impossible_problem_is_one_sentence(changes):
    with pytest.raises(InputError, match="or more"):
        Problem(*changes)


def test_what_was_reached_is_what_the_committed_comparisons_say():
    assert TABLE.read_text() == summarise(REPORTS)


def test_every_choice_has_a_result():
    for option in OPTIONS:
        for n_rounds in range(option.rounds[0], option.rounds[1] + 1):
            n_bytes = cost_of(option, n_rounds, Problem(30, 192, 8)).message_bytes
            found = expected(choose(Problem(30, 192, 8), within_bytes(n_bytes)))
            assert len(found) == 6
            assert all(0 < each.accuracy < 100 and np.isfinite(each.deviation) for each in found)


def test_a_reader_of_another_comparison_gets_its_means(tmp_path: Path):
    rows = ["dataset,partition,clients,method,seed,bytes,accuracy"]
    for method in METHODS.values():
        for seed, accuracy in ((0, 0.5), (1, 0.7)):
            rows += [
                f'a,iid,{n},"{method}",{seed},10,{share}' for n, share in ((8, accuracy), (4, 0.1))
            ]
    (tmp_path / "compare.csv").write_text("\n".join(rows))
    assert '"linear head" = [[60.0, 14.1]]' in summarise([tmp_path])
