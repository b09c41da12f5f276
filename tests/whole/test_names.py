"""Whose a name is: its key's where keys are registered with names, else whoever had it first."""

import shutil
import subprocess
from functools import partial

import pytest
from conftest import HANG_S
from deployed import Deployed, outcome, settings
from federation import NODES
from flwr.proto.node_pb2 import NodeInfo

from fed_ist.deploy.certificates import write_certificates
from fed_ist.deploy.node_keys import write_node_key
from fed_ist.launch.processes import free_port, wait_until_listening

FIRST, SECOND, THIRD = NODES  # of which the second has the smallest id


@pytest.fixture
def federate(federate, embedded):
    return partial(federate, cache_dir=embedded, hidden_layers=1)


def call(federation, names):
    """Give nodes names of their own: id -> what it says."""
    for node_id, name in names.items():
        context = federation.grid.contexts[node_id]
        data_path = federation.config.dataset
        context.node_config = {"data-path": data_path} | ({"name": name} if name else {})


def register(federation, *node_ids, **names):
    """What the SuperLink knows: the nodes in the order in which they registered; the names of
    their keys, by `node<id>`.
    """
    federation.grid.known = {
        node_id: NodeInfo(
            node_id=node_id,
            registered_at=f"2026-11-30T08:00:0{i}+00:00",
            name=names.get(f"node{node_id}"),
        )
        for i, node_id in enumerate(node_ids)
    }


def names(federation):
    return {node_id: node.name for node_id, node in federation.prepared.items()}


def test_without_keys_who_was_there_first_has_the_name_whatever_the_ids(federate, caplog):
    federation = federate()
    call(federation, {FIRST: "north", SECOND: "north", THIRD: "south"})
    register(federation, *NODES)
    federation.prepare()
    assert names(federation) == {FIRST: "north", THIRD: "south"}
    assert f"Node {SECOND} came later" in caplog.text
    assert f"Node {FIRST}" not in caplog.text.replace(f"node {FIRST}, which is connected", "")


def test_without_keys_a_name_is_kept_while_its_node_is_there(federate, caplog):
    federation = federate(min_nodes=1)
    call(federation, {FIRST: "north", SECOND: "north", THIRD: "south"})
    register(federation, SECOND, FIRST, THIRD)  # the late-comer was connected before
    late = federation.grid.contexts.pop(SECOND)
    federation.prepare()
    federation.grid.contexts[SECOND] = late
    federation.rounds(1, 2)
    assert names(federation) == {FIRST: "north", THIRD: "south"}
    assert caplog.text.count(f"Node {SECOND} came later") == 2  # asked again in each round
    del federation.grid.contexts[FIRST]
    federation.rounds(3)
    assert names(federation) == {SECOND: "north", THIRD: "south"}


def test_bytes_of_a_node_that_has_not_got_the_name_are_not_the_holders(federate):
    federation = federate()
    call(federation, {FIRST: "north", SECOND: "north", THIRD: "south"})
    register(federation, *NODES)
    federation.prepare()
    lines = [line["node"] for line in federation.lines()]
    assert sorted(lines) == sorted(["north", "south", str(SECOND)] * 2)


def test_a_name_is_its_keys(federate, caplog):
    """The dishonest node came first, and its id is the smallest."""
    federation = federate()
    call(federation, {FIRST: "north", SECOND: "north", THIRD: ""})
    keys = {f"node{FIRST}": "north", f"node{SECOND}": "south", f"node{THIRD}": "west"}
    register(federation, SECOND, FIRST, THIRD, **keys)
    federation.prepare()
    assert names(federation) == {FIRST: "north", THIRD: "west"}
    assert f"Node {SECOND}: it calls itself 'north', and its key is registered as 'south'" in (
        caplog.text
    )
    assert f"Node {SECOND} is passed over" in caplog.text
    federation.rounds(1)
    assert len([line for line in federation.lines() if line["kind"] == "error"]) == 0
    assert caplog.text.count("it calls itself") == 1  # and is not asked again


@pytest.mark.parametrize("others", [{f"node{FIRST}": "north"}, {f"node{FIRST}": "east"}])
def test_a_key_without_a_name_gives_none_where_others_have_one(federate, others, caplog):
    """It could otherwise take that of a node that is away."""
    federation = federate()
    call(federation, {FIRST: "", SECOND: "north", THIRD: ""})
    register(federation, *NODES, **others)
    federation.prepare()
    assert names(federation) == {FIRST: others[f"node{FIRST}"], THIRD: str(THIRD)}
    assert "its key is registered without a name" in caplog.text


def test_the_node_whose_keys_name_it_is_gets_it_back(federate, caplog):
    """From one that had no key with a name, and was there before."""
    federation = federate(min_nodes=1)
    call(federation, {FIRST: "north", SECOND: "north", THIRD: "south"})
    register(federation, *NODES, **{f"node{FIRST}": "north"})
    owner = federation.grid.contexts.pop(FIRST)
    federation.prepare()
    assert names(federation) == {SECOND: "north", THIRD: "south"}
    federation.grid.contexts[FIRST] = owner
    federation.rounds(1)
    assert names(federation) == {FIRST: "north", THIRD: "south"}
    assert f"Node {SECOND} is passed over: 'north' is the name of another node's key" in caplog.text
    lines = [line for line in federation.lines() if line["kind"] == "train"]
    assert {line["node"] for line in lines} == {"north", "south"}


@pytest.mark.parametrize("name", ["north of the river", "\x1b[31mnorth", "n" * 41])
def test_what_is_no_name_of_ours_is_no_keys_either(federate, name, caplog):
    federation = federate()
    call(federation, {FIRST: "", SECOND: "north", THIRD: ""})
    register(federation, *NODES, **{f"node{FIRST}": name, f"node{THIRD}": name})
    federation.prepare()
    assert names(federation) == {FIRST: str(FIRST), SECOND: "north", THIRD: str(THIRD)}
    assert "\x1b" not in caplog.text


def test_a_reply_that_says_it_is_another_nodes_is_rejected(federate, caplog):
    """The SuperLink knows who sent it; its content is the node's, its metadata too."""
    federation = federate().prepare()

    def fault(reply, asked):
        reply.metadata.__dict__["_src_node_id"] = FIRST
        return reply

    federation.grid.faults[SECOND] = fault
    federation.round(1)
    counts = federation.counts
    assert (counts.asked, counts.answered, counts.rejected) == (3, 2, 1)
    assert "1 replies rejected: of other nodes than they say" in caplog.text


class Keyed(Deployed):
    """The same with TLS, and nodes that the SuperLink knows by their keys."""

    def start_superlink(self) -> None:
        self.certificates = write_certificates(self.folder / "keys", ["127.0.0.1"])
        (self.folder / "flwr" / "config.toml").write_text(
            f'[superlink.field]\naddress = "{self.address}"\n'
            f'root-certificates = "{self.certificates.authority}"\n'
        )
        command = f"flower-superlink --host 127.0.0.1 --port {self.port} --enable-supernode-auth"
        files = {
            "--ssl-ca-certfile": self.certificates.authority,
            "--ssl-certfile": self.certificates.server,
            "--ssl-keyfile": self.certificates.key,
            "--database": self.folder / "state.db",
        }
        words = [f"{option}={path}" for option, path in files.items()]
        self.superlink = self._start([*command.split(), *words])
        wait_until_listening(self.superlink, self.port, "SuperLink", self.log)

    def start_keyed(self, key_name: str, **node_config: str) -> None:
        key = write_node_key(self.folder / "keys", key_name)
        register = ["flwr", "supernode", "register", f"{key}.pub", "field", "--name", key_name]
        subprocess.run(register, env=self.environment, check=True, timeout=HANG_S)
        command = f"flower-supernode --superlink {self.address} --port {free_port()}"
        options = [f"--root-certificates={self.certificates.authority}"]
        options += [f"--auth-supernode-private-key={key}"]
        given = " ".join(f"{key.replace('_', '-')}='{v}'" for key, v in node_config.items())
        self._start([*command.split(), *options, "--node-config", given])


@pytest.mark.flower
@pytest.mark.slow
def test_a_registered_device_cannot_take_the_name_of_another(tmp_path, image_folder):
    for node in ("north", "south", "server"):
        shutil.copytree(image_folder, tmp_path / node)
    field = Keyed(tmp_path)
    try:
        field.start_keyed("south", name="north", data_path=str(tmp_path / "south"))
        field.start_keyed("west", name="west", data_path=str(tmp_path / "south"))
        field.start_keyed("north", name="north", data_path=str(tmp_path / "north"))
        options = settings(
            dataset=tmp_path / "server",
            results_dir=tmp_path / "results",
            num_rounds=1,
            hidden_dim=16,
            min_nodes=2,
            enough_share=1.0,
        )
        code, said = outcome(field.run("--name", "keyed", *options))
    finally:
        field.end()
    assert code == 0, said
    assert "it calls itself 'north', and its key is registered as 'south'" in said
    ledger = (tmp_path / "results" / "keyed" / "ledger.csv").read_text().splitlines()
    trained = [line.split(",")[1] for line in ledger if ",train" in line]
    assert sorted(trained) == ["north", "north", "west", "west"]
