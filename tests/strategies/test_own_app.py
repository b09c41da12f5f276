"""IST in somebody else's Flower app: Flower's own FedAvg, but for the slices."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from functools import partial

import numpy as np
import pytest
import torch
from conftest import HANG_S, ROOT
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity

from fed_ist.errors import InputError
from strategies import IstStrategy

EXAMPLE = ROOT / "docs" / "examples" / "own_app"
HIDDEN, NODES = 12, [7, 3, 5, 9]


@pytest.fixture(autouse=True)
def within_a_run(monkeypatch):
    """Flower makes messages only within a run."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


class Nodes:
    """The part of a Grid that strategies ask."""

    def get_node_ids(self) -> Iterable[int]:
        return list(NODES)


def model(seed=0):
    rng = np.random.default_rng(seed)
    shapes = {"fc1.weight": (HIDDEN, 5), "fc1.bias": (HIDDEN,), "fc2.weight": (3, HIDDEN)}
    shapes["fc2.bias"] = (3,)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def record(arrays):
    return ArrayRecord({name: Array(array) for name, array in arrays.items()})


def arrays_of(record_):
    return {name: array.numpy() for name, array in record_.items()}


def ask(strategy, arrays, number=1):
    return list(
        strategy.configure_train(number, record(arrays), ConfigRecord({"lr": 0.1}), Nodes())
    )


def answer(message, change=lambda array: array, **metrics):
    arrays = {n: change(a.copy()) for n, a in arrays_of(message.content["arrays"]).items()}
    metrics = {"num-examples": 10, "loss": 1.0} | metrics
    content = RecordDict({"arrays": record(arrays), "metrics": MetricRecord(metrics)})
    reply = Message(content, reply_to=message)
    reply.metadata.__dict__["_src_node_id"] = message.metadata.dst_node_id
    return reply


def trained(array, seed):
    return array + np.random.default_rng(seed).normal(size=array.shape).astype(np.float32)


def test_a_node_gets_an_ordinary_smaller_model_with_its_width_in_the_config():
    messages = ask(IstStrategy({"hidden": HIDDEN}), model())
    assert {m.metadata.dst_node_id for m in messages} == set(NODES)
    for message in messages:
        assert set(message.content) == {"arrays", "config"}
        assert dict(message.content["config"]) == {"lr": 0.1, "server-round": 1, "hidden": 3}
        shapes = {name: array.shape for name, array in arrays_of(message.content["arrays"]).items()}
        assert shapes == {
            "fc1.weight": (3, 5), "fc1.bias": (3,), "fc2.weight": (3, 3), "fc2.bias": (3,),
        }  # fmt: skip
    biases = [arrays_of(m.content["arrays"])["fc1.bias"] for m in messages]
    assert (np.sort(np.concatenate(biases)) == np.sort(model()["fc1.bias"])).all()


@pytest.mark.parametrize("groups", [0, 1, 2, 3, 5])
@pytest.mark.parametrize("dealing", ["random", "rotating"])
def test_nodes_that_learn_nothing_leave_the_model_as_it_was_to_the_bit(groups, dealing):
    strategy = IstStrategy({"hidden": HIDDEN}, groups=groups, dealing=dealing)
    arrays = model()
    for number in (1, 2):
        replies = [answer(message) for message in ask(strategy, arrays, number)]
        merged, metrics = strategy.aggregate_train(number, replies)
        assert all((arrays_of(merged)[name] == arrays[name]).all() for name in arrays)
        assert dict(metrics) == {"loss": 1.0}


def test_one_group_without_rescaling_is_fedavg():
    arrays, fedavg = model(), FedAvg()
    ist = IstStrategy({"hidden": HIDDEN}, groups=1)
    results = []
    for strategy in (fedavg, ist):
        messages = sorted(ask(strategy, arrays), key=lambda m: m.metadata.dst_node_id)
        replies = [
            answer(m, partial(trained, seed=n), **{"num-examples": n})
            for n, m in enumerate(messages, start=1)
        ]
        results.append(arrays_of(strategy.aggregate_train(1, replies)[0]))
    assert all(np.allclose(results[0][n], results[1][n], atol=1e-5) for n in arrays)


def test_a_slice_computes_as_much_as_the_whole_on_the_average():
    """Weights of hidden inputs are multiplied by whole / slice, and divided when they come back."""
    arrays, strategy = model(), IstStrategy({"hidden": HIDDEN})
    messages = ask(strategy, arrays)
    sums = sum(arrays_of(m.content["arrays"])["fc2.weight"].sum(axis=1) for m in messages)
    assert np.allclose(sums / 4, arrays["fc2.weight"].sum(axis=1), atol=1e-5)
    replies = [answer(message, lambda a: a + 1) for message in messages]
    merged = arrays_of(strategy.aggregate_train(1, replies)[0])
    assert np.allclose(merged["fc1.bias"], arrays["fc1.bias"] + 1)
    assert np.allclose(merged["fc2.weight"], arrays["fc2.weight"] + 0.25)
    plain = ask(IstStrategy({"hidden": HIDDEN}, rescale=False), arrays)
    columns = np.concatenate([arrays_of(m.content["arrays"])["fc2.weight"] for m in plain], axis=1)
    assert (np.sort(columns.ravel()) == np.sort(arrays["fc2.weight"].ravel())).all()


def test_rotating_groups_have_been_with_every_node_after_as_many_rounds():
    strategy, arrays = IstStrategy({"hidden": HIDDEN}, dealing="rotating"), model()
    seen = {node: set() for node in NODES}
    for number in range(1, 5):
        for message in ask(strategy, arrays, number):
            bias = arrays_of(message.content["arrays"])["fc1.bias"]
            seen[message.metadata.dst_node_id].add(bias.tobytes())
    assert all(len(groups) == 4 for groups in seen.values())


def test_a_group_whose_node_is_away_or_lies_keeps_its_neurons_and_is_counted():
    strategy, arrays = IstStrategy({"hidden": HIDDEN}), model()
    messages = ask(strategy, arrays)
    replies = [
        answer(messages[0], lambda a: a + 1),
        answer(messages[1], lambda a: a * np.nan),
        answer(messages[2], **{"num-examples": -1}),
        Message(Error(0, "out of memory"), reply_to=messages[3]),
    ]
    merged = arrays_of(strategy.aggregate_train(1, replies)[0])
    assert strategy.n_rejected == 3
    changed = merged["fc1.bias"] != arrays["fc1.bias"]
    assert changed.sum() == 3
    assert strategy.aggregate_train(1, [])[0] is None


def test_an_evaluation_without_metrics_is_left_out():
    strategy = IstStrategy({"hidden": HIDDEN})
    messages = list(strategy.configure_evaluate(1, record(model()), ConfigRecord({}), Nodes()))
    assert all(m.content["config"]["hidden"] == HIDDEN for m in messages)
    good = [answer(message, loss=2.0) for message in messages[:2]]
    empty = Message(RecordDict({}), reply_to=messages[2])
    failed = Message(Error(0, "out of memory"), reply_to=messages[3])
    assert dict(strategy.aggregate_evaluate(1, [*good, empty, failed])) == {"loss": 2.0}
    assert strategy.n_rejected == 2
    assert strategy.aggregate_evaluate(1, []) is None


def test_a_share_of_the_nodes_is_drawn_alike_for_one_seed():
    def drawn(seed):
        strategy = IstStrategy({"hidden": HIDDEN}, seed=seed, fraction_train=0.5)
        return [
            (m.metadata.dst_node_id, arrays_of(m.content["arrays"])["fc1.bias"].tobytes())
            for number in (1, 2, 3)
            for m in ask(strategy, model(), number)
        ]

    assert drawn(0) == drawn(0) != drawn(1)
    assert len(drawn(0)) == 6


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"widths": {}}, "widths names the model's hidden neurons"),
        ({"widths": {"hidden": 12}, "groups": 13}, "groups = 13 is not possible with 12"),
        ({"widths": {"hidden": 12}, "dealing": "magic"}, "Unknown dealing 'magic'"),
    ],
)
def test_impossible_arguments_are_one_sentence(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        IstStrategy(**arguments)


@pytest.mark.flower
def test_the_example_of_the_documents_learns_in_a_real_simulation(tmp_path):
    shutil.copytree(EXAMPLE, tmp_path / "app")
    program = (
        "from flwr.simulation import run_simulation\n"
        "from flwr.app import Context\n"
        "from flwr.serverapp import ServerApp\n"
        "from own_app.client_app import app as client\n"
        "from own_app.server_app import main\n"
        "server = ServerApp()\n"
        "@server.main()\n"
        "def run(grid, context):\n"
        "    context.run_config = {'num-server-rounds': 3, 'hidden': 512}\n"
        "    main(grid, context)\n"
        "run_simulation(server, client, num_supernodes=4)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path / "app",
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'app'}:{ROOT}"},
        capture_output=True,
        text=True,
        timeout=HANG_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    state = torch.load(tmp_path / "app" / "own_app.pt")
    sys.path.insert(0, str(tmp_path / "app"))
    try:
        from own_app.task import Net, load_data, test
    finally:
        sys.path.pop(0)
    net = Net(512)
    chance = test(net, load_data(9))
    net.load_state_dict(state)
    assert test(net, load_data(9)) > 0.5 > chance
