"""How what came back becomes the next classifier: by the mean, or by what a few cannot spoil."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from logging import WARNING

from flwr.common import log

from fed_ist.classifier.dissent import LEAST_NODES, Suspicion, spreads_below
from fed_ist.classifier.layout import Params
from fed_ist.classifier.node_weights import low_median
from fed_ist.classifier.robust import RobustMerger
from fed_ist.classifier.slices import Merger, Subnet
from fed_ist.config.methods import GROUPED
from fed_ist.config.run_config import RunConfig
from fed_ist.errors import InputError
from fed_ist.runs.checkpoint import State
from strategies.core.waiting import Names

SUSPICION = "suspicion"  # key of a saved state: of nodes by name
LEAST_TRIMMED = 3  # values of a weight, of which the largest and the smallest are left out


@dataclass
class Merging:
    """Merges slices as `aggregation`, `clip-norm` and `dissenters` say.

    names: what nodes are called.
    """

    config: RunConfig
    names: Names
    _suspicion: Suspicion = field(default_factory=Suspicion)

    def save(self) -> State:
        """How far each node has gone against the others so far."""
        return State(values={SUSPICION: dict(self._suspicion.by_name)})

    def restore(self, state: State) -> None:
        """Go on from what `save` gave."""
        self._suspicion = Suspicion(state.values[SUSPICION])

    def merger(self, params: Params, subnets: Sequence[Subnet]) -> Merger | RobustMerger:
        """What the slices that come back are given to.

        params: the classifier before the round, float32. subnets: of all slices that went out.
        """
        clip_norm, is_trimmed = self.config.clip_norm, self._is_trimmed
        if not clip_norm and not is_trimmed and self.config.dissenters == "keep":
            return Merger(params, subnets)
        return RobustMerger(params, clip_norm, self.config.trim_share if is_trimmed else None)

    def leave_out_dissenters(
        self, merger: Merger | RobustMerger, node_ids: Sequence[int]
    ) -> list[int]:
        """Take out of the merger what goes against all the rest, and tell from which nodes it came.

        node_ids: of the nodes whose slices the merger has, in the order in which it got them.
        """
        if self.config.dissenters == "keep" or not isinstance(merger, RobustMerger):
            return []
        if len(node_ids) < LEAST_NODES:
            return []
        names = [self.names[node_id] for node_id in node_ids]
        agreed = merger.agreements()
        suspects = self._suspicion.judge(dict(zip(names, spreads_below(agreed), strict=True)))
        places = [i for i, name in enumerate(names) if name in suspects]
        usual = low_median(agreed)
        for i in places:
            log(
                WARNING,
                "Reply of node %s left out: what it learnt goes against the others, in this round "
                "or before (now it agrees by %.2f, the median by %.2f)",
                *(names[i], agreed[i], usual),
            )
        merger.leave_out(places)
        return [node_ids[i] for i in places]

    def require(self, n_nodes: int) -> None:
        """Raise `InputError` where rounds of this number of nodes would have nothing to trim."""
        if not self._is_trimmed:
            return
        n_sampled = self.count_sampled(n_nodes)
        grouped = self.config.strategy in GROUPED
        n_slices = (self.config.groups or n_sampled) if grouped else 1
        if n_sampled < LEAST_TRIMMED * n_slices:
            raise InputError(
                f"aggregation = 'trimmed-mean' needs {LEAST_TRIMMED * n_slices} nodes in a round "
                f"of {n_slices} slices, and there are {n_sampled}: use more nodes, fewer groups, "
                "or clip-norm."
            )

    def count_sampled(self, n_nodes: int) -> int:
        """How many nodes a round asks, where this number is there."""
        return max(self.config.min_nodes, int(self.config.fraction_nodes * n_nodes))

    @property
    def _is_trimmed(self) -> bool:
        return self.config.aggregation == "trimmed-mean"
