"""Replies of all kinds that no node should send: none ends a run, and nothing of them stays."""

import copy
import math
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from faulty_grid import FaultyGrid
from federation import NODES
from reply_mutations import mutate

from fed_ist.config.methods import STRATEGIES, TRAINED
from fed_ist.traffic import protocol
from fed_ist.traffic.ledger import Ledger
from strategies import create_strategy

BAD = NODES[1]
KINDS = ("query", protocol.STATISTICS_QUERY, "train")
N_SAMPLE, N_ALL = 8, 1600  # runs of each case: at every test, and all 50,000
VARIANTS = {
    **{strategy: {"strategy": strategy} for strategy in STRATEGIES},
    "anchored, int4": {
        **{"strategy": "ist", "anchor": "ridge", "down_codec": "int4", "up_codec": "int4"},
        **{"reply": "update", "statistics_codec": "fp16", "zstd": True},
    },
    "8 bits": {"strategy": "ist", "anchor": "ridge", "statistics_codec": "int8"},
    "class means, 4 bits": {
        **{"strategy": "fedavg", "hidden_layers": 0, "anchor": "means"},
        "statistics_codec": "int4",
    },
    "batch norm": {"strategy": "fedavg", "norm": "batch"},
    "trimmed": {"strategy": "fedavg", "aggregation": "trimmed-mean", "n_nodes": 5},
    "undefended": {
        **{"strategy": "ist", "anchor": "ridge", "clip_norm": 0.0, "max_weight": 0.0},
        "dissenters": "keep",
    },
}


def kinds_of(settings):
    """The messages to which nodes reply in a run with these settings."""
    is_trained = settings["strategy"] in TRAINED
    has_statistics = not is_trained or "anchor" in settings
    wanted = {"query": True, protocol.STATISTICS_QUERY: has_statistics, "train": is_trained}
    return [kind for kind in KINDS if wanted[kind]]


CASES = [(name, kind) for name, settings in VARIANTS.items() for kind in kinds_of(settings)]


class Remembering(FaultyGrid):
    """Has a node work out its honest reply to a message once, however often it is asked."""

    def __init__(self, config, node_ids):
        super().__init__(config, node_ids)
        self.worked_out = {}

    def pull_messages(self, message_ids):
        self.app, self._honest = self._recall, self.app
        try:
            yield from super().pull_messages(message_ids)
        finally:
            self.app = self._honest

    def _recall(self, message, context):
        metadata = message.metadata
        task = message.content.config_records[protocol.TASK]
        told = sha256(bytes(task.get(protocol.SLICE, b""))).digest()
        parts = tuple(sorted(k for k in task if k in protocol.PARTS))
        key = (metadata.dst_node_id, metadata.message_type, str(task.get(protocol.STATISTICS)))
        key += (told, parts, str(task.get(protocol.VERSIONS)))
        if key not in self.worked_out:
            self.worked_out[key] = self._honest(message, context)
        found = copy.copy(self.worked_out[key])
        found.metadata.__dict__["_reply_to_message_id"] = metadata.message_id
        return found


def fuzz(federation, kind, n, tmp_path):
    """`n` runs of one round, in each of which one reply of one node is mutated."""
    config, rng = federation.config, np.random.default_rng(0)
    grid = Remembering(config, list(federation.grid.contexts))
    grid.faulty_type = kind
    grid.faults = {BAD: lambda reply, asked: mutate(reply, asked, rng)}
    for i in range(n):
        grid.sent, grid.received = [], []
        ledger = Ledger(path := Path(tmp_path, f"{i}.csv"))
        strategy = create_strategy(config, federation.strategy.class_names, 192, ledger)
        strategy.require_nodes(grid)
        params = strategy.begin(federation.params, grid)
        if strategy.num_rounds:
            params = strategy.one_round(1, params, grid)
        ledger.close()
        assert all(np.isfinite(array).all() for array in params.values()), i
        counts = strategy.post.counts
        assert math.isfinite(counts.compute_s) and math.isfinite(counts.multiply_adds)
        state = strategy.save()
        kept = [array for array in state.arrays.values() if array.dtype.kind == "f"]
        assert all(np.isfinite(array).all() for array in kept), i
        prepared = strategy.roster.prepared
        for place, node_id in enumerate(grid.contexts):
            # Without keys a node may call itself what it likes, and who registered first has it.
            is_robbed = BAD in prepared and prepared[BAD].name == str(place)
            assert node_id in prepared or node_id == BAD or is_robbed, i
        assert not {"nan", "inf"} & set(path.read_text().replace("\n", ",").split(","))
        path.unlink()


@pytest.mark.usefixtures("quiet_flower")
@pytest.mark.parametrize("n", [N_SAMPLE, pytest.param(N_ALL, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_no_reply_ends_a_run_or_leaves_what_is_not_finite(name, kind, n, federate, tmp_path):
    settings = {"num_rounds": 1, "min_nodes": 2} | VARIANTS[name]
    node_ids = [*NODES, 7, 8][: settings.pop("n_nodes", 3)]
    fuzz(federate(node_ids, **settings).prepare(), kind, n, tmp_path)
