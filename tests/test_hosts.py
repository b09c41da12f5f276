"""A deployed federation: a SuperLink and four SuperNodes as hosts of their own, with TLS and keys,
each node with a folder of its own. It is compared with a simulation, and disturbed.
"""

import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Thread

import psutil
import pytest
from conftest import ROOT
from field import CLASSES, MIXES, UNKNOWN, Field, draw_field, read_table, until
from safetensors.numpy import load_file
from test_wire_bench import needs_namespaces

from clients.app import app as client_app
from fed_ist.config import parse_config, read_defaults
from fed_ist.encoder import create_encoder
from sims.local_grid import LocalGrid
from sims.namespaces import wired
from sims.server_app import open_folder, run
from sims.wire_hosts import running

pytestmark = [pytest.mark.flower, pytest.mark.slow, needs_namespaces]
ROUND_TIMEOUT_S = 55.0  # below the minute after which Flower says that a ClientApp has died
RUN_TIMEOUT_S = 900.0  # of a run that takes a minute or two on a machine that is not busy


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    folder = tmp_path_factory.mktemp("field")
    draw_field(folder)
    configs = [{"name": str(i), "data-path": str(folder / f"node{i}")} for i in range(len(MIXES))]
    with (
        wired(len(MIXES), tun=False) as wires,
        running(wires, folder, configs, tls=True, authenticated=True) as hosts,
    ):
        yield Field(wires, hosts, folder)


@pytest.fixture(scope="module")
def undisturbed(field):
    """The folders of two runs with the same settings: deployed and simulated."""
    settings = {"num_rounds": 2, "min_nodes": 4}
    with field.start("deployed", **settings) as process:
        output, _ = process.communicate(timeout=RUN_TIMEOUT_S)
    assert process.returncode == 0, output
    values = read_defaults(ROOT / "pyproject.toml") | field.settings(name="simulated", **settings)
    config = parse_config(values | {"cache-dir": str(field.folder / "simulated-cache")})
    grid = LocalGrid(client_app, config, [900, 100, 500, 300])
    folder, _ = open_folder(config)
    run(grid, config, create_encoder(config.encoder_spec), folder, None)
    return field.folder / "results" / "deployed", folder.path


def test_a_deployment_repeats_the_simulation_bit_for_bit(undisturbed):
    deployed, simulated = (load_file(path / "model.safetensors") for path in undisturbed)
    assert deployed.keys() == simulated.keys()
    for name, array in simulated.items():
        assert deployed[name].tobytes() == array.tobytes(), name
    rows = [read_table(path / "rounds.csv") for path in undisturbed]
    for there, here in zip(*rows, strict=True):
        for key in ("round", "accuracy", "loss", "asked", "answered", "rejected"):
            assert there[key] == here[key], key
    assert float(rows[0][-1]["accuracy"]) > 0.4  # it has learnt something: chance is a quarter


def test_the_payload_of_each_message_is_the_simulations(undisturbed):
    def payloads(path):
        lines = read_table(path / "ledger.csv")
        keys = ("round", "node", "direction", "kind")
        return {tuple(line[key] for key in keys): int(line["payload_bytes"]) for line in lines}

    deployed, simulated = map(payloads, undisturbed)
    assert deployed == simulated
    assert len(deployed) == 2 * len(MIXES) * 3  # prepared, and two rounds


def test_nodes_with_other_classes_each_agree_with_the_server(field, undisturbed):
    summary = json.loads((undisturbed[0] / "summary.json").read_text())
    assert summary["num_classes"] == len(CLASSES)
    assert summary["images_of_unknown_classes"] == MIXES[2][UNKNOWN]
    assert summary["images"] == sum(sum(mix.values()) for mix in MIXES) - MIXES[2][UNKNOWN]
    said = [f"{UNKNOWN} (4 images)" in "\n".join(node.said) for node in field.hosts.nodes]
    assert said == [False, False, True, False]


@dataclass(frozen=True)
class Disturbed:
    """A run's folder, and when node 2 had its power cut (`time.time`)."""

    folder: Path
    cut_at: float

    def answers(self, server_round, kind="train"):
        """The nodes that answered in a round."""
        lines = read_table(self.folder / "ledger.csv")
        wanted = (str(server_round), "up", kind)
        found = [
            line for line in lines if (line["round"], line["direction"], line["kind"]) == wanted
        ]
        return sorted(int(line["node"]) for line in found)

    def counts(self, server_round):
        """(asked, answered, rejected) of a round."""
        row = read_table(self.folder / "rounds.csv")[server_round]
        return tuple(int(row[key]) for key in ("asked", "answered", "rejected"))


def process_in_training(node, server_round):
    """The ClientApp that has begun to train, for which it has loaded torch."""

    def found():
        process = node.is_at_work(server_round, "train") and node.client_app()
        with suppress(psutil.NoSuchProcess):
            if process and any("libtorch" in area.path for area in process.memory_maps()):
                return process

    return until(found, f"a node trains in round {server_round}")


@pytest.fixture(scope="module")
def disturbed(field, undisturbed):
    """A run in which

    - node 3's service is stopped while it encodes, and started again;
    - in round 1 node 0's ClientApp is killed, node 1's stands still until the round is over, and
      node 2 has a power cut, from which it returns as soon as Flower lets it, in round 3.
    """
    nodes, ids = field.hosts.nodes, [node.node_id for node in field.hosts.nodes]
    folder = field.folder / "results" / "disturbed"
    changes = {"mask_ratio": 0.75}  # which no node has encoded yet
    process = field.start("disturbed", num_rounds=4, round_timeout_s=ROUND_TIMEOUT_S, **changes)
    until(lambda: all(node.is_at_work(0, "query") for node in nodes), "nodes encode")
    first = until(nodes[0].client_app, "node 0 encodes")
    first.suspend()  # else the others might be done before node 3 is back
    nodes[3].end()
    nodes[3].restart()
    first.resume()

    process_in_training(nodes[0], 1).kill()
    slow = process_in_training(nodes[1], 1)
    slow.suspend()
    process_in_training(nodes[2], 1)
    cut_at = time.time()
    nodes[2].cut_power()
    returning = Thread(target=nodes[2].restart)
    returning.start()
    until(lambda: len(read_table(folder / "rounds.csv")) == 2, "round 1 ends")
    slow.resume()
    third = process_in_training(nodes[3], 3)
    third.suspend()
    returning.join()
    third.resume()
    output, _ = process.communicate(timeout=RUN_TIMEOUT_S)
    assert process.returncode == 0, output
    assert [node.node_id for node in nodes] == ids
    return Disturbed(folder, cut_at)


def test_a_node_whose_service_restarts_while_it_encodes_misses_no_round(disturbed):
    assert disturbed.answers(0, "prepare") == [0, 1, 2]
    assert disturbed.answers(1, "prepare") == [3]
    assert all(3 in disturbed.answers(server_round) for server_round in (1, 2, 3, 4))


def test_the_round_goes_on_without_nodes_that_are_killed_or_too_slow(disturbed):
    assert disturbed.answers(1) == [3]
    assert disturbed.counts(1) == (4, 1, 0)


def test_a_late_reply_does_no_harm_and_its_node_answers_the_next_round(disturbed):
    assert {1, 3} <= set(disturbed.answers(2))
    assert disturbed.counts(2)[2] == 0


def test_a_node_whose_training_was_killed_takes_part_again(disturbed):
    assert 0 in disturbed.answers(4)


def test_a_node_that_had_a_power_cut_returns_as_the_same_and_encodes_nothing_again(
    field, disturbed
):
    assert disturbed.answers(3, "prepare") + disturbed.answers(4, "prepare") == [2]
    assert disturbed.answers(4) == [0, 1, 2, 3]
    assert disturbed.counts(4) == (4, 4, 0)
    entries = list((field.folder / "cache2").rglob("embeddings.npy"))
    assert len(entries) == 2  # of both ratios
    assert all(path.stat().st_mtime < disturbed.cut_at for path in entries)
