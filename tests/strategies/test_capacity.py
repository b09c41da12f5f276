"""Slices sized so that a round meets its deadline: the arithmetic, and through the strategy."""

import math
import re
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from clients.device import DECLARED, declared_device, training_speed
from clients.node import Node
from fed_ist.classifier.dealing import partition_neurons
from fed_ist.classifier.layout import NORMS, init_params, multiply_adds
from fed_ist.classifier.slices import Subnet
from fed_ist.config.derive import plan_workload
from fed_ist.config.parsing import parse_config
from fed_ist.config.toml import read_defaults
from fed_ist.errors import InputError
from fed_ist.traffic import protocol
from fed_ist.traffic.ledger import Ledger
from fed_ist.traffic.links import find_link
from fed_ist.training.boards import PROFILES, Device
from fed_ist.training.local import LocalTraining, train
from fed_ist.training.workload import Workload, explain_misfit, fits, largest_slice, slice_round_s
from strategies import create_strategy
from strategies.core.method import Dealing
from strategies.core.wire import message_bytes

# embed_dim 10, hidden_dim 100, 5 classes, 2 hidden layers, Adam; 50 examples, 3 times, in batches
# of 8: 21 steps
WORK = Workload(10, 100, 5, 2, "none", "adam", 8, 50, 150, 21)


def test_a_round_of_a_worked_example():
    # A slice of 20 neurons: 10*20 + 20*20 + 5*20 weights and 20 + 20 + 5 biases, in float32.
    assert WORK.slice_bytes(20) == 4 * (200 + 400 + 100 + 45) == 2980
    # 6 bytes before the numbers, and up to 600 around them.
    assert WORK.message_bytes(20, "fp32") == 2980 + 6 + 600 == 3586
    # A byte for each of 745, and two for each of 20 + 20 + 5 rows and 3 vectors.
    assert WORK.message_bytes(20, "int8") == 745 + 2 * 48 + 606 == 1447
    # Three times forward, for each of 150 examples.
    assert WORK.multiply_adds(20) == 3 * 150 * 700 == 315_000
    # 50 embeddings with 20 bytes around each, 8 copies of the slice, and a batch of 8 that passes
    # 2 layers of 20 neurons.
    assert WORK.memory_bytes(20) == 50 * (4 * 10 + 20) + 8 * 2980 + 32 * (8 * 40 + 2 * (10 + 5))
    device = Device(None, 105_000, 3586 / 2, 3586 / 4)
    assert slice_round_s(device, WORK, 20) == 2 + 315_000 / 105_000 + 4 == 9.0
    assert largest_slice(device, WORK, 9.0) == 20
    assert largest_slice(device, WORK, 8.99) == 19
    stepping = replace(device, step_s=0.5)
    assert slice_round_s(stepping, WORK, 20) == 9.0 + 21 * 0.5
    assert largest_slice(stepping, WORK, 19.5) == 20
    coded = replace(WORK, down_codec="int8", up_codec="int8")
    assert slice_round_s(device, coded, 20) == pytest.approx(6 * 1447 / 3586 + 3)
    assert largest_slice(device, coded, 9.0) > 20


@pytest.mark.parametrize("proximal", [0.0, 0.1])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("norm", NORMS)
def test_training_takes_no_more_memory_than_is_reckoned(norm, optimizer, proximal):
    for hidden_layers, hidden_dim, batch_size in ((1, 16, 32), (2, 256, 32), (4, 64, 128)):
        work = Workload(
            192, hidden_dim, 30, hidden_layers, norm, optimizer, batch_size, 1000, 1000, 1
        )
        rng = np.random.default_rng(0)
        values = rng.normal(size=(1000, 192)).astype(np.float32)
        labels = rng.integers(0, 30, 1000)
        params = init_params(192, hidden_dim, 30, rng, hidden_layers, norm)
        how = LocalTraining(1, 5, batch_size, optimizer, 1e-3, "ignore", proximal)
        tracemalloc.start()
        train(params, lambda _, data=(values, labels): data, how, 2.0, rng)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        given = values.nbytes + sum(array.nbytes for array in params.values())
        assert 0.5 < (given + peak_bytes) / work.memory_bytes(hidden_dim) <= 1


def test_memory_limits_a_slice_where_time_does_not():
    device = Device(memory_bytes=WORK.memory_bytes(33))
    assert largest_slice(device, WORK, 1e-9) == 33
    assert largest_slice(Device(WORK.memory_bytes(33) - 1), WORK, 1e-9) == 32


def test_a_node_of_which_nothing_is_known_gets_everything():
    assert largest_slice(Device(), WORK, 1e-9) == 100


def test_a_node_for_which_one_neuron_is_too_much_is_told_what_it_needs():
    device = Device(2000, 75, None, 1000)
    assert largest_slice(device, WORK, 10) == 0
    # 3 * 150 * 16 = 7200 multiply-adds, and 4 * (10 + 1 + 5 + 7) + 606 = 698 bytes
    assert WORK.memory_bytes(1) == 3000 + 8 * 92 + 32 * (16 + 30) == 5208
    assert explain_misfit(device, WORK, 10) == (
        "one neuron of each layer takes 96.7 s (0 down, 96 training, 0.698 up) of 10 s, "
        "and 0.00521 MB of memory of 0.002 MB"
    )
    assert "memory" not in explain_misfit(replace(device, memory_bytes=None), WORK, 10)


AMOUNT = st.one_of(st.none(), st.floats(1e-3, 1e12))
STEP_S = st.one_of(st.none(), st.floats(1e-6, 1))
DEVICES = st.builds(Device, AMOUNT, AMOUNT, AMOUNT, AMOUNT, STEP_S)
WORKLOADS = st.builds(
    Workload,
    embed_dim=st.integers(1, 2000),
    hidden_dim=st.integers(1, 3000),
    num_classes=st.integers(2, 1000),
    hidden_layers=st.integers(1, 6),
    norm=st.sampled_from(["none", "batch", "layer"]),
    optimizer=st.sampled_from(["adam", "sgd"]),
    batch_size=st.integers(1, 512),
    n_examples=st.integers(0, 10**6),
    n_seen=st.integers(0, 10**7),
    n_steps=st.integers(0, 10**5),
)
DEADLINES = st.floats(1e-3, 1e6)


@given(DEVICES, WORKLOADS, DEADLINES)
def test_the_largest_slice_meets_the_deadline_and_one_neuron_more_does_not(device, work, limit_s):
    n_neurons = largest_slice(device, work, limit_s)
    assert 0 <= n_neurons <= work.hidden_dim
    memory_bytes = math.inf if device.memory_bytes is None else device.memory_bytes
    if n_neurons:
        assert slice_round_s(device, work, n_neurons) <= limit_s
        assert work.memory_bytes(n_neurons) <= memory_bytes
    if n_neurons < work.hidden_dim:
        too_slow = slice_round_s(device, work, n_neurons + 1) > limit_s
        assert too_slow or work.memory_bytes(n_neurons + 1) > memory_bytes


@given(DEVICES, WORKLOADS, DEADLINES, st.sampled_from(list(vars(Device()))), st.floats(1, 1e6))
def test_more_of_any_resource_or_time_never_gives_a_smaller_slice(
    device, work, limit_s, name, factor
):
    before, amount = largest_slice(device, work, limit_s), getattr(device, name)
    if amount is not None:
        more = amount / factor if name == "step_s" else amount * factor
        assert largest_slice(replace(device, **{name: more}), work, limit_s) >= before
    assert largest_slice(replace(device, **{name: None}), work, limit_s) >= before
    assert largest_slice(device, work, limit_s * factor) >= before


@pytest.mark.parametrize("norm", ["none", "layer", "batch"])
@pytest.mark.parametrize("layers", [0, 1, 2, 4])
def test_the_formulas_count_what_a_slice_has(layers, norm, make_config):
    strategy = "ist" if layers else "fedavg"  # a linear head is sent as a whole
    norm = norm if layers else "none"
    config = make_config(
        strategy=strategy, hidden_layers=layers, norm=norm, hidden_dim=64, local_epochs=2
    )
    work = plan_workload(config, 24, 7, 30)
    slice_ = init_params(24, 9, 7, np.random.default_rng(0), layers, norm)
    assert work.slice_bytes(9) == sum(array.nbytes for array in slice_.values())
    assert work.multiply_adds(9) == 60 * multiply_adds(slice_)
    assert work.n_steps == 2


# --- what nodes say ------------------------------------------------------------------------------

BAD_DECLARATIONS = {
    "memory-mb": ("lots", r"memory-mb = 'lots' is not possible: give a number above 0, in mega"),
    "speed-gmacs": (0, r"speed-gmacs = 0 is not possible: give a number above 0, in billions of"),
    "down-kbps": (-3.0, r"down-kbps = -3\.0 is not possible: give a number above 0, in kilobits"),
    "up-kbps": (True, r"up-kbps = True is not possible"),
    "step-ms": (float("nan"), r"step-ms = nan is not possible: give .* in milliseconds"),
}


@pytest.mark.parametrize("key", DECLARED)
def test_a_bad_declaration_is_one_sentence_that_names_the_key(key, make_config):
    value, message = BAD_DECLARATIONS[key]
    with pytest.raises(InputError, match=message) as caught:
        declared_device(Node(5, 0, "/x"), {key: value}, make_config())
    assert "\n" not in str(caught.value)


def test_declarations_are_read_in_their_units(make_config):
    rates = {"speed-gmacs": 0.5, "down-kbps": 8000, "up-kbps": 80.0}
    declared = rates | {"memory-mb": 100, "step-ms": 20}
    found = declared_device(Node(5, 0, "/x"), declared, make_config())
    assert found == Device(100e6, 0.5e9, 1e6, 1e4, 0.02)
    assert declared_device(Node(5, 0, "/x"), {}, make_config()) == Device()


def test_a_links_rates_count_where_they_are_not_declared(make_config):
    def rates(**declared):
        found = declared_device(Node(5, 0, "/x"), {"link": "nb-iot", **declared}, make_config())
        return found.down_bytes_per_s, found.up_bytes_per_s

    link = find_link("nb-iot")
    assert rates() == (link.down_bps / 8, link.up_bps / 8)
    assert rates(**{"down-kbps": 8}) == (1000, link.up_bps / 8)
    assert rates(**{"down-kbps": 8, "up-kbps": 16}) == (1000, 2000)


def test_simulated_nodes_take_the_profiles_in_turn_and_devices_do_not(make_config):
    config = make_config(devices="pi-zero, jetson-nano", round_deadline_s=5)
    found = [declared_device(Node(i, 3, ""), {}, config) for i in range(3)]
    assert found == [PROFILES[name] for name in ("pi-zero", "jetson-nano", "pi-zero")]
    assert declared_device(Node(4711, 0, "/x"), {}, config) == Device()


BAD_SETTINGS = {
    "round-deadline-s": (-1.0, r"round-deadline-s = -1\.0 is not possible: give a number of at"),
    "devices": ("pi-zero,abacus", r"Unknown device 'abacus'\. Choose from: jetson-nano, pi-4, pi"),
    "strategy": ("fedavg", r"round-deadline-s = 5 does not go with strategy = 'fedavg'"),
    "round-timeout-s": (4.0, r"round-deadline-s = 5 is more than round-timeout-s = 4"),
}


@pytest.mark.parametrize("key", BAD_SETTINGS)
def test_a_bad_setting_is_refused_in_one_sentence(key):
    value, message = BAD_SETTINGS[key]
    values = read_defaults(ROOT / "pyproject.toml") | {"round-deadline-s": 5.0, key: value}
    with pytest.raises(InputError, match=message):
        parse_config(values)


def test_devices_without_a_deadline_are_refused(make_config):
    with pytest.raises(InputError, match="devices = 'pi-4' is of no use without round-deadline-s"):
        make_config(devices="pi-4")


def test_speed_is_measured_by_training(make_config):
    speed, step_s = training_speed(make_config(hidden_dim=256), 192, 10)
    assert 0 < speed < 1e13
    assert step_s > 0


# --- through the strategy ------------------------------------------------------------------------


def capacities(federation):
    """node name -> neurons of its hidden layers that a node can train"""
    width = federation.config.hidden_dim
    return {node.name: node.capacity * width for node in federation.prepared.values()}


@pytest.fixture
def slow_profiles(monkeypatch):
    """Boards that train so slowly that the classifier of a test is large for them."""
    for name, device in PROFILES.items():
        slower = replace(device, multiply_adds_per_s=device.multiply_adds_per_s / 1e5)
        monkeypatch.setitem(PROFILES, name, slower)


@pytest.mark.parametrize("strategy", ["ist", "heterofl", "fedrolex", "feddropout", "fjord"])
def test_a_pi_and_a_jetson_get_slices_with_which_each_meets_the_deadline(
    strategy, federate, slow_profiles
):
    federation = federate(
        [1, 2], strategy=strategy, devices="pi-zero,jetson-nano", round_deadline_s=8
    ).prepare()
    messages = {m.metadata.dst_node_id: m for m in federation.configure()}
    sizes, real_s = {}, {}
    for node_id, profile in ((1, "pi-zero"), (2, "jetson-nano")):
        node, device = federation.prepared[node_id], PROFILES[profile]
        n_examples = int(node.counts[protocol.NUM_EXAMPLES])
        work = plan_workload(federation.config, 192, 4, n_examples)
        message = messages[node_id]
        (reply,) = federation.grid.send_and_receive([message])
        sent = federation.slice_to(node_id)
        sizes[profile] = len(sent["fc1.bias"])
        assert node.capacity * 24 == pytest.approx(largest_slice(device, work, 8))
        assert sizes[profile] <= node.capacity * 24 + 1e-9
        assert fits(device, work, sizes[profile], 8)
        real_s[profile] = (
            message_bytes(message) / device.down_bytes_per_s
            + multiply_adds(sent) * work.n_seen / device.multiply_adds_per_s
            + work.n_steps * device.step_s
            + message_bytes(reply) / device.up_bytes_per_s
        )
        assert real_s[profile] <= slice_round_s(device, work, sizes[profile]) <= 8
    assert 1 <= sizes["pi-zero"] < sizes["jetson-nano"]


def test_a_declared_capacity_is_kept_where_the_deadline_allows_more(federate):
    federation = federate(
        [1, 2], capacities="0.25,1", devices="jetson-nano", round_deadline_s=60
    ).prepare()
    assert capacities(federation) == {"0": 6, "1": 24}


def test_no_deadline_asks_nothing_of_a_node(federate):
    federation = federate([1, 2]).prepare()
    for reply in federation.grid.received:
        assert not set(reply.content[protocol.METRICS]) & set(protocol.DEVICE)
    assert capacities(federation) == {"0": 24, "1": 24}


def test_a_node_that_declares_nothing_is_measured(federate):
    federation = federate([1, 2], round_deadline_s=60).prepare()
    for reply in federation.grid.received:
        metrics = reply.content[protocol.METRICS]
        measured = {"memory-bytes", "multiply-adds-per-s", "step-s"}
        assert set(metrics) & set(protocol.DEVICE) == measured
        assert metrics["memory-bytes"] > 1e6
        assert 1e5 < metrics["multiply-adds-per-s"] < 1e13
    assert capacities(federation) == {"0": 24, "1": 24}


def test_what_a_device_declares_is_not_measured(federate, image_folder):
    declared = {"data-path": str(image_folder), "memory-mb": 0.3, "speed-gmacs": 1, "up-kbps": 80}
    federation = federate([1, 2], node_config=declared, round_deadline_s=60).prepare()
    for reply in federation.grid.received:
        metrics = reply.content[protocol.METRICS]
        assert {name: metrics.get(name) for name in protocol.DEVICE} == {
            "memory-bytes": 0.3e6,
            "multiply-adds-per-s": 1e9,
            "down-bytes-per-s": None,
            "up-bytes-per-s": 10_000,
            "step-s": None,
        }
    # At 10 kB/s up, 60 s would allow far more; 48 embeddings take 37 kB of the memory.
    assert set(capacities(federation).values()) == {24}


@pytest.mark.parametrize(
    ("declared", "reason"),
    [
        ({"down-kbps": "fast"}, "down-kbps = 'fast' is not possible"),
        ({"link": "carrier-pigeon"}, "Unknown link 'carrier-pigeon'. Choose from: cubesat-9k6"),
        ({"memory_mb": 100}, "Unknown key of the node config 'memory_mb'. Choose from: capacity"),
    ],
)
def test_a_bad_declaration_passes_the_node_over_with_the_reason(
    declared, reason, federate, image_folder, caplog
):
    declared = {"data-path": str(image_folder)} | declared
    federation = federate([1, 2], node_config=declared)
    with pytest.raises(InputError, match="only 0 nodes could prepare"):
        federation.prepare()
    assert re.search(rf"Node 1\b.*{re.escape(reason)}", caplog.text)


@pytest.mark.parametrize("name", protocol.DEVICE)
@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), [1.0]])
def test_malformed_metrics_are_refused(name, value, federate, caplog):
    federation = federate([1, 2, 3], devices="pi-4", round_deadline_s=60)

    def fault(reply, asked):
        reply.content.metric_records[protocol.METRICS][name] = value
        return reply

    federation.grid.faulty_type = "query"
    federation.grid.faults = {2: fault}
    federation.prepare()
    assert set(federation.prepared) == {1, 3}
    assert f"its '{name}' is {value!r}" in caplog.text


def test_a_node_that_cannot_meet_the_deadline_gets_one_neuron_and_is_named_once(federate, caplog):
    federation = federate([1, 2], devices="pi-zero,jetson-nano", round_deadline_s=0.05).prepare()
    assert capacities(federation) == {"0": 1, "1": 24}
    federation.prepared.pop(1)  # it lost its embeddings, say
    federation.round()
    warnings = [r.getMessage() for r in caplog.records if "cannot meet" in r.getMessage()]
    assert len(warnings) == 1
    assert "Node 0 cannot meet round-deadline-s: one neuron of each layer takes 0.07" in warnings[0]
    assert federation.counts.answered == 2


# --- every neuron has its turn -------------------------------------------------------------------


@given(
    width=st.integers(4, 200),
    shares=st.lists(st.floats(0.001, 0.3), min_size=1, max_size=3),
    seed=st.integers(0, 2**32),
)
def test_neurons_that_rested_longest_are_dealt_first(width, shares, seed):
    rng, last = np.random.default_rng(seed), {"h1": np.zeros(width, dtype=np.int64)}
    n_dealt = number = 0
    while n_dealt < width:
        number += 1
        subnets = partition_neurons({"h1": width}, shares, rng, last)
        rows = np.concatenate([subnet.neurons["h1"] for subnet in subnets])
        assert len(set(rows)) == len(rows)
        last["h1"][rows] = number
        n_dealt += len(rows)
    assert (last["h1"] > 0).all()


def test_where_nothing_rests_the_groups_are_those_of_a_plain_permutation():
    shares, last = [0.5, 0.5], {"h1": np.arange(10)}
    plain = partition_neurons({"h1": 10}, shares, np.random.default_rng(0))
    dealt = partition_neurons({"h1": 10}, shares, np.random.default_rng(0), last)
    assert all(
        (a.neurons["h1"] == b.neurons["h1"]).all() for a, b in zip(plain, dealt, strict=True)
    )


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    speeds=st.lists(st.floats(1e4, 1e8), min_size=2, max_size=6),
    groups=st.integers(0, 8),
)
def test_the_strategy_deals_every_neuron_within_some_rounds(tmp_path_factory, seed, speeds, groups):
    values = read_defaults(ROOT / "pyproject.toml")
    config = parse_config(values | {"hidden-dim": 48, "groups": groups, "round-deadline-s": 5.0})
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "ledger.csv")
    strategy = create_strategy(config, ("a", "b"), 16, ledger)
    work = plan_workload(config, 16, 2, 100)
    found = [
        max(1, largest_slice(Device(multiply_adds_per_s=speed), work, 5.0)) / 48 for speed in speeds
    ]
    rng, seen, n_dealt, number = np.random.default_rng(seed), set(), 0, 0
    while n_dealt < 48:
        number += 1
        places = rng.permutation(len(found)).tolist()
        to = Dealing({"h1": 48, "h2": 48}, found, places, number, rng)
        subnets: list[Subnet] = strategy.method.deal(to)
        for i, subnet in enumerate(subnets):
            assert len(subnet.neurons["h2"]) <= round(48 * min(found[i :: len(subnets)]))
            seen |= set(subnet.neurons["h2"].tolist())
            n_dealt += len(subnet.neurons["h2"])
    assert seen == set(range(48))
    ledger.close()


@pytest.fixture(scope="module")
def rotating(tmp_path_factory):
    """Groups -> the rule that has them go round; 24 neurons."""
    values = read_defaults(ROOT / "pyproject.toml")
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "ledger.csv")

    def make(groups):
        own = {"hidden-dim": 24, "groups": groups, "dealing": "rotating"}
        strategy = create_strategy(parse_config(values | own), ("a", "b"), 16, ledger)

        def deal(places, number, capacity=1.0):
            rng = np.random.default_rng(number)
            to = Dealing({"h1": 24}, [capacity] * len(places), places, number, rng)
            return [frozenset(subnet.neurons["h1"].tolist()) for subnet in strategy.method.deal(to)]

        return deal

    yield make
    ledger.close()


@given(seed=st.integers(0, 2**32), n_nodes=st.integers(1, 12), groups=st.integers(0, 8))
def test_rotating_groups_stay_and_each_is_with_each_node_in_turn(rotating, seed, n_nodes, groups):
    deal, rng = rotating(groups), np.random.default_rng(seed)
    n_groups = groups or n_nodes
    had: dict[int, list[frozenset[int]]] = {place: [] for place in range(n_nodes)}
    for number in range(1, n_groups + 1):
        places = rng.permutation(n_nodes).tolist()
        found = deal(places, number)
        assert len(set(found)) == min(
            n_nodes, n_groups
        )  # no two nodes share one while another rests
        for place, neurons in zip(places, found, strict=True):
            had[place].append(neurons)
    assert all(len(set(groups)) == n_groups for groups in had.values())
    dealt = set.union(*(set(groups) for groups in had.values()))
    assert len(dealt) == n_groups
    assert sorted(unit for neurons in dealt for unit in neurons) == list(range(24))


def test_a_node_too_weak_for_a_rotating_group_has_all_dealt_at_random(rotating, caplog):
    deal = rotating(4)
    strong, weak = (
        [set(map(frozenset, deal([0, 1, 2, 3], number, capacity))) for number in (1, 2)]
        for capacity in (0.25, 0.2)
    )
    assert strong[0] == strong[1]
    assert weak[0] != weak[1]
    assert max(len(neurons) for neurons in weak[0]) <= 5  # a fifth of 24, rounded
    assert caplog.text.count("a node is too weak for one of 4 equal groups") == 2


def test_every_neuron_of_a_mixed_federation_is_trained(federate, slow_profiles):
    federation = federate([1, 2], devices="pi-zero,jetson-nano", round_deadline_s=8).prepare()
    start, n_dealt, number = federation.params, 0, 0
    dealt = {"h1": set(), "h2": set()}
    while n_dealt < 24:
        number += 1
        federation.params = federation.round(number)
        assert federation.counts.rejected == 0
        for errand in federation.errands.values():
            n_dealt += len(errand.subnet.neurons["h1"])
            for axis, rows in errand.subnet.neurons.items():
                dealt[axis] |= set(rows.tolist())
    assert number == 2
    assert dealt == {"h1": set(range(24)), "h2": set(range(24))}
    for name in ("fc1.bias", "fc2.bias"):  # all but neurons that no example activates
        assert (federation.params[name] != start[name]).mean() > 0.8
