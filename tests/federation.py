"""A small federation in one process, for tests of strategies and nodes."""

import csv

import numpy as np
from faulty_grid import FaultyGrid
from flwr.app import ConfigRecord

from fed_ist.heads import init_params
from fed_ist.ledger import Ledger
from strategies import STRATEGIES
from strategies.wire import from_record, to_record

NODES = [900, 100, 500]
CLASSES = ("beach", "car-park", "farmland", "forest")


class Federation:
    """A strategy, its grid and its ledger, on the images of a folder."""

    def __init__(self, config, tmp_path, classes, node_ids=NODES, node_config=None):
        self.config = config
        self.ledger_path = tmp_path / "ledger.csv"
        self.ledger = Ledger(self.ledger_path)
        self.grid = FaultyGrid(config, node_ids, node_config)
        self.strategy = STRATEGIES[config.strategy](config, classes, 192, self.ledger)
        self.params = init_params(192, config.hidden_dim, len(classes), np.random.default_rng(0))

    def prepare(self):
        self.strategy.require_nodes(self.grid)
        return self

    def configure(self, number=1):
        arrays = to_record(self.params)
        return list(self.strategy.configure_train(number, arrays, ConfigRecord(), self.grid))

    def round(self, number=1):
        """One round; returns the parameters after it."""
        replies = self.grid.send_and_receive(self.configure(number))
        merged, _ = self.strategy.aggregate_train(number, replies)
        return self.params if merged is None else from_record(merged)

    def lines(self):
        with self.ledger_path.open() as file:
            return list(csv.DictReader(file))
