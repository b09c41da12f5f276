"""Methods without rounds: nodes send statistics of their embeddings once, the server solves."""

from dataclasses import dataclass, replace

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from fed_ist import protocol
from fed_ist.anchors import BIAS, WEIGHT, solve_anchor, with_projection
from fed_ist.capacity import MESSAGE_OVERHEAD_BYTES
from fed_ist.config.derive import count_features, local_training
from fed_ist.errors import InputError
from fed_ist.exact_sum import ExactSum
from fed_ist.gaussians import Gaussians, sample_gaussians, within_share
from fed_ist.heads import Params
from fed_ist.possible import require_possible_gaussians
from fed_ist.rng import generator
from fed_ist.statistics import GramSum, class_means
from fed_ist.training import Examples, train
from fed_ist.weights import low_median
from strategies.gathering import GatheringStrategy
from strategies.replies import read_arrays

MOST_DRAWN = 2**18  # embeddings in a pass, lest the counts that nodes state fill the memory


@dataclass
class ClosedFormStrategy(GatheringStrategy):
    """Asks every prepared node once; nodes that come later change nothing."""

    @property
    def num_rounds(self) -> int:
        return 0

    def require(self, n_nodes: int) -> None:
        """Raise `InputError` where statistics came from so few nodes."""
        if n_nodes < self.config.min_nodes:
            raise InputError(
                f"min-nodes = {self.config.min_nodes}, but only {n_nodes} nodes sent their "
                "statistics. The log above says what is wrong with the others."
            )


@dataclass
class Fed3rStrategy(ClosedFormStrategy):
    """Ridge regression from summed statistics (Fanì et al. 2024); with `anchor-bytes` on random
    features, as many as these bytes allow (RanPAC: McDonnell et al. 2023).
    """

    def initial(self, params: Params, grid: Grid) -> Params:
        n_features = count_features(self.config, len(self.class_names))
        kind = protocol.RANDOM_GRAM if n_features else protocol.GRAM
        came, found = dict(self.collect_gram(grid, 0, self.available(grid), kind)), GramSum()
        for stats in self.agreed_grams(came):
            found.add(stats)
        self.require(found.n_terms)
        head = solve_anchor(found.total(), self.config.anchor_scale)
        return with_projection(head, self.embed_dim, n_features, self.config.seed)


@dataclass
class FedNcmStrategy(ClosedFormStrategy):
    """The nearest class mean of embeddings of length 1 (Legate et al. 2023)."""

    def initial(self, params: Params, grid: Grid) -> Params:
        came = {
            node_id: self.share_counted(node_id) * sums.astype(np.float64)
            for node_id, sums in self.collect_class_sums(grid, 0, self.available(grid))
        }
        gone = self.dissenters(came)
        self.require(len(came) - len(gone))
        found = ExactSum((len(self.class_names), self.embed_dim + 1))
        for node_id, sums in came.items():
            if node_id not in gone:
                found.add(sums)
        weight, bias = class_means(found.total())
        return {WEIGHT: weight, BIAS: bias}


@dataclass
class FedPftStrategy(ClosedFormStrategy):
    """The server trains the classifier on embeddings that it draws from the nodes' Gaussians, one
    for each class (Beitollahi et al. 2024): as many as nodes have, though no more than
    `MOST_DRAWN`, for as many passes as the rounds would take.
    """

    def initial(self, params: Params, grid: Grid) -> Params:
        shape = (len(self.class_names), self.embed_dim)
        wanted = {
            "means": (shape, "float32"),
            "variances": (shape, "float32"),
            "counts": (shape[:1], "int64"),
        }
        nodes = self.available(grid)
        kind = protocol.GAUSSIANS
        # Three arrays, each with a header and a name.
        n_bytes = 4 * MESSAGE_OVERHEAD_BYTES + 8 * (self.embed_dim + 1) * len(self.class_names)

        def read(reply: Message, n_examples: int) -> Gaussians:
            found = Gaussians(**read_arrays(reply, wanted))
            require_possible_gaussians(found, n_examples)
            return found

        came = dict(self.collect(grid, 0, nodes, kind, read, n_bytes))
        found = {i: within_share(each, self.share_counted(i)) for i, each in came.items()}
        if found:
            # What a node says of its own variances must not decide by what it is judged.
            variance = low_median([each.variance for each in found.values()])
            for node_id in self.dissenters({i: g.sums for i, g in found.items()}, variance):
                del found[node_id]
        self.require(len(found))
        gaussians = [found[node_id] for node_id in nodes if node_id in found]
        n_samples = min(MOST_DRAWN, int(sum(each.counts.sum() for each in gaussians)))
        seed = self.config.seed

        def draw(number_of_pass: int) -> Examples:
            return sample_gaussians(gaussians, n_samples, generator(seed, "draw", number_of_pass))

        passes = self.config.num_rounds * max(1, self.config.local_epochs)
        how = replace(local_training(self.config), local_epochs=passes, local_steps=0)
        trained, _ = train(params, draw, how, 1.0, generator(seed, "train"))
        return trained
