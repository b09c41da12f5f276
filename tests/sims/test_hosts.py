"""A deployed federation: a SuperLink and four SuperNodes as hosts of their own, with TLS and keys,
each node with a folder of its own. It is compared with a simulation, and disturbed.
"""

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import numpy as np
import psutil
import pytest
from conftest import ROOT
from field import CLASSES, MIXES, UNKNOWN, Field, draw_field, read_table, until
from safetensors.numpy import load_file
from test_wire_bench import needs_namespaces

from clients.app import app as client_app
from fed_ist.config.derive import encoder_spec, open_run_data
from fed_ist.config.parsing import parse_config
from fed_ist.config.toml import read_defaults
from fed_ist.deploy.gatekeeper import find_nginx
from fed_ist.encoder.frozen import create_encoder
from fed_ist.errors import InputError
from sims.local_grid import LocalGrid
from sims.server_app import open_run_folder, run
from sims.wires.hosts import running
from sims.wires.namespaces import wired

try:
    find_nginx()
    LACKING = ""
except InputError as lacking:
    LACKING = str(lacking)
pytestmark = [pytest.mark.flower, pytest.mark.slow, needs_namespaces]
ROUND_TIMEOUT_S = 55.0  # below the minute after which Flower says that a ClientApp has died
RUN_TIMEOUT_S = 900.0  # of a run that takes a minute or two on a machine that is not busy


@pytest.fixture(scope="module", params=[False, True], ids=["flower-supernode", "relay"])
def field(request, tmp_path_factory):
    if request.param and LACKING:
        pytest.skip(LACKING)
    folder = tmp_path_factory.mktemp("field")
    draw_field(folder)
    configs = [{"name": str(i), "data-path": str(folder / f"node{i}")} for i in range(len(MIXES))]
    with (
        wired(len(MIXES), tun=False) as wires,
        running(
            wires, folder, configs, tls=True, authenticated=True, relayed=request.param
        ) as hosts,
    ):
        yield Field(wires, hosts, folder)


@dataclass(frozen=True)
class Run:
    """A run's folder, the classifier after its first round, and when node 2 had a power cut
    (`time.time`; 0 if it had none).
    """

    folder: Path
    first: dict[str, np.ndarray]
    cut_at: float = 0.0

    def rounds(self):
        return read_table(self.folder / "rounds.csv")

    def lines(self):
        return read_table(self.folder / "ledger.csv")

    def answers(self, server_round, kind="train"):
        """The nodes that answered in a round."""
        wanted = (str(server_round), "up", kind)
        keys = ("round", "direction", "kind")
        found = [line for line in self.lines() if tuple(line[key] for key in keys) == wanted]
        return sorted(int(line["node"]) for line in found)

    def counts(self, server_round):
        """(asked, answered, rejected) of a round."""
        row = self.rounds()[server_round]
        return tuple(int(row[key]) for key in ("asked", "answered", "rejected"))


def at_training(nodes, server_round, actions):
    """Do to each node's ClientApp what `actions` (number -> what to do) say, while it trains."""
    left = dict(actions)

    def all_done():
        for number in list(left):
            node = nodes[number]
            process = node.is_at_work(server_round, "train") and node.client_app()
            with suppress(psutil.NoSuchProcess):  # it trains once it has its embeddings at hand
                if process and any("embeddings.npy" in area.path for area in process.memory_maps()):
                    left.pop(number)(process)
        return not left

    until(all_done, f"all nodes train in round {server_round}")


@pytest.fixture(scope="module")
def simulated(field):
    """The first round, simulated with the same settings."""
    changes = field.settings(name="simulated", num_rounds=1)
    changes["cache-dir"] = str(field.folder / "simulated-cache")
    config = parse_config(read_defaults(ROOT / "pyproject.toml") | changes)
    grid = LocalGrid(client_app, config, [900, 100, 500, 300])
    folder, _ = open_run_folder(config)
    encoder = create_encoder(encoder_spec(config))
    run(grid, config, encoder, open_run_data(config), folder, None)
    return Run(folder.path, load_file(folder.path / "model.safetensors"))


@pytest.fixture(scope="module")
def deployed(field):
    """A run whose first round is not disturbed. In the second node 0's ClientApp is killed, node
    1's stands still until the round is over, and node 2 has a power cut, from which it returns as
    soon as Flower lets it, in the fourth.
    """
    nodes, ids = field.hosts.nodes, [node.node_id for node in field.hosts.nodes]
    folder = field.folder / "results" / "deployed"
    # With one node that answers there are too few, so that who was silent is asked again at once.
    changes = {"min_nodes": 3, "round_timeout_s": ROUND_TIMEOUT_S}
    process = field.start("deployed", num_rounds=5, **changes)
    held = []

    def hold(client_app):
        client_app.suspend()
        held.append(client_app)

    def cut_power(_):
        nodes[2].cut_power()

    at_training(nodes, 2, {0: psutil.Process.kill, 1: hold, 2: cut_power})
    cut_at = time.time()
    first = load_file(folder / "model.safetensors")
    returning = Thread(target=nodes[2].restart)
    returning.start()
    until(lambda: len(read_table(folder / "rounds.csv")) == 3, "round 2 ends")
    held[0].resume()
    at_training(nodes, 4, {3: hold})
    returning.join()
    held[1].resume()
    output, _ = process.communicate(timeout=RUN_TIMEOUT_S)
    assert process.returncode == 0, output
    assert [node.node_id for node in nodes] == ids
    return Run(folder, first, cut_at)


def test_a_deployment_repeats_the_simulation_bit_for_bit(deployed, simulated):
    assert deployed.first.keys() == simulated.first.keys()
    for name, array in simulated.first.items():
        assert deployed.first[name].tobytes() == array.tobytes(), name
    for there, here in zip(deployed.rounds()[:2], simulated.rounds(), strict=True):
        for key in ("round", "accuracy", "loss", "asked", "answered", "rejected"):
            assert there[key] == here[key], key
    assert float(simulated.rounds()[1]["accuracy"]) > 0.4  # it has learnt: chance is a quarter


def test_the_payload_of_each_message_is_the_simulations(deployed, simulated):
    def payloads(run):
        keys = ("round", "node", "direction", "kind")
        lines = [line for line in run.lines() if int(line["round"]) < 2]
        return {tuple(line[key] for key in keys): int(line["payload_bytes"]) for line in lines}

    assert payloads(deployed) == payloads(simulated)
    assert len(payloads(deployed)) == 2 * len(MIXES) * 2  # prepared, and one round


def test_nodes_with_other_classes_each_agree_with_the_server(field, deployed):
    summary = json.loads((deployed.folder / "summary.json").read_text())
    assert summary["num_classes"] == len(CLASSES)
    assert summary["images_of_unknown_classes"] == MIXES[2][UNKNOWN]
    assert summary["images"] == sum(sum(mix.values()) for mix in MIXES) - MIXES[2][UNKNOWN]
    said = [f"{UNKNOWN} (4 images)" in "\n".join(node.said) for node in field.hosts.nodes]
    assert said == [False, False, True, False]


def test_the_round_goes_on_without_nodes_that_are_killed_or_too_slow(deployed):
    assert deployed.answers(2) == [3]
    assert deployed.counts(2) == (4, 1, 0)


def test_a_late_reply_does_no_harm_and_its_node_answers_the_next_round(deployed):
    assert {1, 3} <= set(deployed.answers(3))
    # Node 2 may be back before anybody has noticed that it was gone, and not be prepared.
    assert set(deployed.answers(3, "error")) <= {2}


def test_a_node_whose_training_was_killed_takes_part_again(deployed):
    assert 0 in deployed.answers(5)


def test_a_node_that_had_a_power_cut_returns_as_the_same_and_encodes_nothing_again(field, deployed):
    # Flower alone lets it in a minute after the cut, in the fourth round.
    assert [node for n in (3, 4, 5) for node in deployed.answers(n, "prepare")] == [2]
    assert deployed.answers(5) == [0, 1, 2, 3]
    assert deployed.counts(5) == (4, 4, 0)
    (entry,) = (field.folder / "cache2").rglob("embeddings.npy")
    assert entry.stat().st_mtime < deployed.cut_at


def test_a_node_whose_service_restarts_while_it_encodes_misses_no_round(field):
    nodes = field.hosts.nodes
    changes = {"mask_ratio": 0.75}  # which no node has encoded yet
    process = field.start("restarted", num_rounds=2, **changes)
    until(lambda: all(node.is_at_work(0, "query") for node in nodes), "nodes encode")
    held = until(nodes[0].client_app, "node 0 encodes")
    held.suspend()  # else the others might be done before node 3 is back
    nodes[3].end()
    nodes[3].restart()
    held.resume()
    output, _ = process.communicate(timeout=RUN_TIMEOUT_S)
    assert process.returncode == 0, output
    found = Run(field.folder / "results" / "restarted", {})
    assert found.answers(0, "prepare") == [0, 1, 2]
    assert found.answers(1, "prepare") == [3]
    assert found.answers(1) == found.answers(2) == [0, 1, 2, 3]
