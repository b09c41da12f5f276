"""What each method decides, on arrays small enough to work out by hand, and without Flower."""

import ast
from importlib import import_module
from itertools import chain
from pathlib import Path

import numpy as np
import pytest

from fed_ist.config.methods import CLOSED_FORMS, GROUPED, SLICED
from fed_ist.config.methods import STRATEGIES as NAMES
from fed_ist.statistics.anchors import BIAS, WEIGHT
from fed_ist.statistics.class_means import ClassSums
from fed_ist.statistics.gaussians import Gaussians
from fed_ist.statistics.ridge import gram_statistics
from fed_ist.traffic import protocol
from strategies import METHOD_CLASSES
from strategies.core.method import ClosedForm, Dealing, Method

WIDTHS = {"h1": 4}
PACKAGE = Path(__file__).resolve().parents[2] / "strategies"
NEEDING_FLOWER = ("__init__", "federated", "own_app")
MODULES = [path for path in PACKAGE.glob("*.py") if path.stem not in NEEDING_FLOWER]


def dealt(method, *capacities: float, server_round: int = 1) -> list[list[int]]:
    """The neurons of the one hidden layer that each subnet has."""
    rng, places = np.random.default_rng(0), list(range(len(capacities)))
    to = Dealing(WIDTHS, capacities, places, server_round, rng)
    return [subnet.neurons["h1"].tolist() for subnet in method.deal(to)]


@pytest.fixture
def trained(make_config):
    return lambda name, **changes: METHOD_CLASSES[name](make_config(strategy=name, **changes))


@pytest.fixture
def solved(make_config):
    """A closed form for embeddings of two numbers and two classes."""
    return lambda name, **changes: METHOD_CLASSES[name](make_config(strategy=name, **changes), 2, 2)


def test_ist_deals_each_neuron_to_one_node(trained):
    slices = dealt(trained("ist"), 1.0, 1.0)
    assert [len(rows) for rows in slices] == [2, 2]
    assert sorted(chain(*slices)) == [0, 1, 2, 3]


def test_ist_deals_next_what_rested_in_this_round(trained):
    method = trained("ist")
    first, second = (dealt(method, 0.25, 0.25, server_round=r) for r in (1, 2))
    assert sorted(chain(*first, *second)) == [0, 1, 2, 3]


def test_ist_goes_on_as_if_it_had_not_been_cut(trained):
    method, resumed = trained("ist"), trained("ist")
    dealt(method, 0.25, 0.25)
    resumed.restore(method.save())
    assert dealt(resumed, 0.25, 0.25, server_round=2) == dealt(method, 0.25, 0.25, server_round=2)


def test_rotating_groups_are_with_each_node_once_in_as_many_rounds(trained):
    method = trained("ist", dealing="rotating")
    first, second = (dealt(method, 1.0, 1.0, server_round=r) for r in (1, 2))
    assert second == first[::-1]
    assert sorted(chain(*first)) == [0, 1, 2, 3]


@pytest.mark.parametrize("name", ["fedavg", "fedavgm", "fedadam", "topk"])
def test_the_fedavgs_send_the_whole_classifier_to_all(name, trained):
    assert dealt(trained(name), 1.0, 1.0, 1.0) == [[0, 1, 2, 3]]


def test_federated_dropout_draws_one_part_in_groups_for_each_node(trained):
    slices = dealt(trained("feddropout", groups=2), 1.0, 1.0, 0.25)
    assert [len(rows) for rows in slices] == [2, 2, 1]


def test_heterofl_gives_the_first_neurons(trained):
    assert dealt(trained("heterofl"), 0.5, 1.0) == [[0, 1], [0, 1, 2, 3]]


def test_fjord_trains_levels_of_its_slice_and_rescales_nothing(trained):
    method = trained("fjord", capacities="0.25,0.5,1")
    assert dealt(method, 0.5) == [[0, 1]]
    assert method.task(0.5, 0.5) == {protocol.SCALE: 1.0, protocol.LEVELS: [0.5, 1.0]}


def test_fedrolex_starts_one_further_in_each_round(trained):
    method = trained("fedrolex")
    assert dealt(method, 0.5, server_round=1) == [[0, 1]]
    assert dealt(method, 0.5, server_round=4) == [[0, 3]]  # 3, and on at 0


def test_hidden_sums_of_a_slice_are_rescaled_unless_told_otherwise(trained):
    assert trained("ist").task(0.25, 1.0) == {protocol.SCALE: 4.0}
    assert trained("ist", rescale=False).task(0.25, 1.0) == {protocol.SCALE: 1.0}


def test_what_comes_back_is_the_slice_or_is_added_to_it(trained):
    sent, back = {"w": np.float32([1, 2])}, {"w": np.float32([10, 20])}
    assert trained("ist").trained(back, sent)["w"].tolist() == [10, 20]
    assert trained("ist", reply="update").trained(back, sent)["w"].tolist() == [11, 22]


def test_top_k_adds_the_changes_that_came_to_what_was_sent(trained):
    method, sent = trained("topk", upload_share=0.5), {"w": np.float32([1, 2, 3, 4])}
    assert method.reply_layout(sent) == {
        "values": ((2,), "float32"),
        "indices": ((2,), "int32"),
    }
    back = {"values": np.float32([5, -4]), "indices": np.int32([1, 3])}
    assert method.trained(back, sent)["w"].tolist() == [1, 7, 3, 0]


def test_fedavg_takes_the_mean_as_it_is(trained):
    assert trained("fedavg").step({"w": np.float32([1])}, {"w": np.float32([3])})["w"] == [3]


def test_momentum_goes_on_in_the_direction_of_the_round_before(trained):
    method = trained("fedavgm", server_momentum=0.5)
    first = method.step({"w": np.float32([0])}, {"w": np.float32([4])})
    assert first["w"].tolist() == [4]
    resumed = trained("fedavgm", server_momentum=0.5)
    resumed.restore(method.save())
    for each in (method, resumed):
        assert each.step(first, first)["w"].tolist() == [6]  # 4 + 0.5 * 4 + 0


def test_running_moments_of_batch_norm_get_no_momentum(trained):
    method = trained("fedavgm", norm="batch")
    method.step({"norm1.var": np.float32([1])}, {"norm1.var": np.float32([3])})
    stepped = method.step({"norm1.var": np.float32([3])}, {"norm1.var": np.float32([3])})
    assert stepped["norm1.var"].tolist() == [3]


def test_fedncm_classifies_by_the_nearest_mean_of_all_nodes(solved):
    nodes = [np.array([[2.0, 0, 2], [0, 0, 0]]), np.array([[0, 0, 0], [0, 3.0, 3]])]
    head = solved("fedncm").solve([ClassSums(sums) for sums in nodes], {})
    assert head[WEIGHT].tolist() == [[2, 0], [0, 2]]
    assert head[BIAS].tolist() == [-1, -1]


def test_fed3r_solves_for_all_examples_whichever_node_has_them(solved):
    x = np.float32([[1, 0], [0.8, 0.6], [0, 1], [0.6, 0.8]])
    y, method = np.array([0, 0, 1, 1]), solved("fed3r")
    apart = [gram_statistics(x[i::2], y[i::2], 2) for i in range(2)]
    together = method.solve([gram_statistics(x, y, 2)], {})
    assert all(np.allclose(a, together[k], atol=1e-6) for k, a in method.solve(apart, {}).items())
    assert (np.argmax(x @ together[WEIGHT].T + together[BIAS], axis=1) == y).all()


def test_fedpft_learns_from_what_it_draws_of_the_nodes_gaussians(solved):
    nodes = [
        Gaussians(np.float32([[3, 0], [0, 0]]), np.full((2, 2), 0.01, np.float32), counts)
        for counts in (np.array([40, 0]), np.array([0, 40]))
    ]
    start = {
        "fc1.weight": np.float32([[1, 0], [-1, 0]]),
        "fc1.bias": np.zeros(2, np.float32),
        "fc2.weight": np.zeros((2, 2), np.float32),
        "fc2.bias": np.zeros(2, np.float32),
    }
    found = solved("fedpft", num_rounds=3).solve(nodes, start)
    hidden = np.maximum(np.float32([[3, 0], [0, 0]]) @ found["fc1.weight"].T + found["fc1.bias"], 0)
    assert np.argmax(hidden @ found["fc2.weight"].T + found["fc2.bias"], axis=1).tolist() == [0, 1]


# --- what the table of methods says of them -------------------------------------------------------


ROWS, NAMED = "METHODS of fed_ist/config/methods.py", "METHOD_CLASSES of strategies/__init__.py"


def test_every_method_has_a_class_a_row_and_a_name():
    for name in set(METHOD_CLASSES) - set(NAMES):
        pytest.fail(f"'{name}' stands in {NAMED} and has no row in {ROWS}: write one")
    for name in set(NAMES) - set(METHOD_CLASSES):
        pytest.fail(f"'{name}' has a row in {ROWS} and no class in {NAMED}: write it there")
    modules = [import_module(f"strategies.{path.stem}") for path in MODULES]
    classes = {kind for module in modules for kind in vars(module).values() if is_method(kind)}
    for kind in classes - set(METHOD_CLASSES.values()):
        pytest.fail(f"{kind.__name__} has no name: write it into {NAMED}")


def is_method(found: object) -> bool:
    return (
        isinstance(found, type)
        and issubclass(found, Method | ClosedForm)
        and found not in (Method, ClosedForm)
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_method_is_what_its_row_says(name, trained):
    row = f"the row of '{name}' in {ROWS}"
    is_closed = issubclass(METHOD_CLASSES[name], ClosedForm)
    assert is_closed == (name in CLOSED_FORMS), f"in_rounds={not is_closed} is missing in {row}"
    if is_closed:
        return
    is_sliced = max(len(rows) for rows in dealt(trained(name), *[0.5] * 4)) < 4
    assert is_sliced == (name in SLICED), f"is_sliced={is_sliced} is missing in {row}"
    if name in GROUPED:
        sizes = [len(dealt(trained(name, groups=n), *[1.0] * 4)[0]) for n in (1, 2, 4)]
        assert sizes == [4, 2, 1], f"with 1, 2 and 4 groups of 4 neurons: {row} says is_grouped"


def test_methods_are_free_of_flower():
    assert len(MODULES) >= 5
    for path in [*MODULES, PACKAGE / "core" / "method.py"]:
        tree = ast.walk(ast.parse(path.read_text()))
        named = [n.module or "" for n in tree if isinstance(n, ast.ImportFrom)]
        assert not [name for name in named if name.split(".")[0] == "flwr"], path
