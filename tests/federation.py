"""A strategy on real nodes in this process, and what a test wants to ask it."""

import csv
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from faulty_grid import FaultyGrid
from flwr.app import ConfigRecord, Message

from clients.coding import drawn_slice
from clients.data import EMBEDDINGS, STATE
from fed_ist.classifier.layout import Params, init_params, param_shapes
from fed_ist.config.derive import count_inputs
from fed_ist.config.run_config import RunConfig
from fed_ist.encoder.embeddings import Embeddings, load_cached
from fed_ist.traffic import protocol
from fed_ist.traffic.codecs import decode
from fed_ist.traffic.ledger import Ledger
from strategies import create_strategy
from strategies.core.errands import Errand
from strategies.core.post import RoundCounts
from strategies.core.roster import Prepared
from strategies.core.wire import from_record, to_record

NODES = [900, 100, 500]
# Settings with which what comes back is averaged by examples, and nothing else.
PLAIN_MEAN = {"clip_norm": 0.0, "max_weight": 0.0, "dissenters": "keep"}
CLASSES = ("beach", "car-park", "farmland", "forest")


class Federation:
    """A strategy, its grid and its ledger, on the images of a folder."""

    def __init__(
        self,
        config: RunConfig,
        tmp_path: Path,
        classes: tuple[str, ...] = CLASSES,
        node_ids: list[int] = NODES,
        node_config: dict[str, Any] | None = None,
    ) -> None:
        self.config = config
        self.ledger_path = Path(tempfile.mkdtemp(dir=tmp_path), "ledger.csv")
        self.ledger = Ledger(self.ledger_path)
        self.grid = FaultyGrid(config, node_ids, node_config)
        self.strategy = create_strategy(config, classes, 192, self.ledger)
        self.params = init_params(
            count_inputs(config, 192),
            config.hidden_dim,
            len(classes),
            np.random.default_rng(0),
            config.hidden_layers,
            config.norm,
        )

    @property
    def counts(self) -> RoundCounts:
        return self.strategy.post.counts

    @property
    def prepared(self) -> dict[int, Prepared]:
        return self.strategy.roster.prepared

    @property
    def errands(self) -> dict[int, Errand]:
        return self.strategy.errands.of_node

    def prepare(self) -> "Federation":
        self.strategy.require_nodes(self.grid)
        return self

    def begin(self) -> "Federation":
        """Prepared, and with the parameters from which the rounds start."""
        self.prepare()
        self.params = self.strategy.begin(self.params, self.grid)
        return self

    def configure(self, number: int = 1) -> list[Message]:
        arrays = to_record(self.params)
        return list(self.strategy.configure_train(number, arrays, ConfigRecord(), self.grid))

    def round(self, number: int = 1) -> Params:
        """One round; returns the parameters after it."""
        return self.strategy.one_round(number, self.params, self.grid)

    def rounds(self, *numbers: int) -> Params:
        """These rounds, one after the other."""
        for number in numbers:
            self.params = self.round(number)
        return self.params

    def lines(self) -> list[dict[str, str]]:
        with self.ledger_path.open() as file:
            return list(csv.DictReader(file))

    def sent(self, kind: str, number: int | None = None) -> dict[int, Message]:
        """Node id -> the last message of this type, of this round if one is named."""
        return {m.metadata.dst_node_id: m for m in self.grid.sent if _is(m, kind, number)}

    def received(self, kind: str, number: int | None = None) -> dict[int, Message]:
        """Node id -> its last reply of this type, to a message of this round if one is named."""
        return {m.metadata.src_node_id: m for m in self.grid.received if _is(m, kind, number)}

    def slice_to(self, node_id: int, number: int = 1) -> Params:
        """The slice that the node got in this round."""
        return self._decoded(node_id, number, task(self.sent("train", number)[node_id]))

    def slice_from(self, node_id: int, number: int = 1) -> Params:
        """What the node answered."""
        reply = self.received("train", number)[node_id]
        record = reply.content.config_records[protocol.REPLY]
        return self._decoded(node_id, number, record)

    def _decoded(self, node_id: int, number: int, record: Any) -> Params:
        widths = task(self.sent("train", number)[node_id])[protocol.WIDTHS]
        is_reply = protocol.WIDTHS not in record
        codec = self.config.up_codec if is_reply else self.config.down_codec
        if protocol.DRAWN in record:
            return drawn_slice(record, self.config)
        return decode(record[protocol.SLICE], codec, param_shapes(widths, self.config.norm))

    def node(self, partition: int) -> int:
        """The id of the node that has this partition."""
        (found,) = (i for i, p in self.prepared.items() if p.name == str(partition))
        return found

    def examples(self, node_id: int) -> Embeddings:
        """What the node has in its cache."""
        state = self.grid.contexts[node_id].state.config_records[STATE]
        found = load_cached(Path(str(state[EMBEDDINGS])))
        assert found is not None
        return found


def _is(message: Message, kind: str, number: int | None) -> bool:
    metadata = message.metadata
    return metadata.message_type == kind and number in (None, int(metadata.group_id))


def plain_arrays(message: Message) -> dict[str, np.ndarray]:
    """Those that no codec is made for."""
    return from_record(message.content.array_records[protocol.ARRAYS])


def statistics(reply: Message, n_features: int, codec: str = "fp32") -> dict[str, np.ndarray]:
    """The sums in a reply."""
    data = reply.content.config_records[protocol.REPLY][protocol.STATISTICS]
    q = n_features + 1
    shapes = {protocol.GRAM: (q * (q + 1) // 2,), protocol.CLASS_SUMS: (len(CLASSES), q)}
    return decode(data, codec, shapes)


def task(message: Message) -> dict[str, Any]:
    return dict(message.content.config_records[protocol.TASK])
