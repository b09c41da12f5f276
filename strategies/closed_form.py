"""Methods without rounds: nodes send statistics of their embeddings once, the server solves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from fed_ist.classifier.exact_sum import ExactSum
from fed_ist.classifier.layout import Params
from fed_ist.config.derive import count_features, local_training
from fed_ist.rng import generator
from fed_ist.statistics.anchors import BIAS, WEIGHT, solve_anchor, solve_means, with_projection
from fed_ist.statistics.class_means import ClassSums, count_means, scatter_of_means
from fed_ist.statistics.gaussians import Gaussians, sample_gaussians
from fed_ist.statistics.ridge import Gram, GramSum, class_means
from fed_ist.traffic import protocol
from fed_ist.training.local import Examples, train
from strategies.core.method import ClosedForm

MOST_DRAWN = 2**18  # embeddings in a pass, so that counts that nodes state cannot fill the memory


@dataclass
class Fed3r(ClosedForm):
    """Ridge regression from summed statistics (Fanì et al. 2024); with `anchor-bytes` on random
    features, as many as these bytes allow (RanPAC: McDonnell et al. 2023).
    """

    @property
    def statistics(self) -> str:
        return protocol.RANDOM_GRAM if self._n_features else protocol.GRAM

    def solve(self, found: Sequence[Gram], start: Params) -> Params:
        total = GramSum()
        for stats in found:
            total.add(stats)
        head = solve_anchor(total.total(), self.config.anchor_scale)
        return with_projection(head, self.embed_dim, self._n_features, self.config.seed)

    @property
    def _n_features(self) -> int:
        return count_features(self.config, self.num_classes)


@dataclass
class FedNcm(ClosedForm):
    """The nearest class mean of embeddings of length 1 (Legate et al. 2023)."""

    @property
    def statistics(self) -> str:
        return protocol.CLASS_SUMS

    def solve(self, found: Sequence[ClassSums], start: Params) -> Params:
        total = ExactSum((self.num_classes, self.embed_dim + 1))
        for each in found:
            total.add(each.sums)
        weight, bias = class_means(total.total())
        return {WEIGHT: weight, BIAS: bias}


@dataclass
class FedCof(ClosedForm):
    """Ridge regression from class means, whose differences between nodes give the covariance
    (Guo et al. 2025).
    """

    @property
    def statistics(self) -> str:
        return protocol.CLASS_SUMS

    def solve(self, found: Sequence[ClassSums], start: Params) -> Params:
        total, n_means = GramSum(), sum(count_means(each) for each in found)
        for each in found:
            total.add(scatter_of_means(each))
        return solve_means(total.total(), n_means, self.config.anchor_scale)


@dataclass
class FedPft(ClosedForm):
    """The server trains the classifier on embeddings that it draws from the nodes' Gaussians, one
    for each class (Beitollahi et al. 2024): as many as nodes have, though no more than
    `MOST_DRAWN`, for as many passes as the rounds would take.
    """

    @property
    def statistics(self) -> str:
        return protocol.GAUSSIANS

    def solve(self, found: Sequence[Gaussians], start: Params) -> Params:
        seed = self.config.seed
        n_samples = min(MOST_DRAWN, int(sum(each.counts.sum() for each in found)))

        def draw(number_of_pass: int) -> Examples:
            return sample_gaussians(found, n_samples, generator(seed, "draw", number_of_pass))

        passes = self.config.num_rounds * max(1, self.config.local_epochs)
        how = replace(local_training(self.config), local_epochs=passes, local_steps=0)
        trained, _ = train(start, draw, how, 1.0, generator(seed, "train"))
        return trained
