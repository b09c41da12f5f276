"""IST for anybody's Flower app: a strategy that any ClientApp with a model of its own can answer.

It is used as Flower's `FedAvg`, whose arguments and records it has. A node gets an ordinary
`ArrayRecord` of a smaller model, and the widths of that model in the `ConfigRecord`.
"""

import math
from collections.abc import Iterable, Mapping
from logging import INFO, WARNING
from typing import Any

import numpy as np
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Message,
    MessageType,
    MetricRecord,
    RecordDict,
)
from flwr.common import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from flwr.serverapp.strategy.strategy_utils import sample_nodes
from numpy.typing import NDArray

from fed_ist.classifier.any_model import (
    Axes,
    axes_by_shape,
    cut,
    input_scales,
    merge_back,
    require_axes,
    why_unfit,
)
from fed_ist.classifier.dealing import partition_neurons
from fed_ist.classifier.slices import Subnet
from fed_ist.errors import InputError, require_choice
from fed_ist.rng import generator

DEALINGS = ("random", "rotating")


class IstStrategy(FedAvg):
    """Independent Subnetwork Training (Yuan et al. 2022) as a Flower strategy.

    In each round the hidden neurons are dealt to `groups` of nodes, each of which trains a model of
    its neurons only; what comes back is written into the whole model. Nodes of one group get the
    same slice, which becomes the mean of theirs, weighted as FedAvg weights; numbers that belong to
    no hidden neuron become the mean of all. Where a group has no node, or no answer, its neurons
    stay as they were.

    widths: the name of each set of hidden neurons, as the nodes' model calls its width -> their
    number in the whole model. The config that a node gets has the same names, with the numbers of
    its slice.
    groups: into how many the neurons are dealt; 0: as many as nodes were sampled.
    dealing: "random" deals anew in each round; with "rotating" groups stay together and go round.
    rescale: whether weights of a slice's hidden inputs are multiplied by whole / slice on their way
    to a node, and divided when they come back, so that sums over fewer neurons are as large.
    axes: array name -> the axis of each dimension, or None (see `fed_ist.classifier.any_model`);
    if left out, the sizes of the arrays tell it.
    seed: of all that is drawn here.
    fedavg: Flower's own arguments, `fraction_train` and so on.

    Raises `InputError` for impossible arguments, and at the first round for arrays without such
    widths.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        groups: int = 0,
        dealing: str = "random",
        rescale: bool = True,
        axes: Axes | None = None,
        seed: int = 0,
        **fedavg: Any,
    ) -> None:
        super().__init__(**fedavg)
        require_choice("dealing", dealing, DEALINGS)
        if not widths or min(widths.values()) < 1:
            raise InputError("widths names the model's hidden neurons: {'hidden': 512}, say.")
        if not 0 <= groups <= min(widths.values()):
            raise InputError(
                f"groups = {groups} is not possible with {min(widths.values())} hidden neurons: "
                "give 0, or no more groups than neurons."
            )
        self.widths, self.groups, self.dealing = dict(widths), groups, dealing
        self.rescale, self.axes, self.seed = rescale, axes, seed
        self.n_rejected = 0  # replies that were left out so far
        self._model: dict[str, NDArray[Any]] = {}
        self._dealt: dict[int, Subnet] = {}  # by node, in this round
        self._sent: dict[Subnet, dict[str, NDArray[Any]]] = {}

    def summary(self) -> None:
        """Log the settings, as Flower's strategies do."""
        groups = self.groups or "as many as nodes"
        log(INFO, "\t├──> IST: %s, %s groups, dealt %s", self.widths, groups, self.dealing)
        super().summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message for each sampled node, with its own slice of `arrays`."""
        self._dealt, self._sent = {}, {}
        if self.fraction_train == 0.0:
            return []
        self._model = {name: array.numpy() for name, array in arrays.items()}
        axes = self._require_axes()
        node_ids, n_connected = self._sample(server_round, grid)
        is_rotating = self.dealing == "rotating"
        subnets = self._deal(server_round, n_connected if is_rotating else len(node_ids))
        messages = []
        for number, (place, node_id) in enumerate(node_ids.items()):
            turn = place + server_round if is_rotating else number
            subnet = self._dealt[node_id] = subnets[turn % len(subnets)]
            if subnet not in self._sent:
                self._sent[subnet] = self._slice(subnet, axes)
            mine = ConfigRecord({**config, "server-round": server_round, **_sizes(subnet)})
            record = RecordDict(
                {self.arrayrecord_key: _record(self._sent[subnet]), self.configrecord_key: mine}
            )
            messages.append(
                Message(content=record, message_type=MessageType.TRAIN, dst_node_id=node_id)
            )
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The whole model with the slices that came back, and the metrics as FedAvg has them.

        Replies that are no training of what was sent are logged, counted in `n_rejected` and left
        out; (None, None) where none is left.
        """
        fit: list[tuple[Subnet, dict[str, NDArray[Any]], float]] = []
        contents: list[RecordDict] = []
        for reply in replies:
            try:
                fit.append(self._read(reply))
                contents.append(reply.content)
            except ValueError as reason:
                self._leave_out(reply, reason)
        log(INFO, "aggregate_train: %d of %d slices merged", len(fit), len(self._dealt))
        if not fit:
            return None, None
        merged = merge_back(self._model, self.axes or {}, self.widths, fit)
        return _record(merged), self.train_metrics_aggr_fn(contents, self.weighted_by_key)

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Flower's own, with the widths of the whole model in the config."""
        whole = ConfigRecord({**config, **self.widths})
        return super().configure_evaluate(server_round, arrays, whole, grid)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """The metrics as FedAvg has them; None where no reply has any.

        Replies that have none are logged, counted in `n_rejected` and left out.
        """
        contents = []
        for reply in replies:
            try:
                self._read_weight(reply)
                contents.append(reply.content)
            except ValueError as reason:
                self._leave_out(reply, reason)
        return self.evaluate_metrics_aggr_fn(contents, self.weighted_by_key) if contents else None

    def _leave_out(self, reply: Message, reason: ValueError) -> None:
        self.n_rejected += 1
        log(WARNING, "Reply of node %s left out: %s", reply.metadata.src_node_id, reason)

    def _require_axes(self) -> Axes:
        if self.axes is None:
            self.axes = axes_by_shape(self._model, self.widths)
        else:
            require_axes(self._model, self.axes, self.widths)
        return self.axes

    def _sample(self, server_round: int, grid: Grid) -> tuple[dict[int, int], int]:
        """(place among all nodes -> id, of those that train in this round; how many there are)."""
        n_nodes = int(len(list(grid.get_node_ids())) * self.fraction_train)
        n_sampled = max(n_nodes, self.min_train_nodes)
        # Flower's own waits for the nodes; whom it draws depends on nothing that can be repeated.
        _, connected = sample_nodes(grid, self.min_available_nodes, n_sampled)
        order = generator(self.seed, "nodes", server_round).permutation(len(connected))
        drawn = {int(i): sorted(connected)[i] for i in sorted(order[:n_sampled])}
        return drawn, len(connected)

    def _deal(self, server_round: int, n_nodes: int) -> list[Subnet]:
        n_groups = self.groups or min(n_nodes, *self.widths.values())
        coordinates = (server_round,) if self.dealing == "random" else ()
        rng = generator(self.seed, "groups", *coordinates)
        return partition_neurons(self.widths, [1 / n_groups] * n_groups, rng)

    def _slice(self, subnet: Subnet, axes: Axes) -> dict[str, NDArray[Any]]:
        slice_ = cut(self._model, axes, subnet, self.widths)
        for name, factor in self._factors(subnet).items():
            slice_[name] *= slice_[name].dtype.type(factor)
        return slice_

    def _factors(self, subnet: Subnet) -> dict[str, float]:
        return input_scales(self.axes or {}, subnet, self.widths) if self.rescale else {}

    def _read(self, reply: Message) -> tuple[Subnet, dict[str, NDArray[Any]], float]:
        """The slice in a reply, as it is in the whole model; raises `ValueError`."""
        weight = self._read_weight(reply)
        subnet = self._dealt.get(reply.metadata.src_node_id)
        records = reply.content.array_records
        if subnet is None or len(records) != 1:
            raise ValueError("it was not asked, or has not one ArrayRecord")
        try:
            found = {name: array.numpy() for name, array in next(iter(records.values())).items()}
        except Exception as error:  # of arrays that are none, whatever they raise
            raise ValueError(f"its arrays cannot be read ({error})") from None
        sent = self._sent[subnet]
        if reason := why_unfit(found, sent):
            raise ValueError(reason)
        whole = cut(self._model, self.axes or {}, subnet, self.widths)
        for name, factor in self._factors(subnet).items():
            # By what changed, so that what did not change is as it was to the bit.
            found[name] = whole[name] + (found[name] - sent[name]) / factor
        return subnet, found, weight

    def _read_weight(self, reply: Message) -> float:
        """What a reply counts for, above 0; raises `ValueError`."""
        if reply.has_error():
            raise ValueError(reply.error.reason)
        metrics = list(reply.content.metric_records.values())
        weight = metrics[0].get(self.weighted_by_key) if len(metrics) == 1 else None
        if not isinstance(weight, int | float) or not 0 < weight < math.inf:
            raise ValueError(f"its '{self.weighted_by_key}' is {weight!r}, not a number above 0")
        return float(weight)


def _sizes(subnet: Subnet) -> dict[str, int]:
    return {axis: len(rows) for axis, rows in subnet.neurons.items()}


def _record(arrays: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})
