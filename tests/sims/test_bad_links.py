"""Runs over links that lose packets and hold them back, hundredfold what a network should."""

import pytest
from conftest import ROOT
from field import draw_field
from test_wire_bench import needs_namespaces

from fed_ist.deploy.gatekeeper import find_nginx
from fed_ist.errors import InputError
from fed_ist.runs.reading import open_run
from fed_ist.traffic.links import Link
from sims.wires.hosts import running, start_run
from sims.wires.namespaces import wired
from sims.wires.slow_wire import WAYS, slow

try:
    find_nginx()
    LACKING = ""
except InputError as lacking:
    LACKING = str(lacking)
pytestmark = [pytest.mark.flower, pytest.mark.slow, needs_namespaces]


@pytest.mark.parametrize(
    "loss, latency_s, spoiled, timeout_s, relayed",
    [
        (0.05, 0.5, WAYS, 300.0, False),
        (0.3, 2.0, ("up",), 1200.0, False),
        (0.05, 0.5, WAYS, 300.0, True),
        (0.3, 2.0, ("up",), 1200.0, True),
    ],
    ids=[
        "5% lost, 0.5 s each way",
        "as by tc netem delay 2s loss 30%",
        "the first with the relay",
        "the second with the relay",
    ],
)
def test_a_run_completes(tmp_path, loss, latency_s, spoiled, timeout_s, relayed):
    if relayed and LACKING:
        pytest.skip(LACKING)
    draw_field(tmp_path)
    n_nodes = 2
    configs = [{"name": str(i), "data-path": str(tmp_path / f"node{i}")} for i in range(n_nodes)]
    link = Link("bad", 1e6, 1e6, latency_s, loss, None, None, None, {})
    settings = {
        "dataset": tmp_path / "train.parquet",
        "test-dataset": tmp_path / "test",
        "results-dir": tmp_path / "results",
        "hidden-dim": 32,
        "num-rounds": 2,
        "min-nodes": 1,
        "round-timeout-s": timeout_s,
        "prepare-timeout-s": timeout_s,
    }
    with (
        wired(n_nodes, tun=True) as wires,
        slow(wires, link, spoiled),
        running(
            wires,
            tmp_path,
            configs,
            tls=True,
            authenticated=True,
            relayed=relayed,
            connect_timeout_s=timeout_s,
        ) as hosts,
    ):
        process = start_run(wires, hosts, ROOT, "bad", settings)
        output, _ = process.communicate()
    assert process.returncode == 0, output
    rounds = open_run(tmp_path / "results" / "bad").rounds
    print([(row["seconds"], row["answered"]) for row in rounds])  # for docs/deploy.md
    if relayed and spoiled == WAYS:  # the other link may keep one silent for longer than a round
        assert [row["answered"] for row in rounds[1:]] == [n_nodes, n_nodes]
