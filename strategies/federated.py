"""The Flower Strategy that all methods share: the course of a run, and of each of its rounds.

Flower's own `FedAvg` does not serve: it sends one payload to all, samples with the global random
state, and accepts arrays of any shape.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fed_ist.classifier.layout import Params, hidden_widths, multiply_adds
from fed_ist.classifier.slices import extract
from fed_ist.config.derive import count_inputs, draw_classifier, local_training
from fed_ist.config.run_config import RunConfig
from fed_ist.errors import InputError
from fed_ist.rng import generator
from fed_ist.runs.checkpoint import Checkpoint, State
from fed_ist.statistics.anchors import trained_and_fixed
from fed_ist.traffic import protocol
from fed_ist.traffic.codecs import shapes_of
from fed_ist.traffic.ledger import Ledger
from strategies.core.beat import await_beat
from strategies.core.errands import Errand, Errands, untrained_as
from strategies.core.foundation import Foundation
from strategies.core.gathering import Gathering
from strategies.core.merging import Merging
from strategies.core.method import ClosedForm, Dealing, Method
from strategies.core.post import Post, RoundCounts
from strategies.core.purse import AllowanceSpent, Purse
from strategies.core.replies import RejectedError, UnpreparedError, require_size
from strategies.core.roster import Roster
from strategies.core.waiting import Waiting
from strategies.core.wire import from_record, to_record


@dataclass
class FederatedStrategy(Strategy):
    """A Flower strategy with a loop of its own, which can go on where a run was cut.

    class_names: the server's classes, by which nodes label their images.
    embed_dim: numbers in an embedding.
    decorrelated: whether the encoder decorrelates its embeddings itself.
    ledger: gets a line for each message.
    method: what the algorithm decides.

    It is composed of the `post`, which sends and hears; the `roster` of nodes; `gathering`, which
    asks nodes for statistics, and the `foundation` that these give the classifier; the `purse`,
    which knows what nodes may still spend; the `errands` of a round; and `merging`, which makes the
    next classifier of the slices that come back.
    """

    config: RunConfig
    class_names: tuple[str, ...]
    embed_dim: int
    ledger: Ledger
    method: Method | ClosedForm
    decorrelated: bool = False
    ended_early: str = ""  # why, if it did
    post: Post = field(init=False)
    roster: Roster = field(init=False)
    gathering: Gathering = field(init=False)
    foundation: Foundation = field(init=False)
    merging: Merging = field(init=False)
    purse: Purse = field(init=False, repr=False)  # of a method with rounds, as the next
    errands: Errands = field(init=False, repr=False)  # of the present round
    _maybe_untrained: bool = field(init=False, repr=False, default=True)

    def __post_init__(self) -> None:
        config = self.config
        self.post = Post(config, self.class_names, self.ledger)
        self.roster = Roster(config, self.embed_dim, self.post)
        self.gathering = Gathering(config, self.post, self.roster)
        self.foundation = Foundation(config, self.roster, self.gathering, self.decorrelated)
        self.merging = Merging(config, self.post.names)
        if isinstance(self.method, Method):
            self.purse = Purse(config, self.roster, self.foundation, self.method)

    # --- the course of a run -----------------------------------------------------------------

    def run(
        self,
        grid: Grid,
        evaluate_fn: Callable[[int, Params], None],
        resumed: Checkpoint | None = None,
    ) -> None:
        """All rounds, or those after the checkpoint's. The nodes have been required.

        evaluate_fn: called with the round and the classifier (float32 arrays) after each round, and
        with round 0 and what the run starts from.
        Ends earlier where `max-bytes-per-node` leaves too few nodes another slice.
        """
        try:
            if resumed is None:
                params = self.begin(self._drawn(), grid)
                evaluate_fn(0, params)
            else:
                params = resumed.params
            done = 0 if resumed is None else resumed.round
            for server_round in range(done + 1, self.num_rounds + 1):
                await_beat(self.config.round_every_s, server_round)
                log(INFO, "[ROUND %d/%d]", server_round, self.num_rounds)
                params = self.one_round(server_round, params, grid)
                evaluate_fn(server_round, params)
        except AllowanceSpent as reason:
            self.ended_early = str(reason)
            log(WARNING, "The run ends here: %s", reason)

    def _drawn(self) -> Params:
        n_inputs = count_inputs(self.config, self.embed_dim)
        return draw_classifier(self.config, n_inputs, len(self.class_names))

    @property
    def num_rounds(self) -> int:
        """How many rounds are to be run; a closed form has none."""
        return 0 if isinstance(self.method, ClosedForm) else self.config.num_rounds

    def require_nodes(self, grid: Grid, server_round: int = 0) -> None:
        """Wait for the nodes and prepare them; raises `InputError` where too few can take part.

        server_round: the last one that a resumed run has completed.
        """
        self.roster.require(grid, server_round)
        if isinstance(self.method, Method):
            self.merging.require(len(self.roster.available(grid)))

    def begin(self, params: Params, grid: Grid) -> Params:
        """The classifier before the first round, once the nodes are prepared.

        It is the drawn one (params, float32) with what statistics give, or what a closed form
        solves.
        """
        if isinstance(self.method, Method):
            return self.foundation.begin(params, grid)
        kind, nodes = self.method.statistics, self.roster.available(grid)
        found = dict(self.gathering.collect(grid, 0, nodes, kind))
        agreed = self.gathering.agreed(kind, found)
        if len(agreed) < self.config.min_nodes:
            raise InputError(
                f"min-nodes = {self.config.min_nodes}, but only {len(agreed)} nodes sent their "
                "statistics. The log above says what is wrong with the others."
            )
        return self.method.solve([agreed[i] for i in nodes if i in agreed], params)

    # --- a round -----------------------------------------------------------------------------

    def one_round(self, server_round: int, params: Params, grid: Grid) -> Params:
        """The classifier after a round, float32; params: before it.

        Flower's own loop is not used, as it can only begin with the first round.
        """
        messages = self.ask(server_round, params, grid)
        replies = self.post.hear(grid, messages, self.config.round_timeout_s)
        merged, loss = self.take(replies)
        if merged is None:
            return params
        log(INFO, "Round %d: %s", server_round, {protocol.LOSS: loss})
        return merged

    def ask(self, server_round: int, params: Params, grid: Grid) -> Iterable[Message]:
        """What a round sends: one message a node, each with its own slice of params (float32)."""
        if isinstance(self.method, ClosedForm):
            return []
        self.post.counts = RoundCounts()
        self.roster.wait(grid, self.config.round_timeout_s)
        self.roster.prepare(grid, server_round)
        self.foundation.renew(grid, server_round)
        self.errands = self._deal(self.method, server_round, trained_and_fixed(params)[0], grid)
        self.post.counts.asked = len(self.errands.of_node)
        return self._messages(self.errands)

    def _deal(self, method: Method, server_round: int, params: Params, grid: Grid) -> Errands:
        """Who trains which slice of these parameters in a round; nobody where too few can."""
        widths = hidden_widths(params)
        drawn_as = untrained_as(params, self._drawn()) if self._maybe_untrained else ""
        self._maybe_untrained = bool(drawn_as)
        errands = Errands(self.config, method, server_round, params, widths, drawn_as)
        connected = self.roster.available(grid)
        nodes = [i for i in connected if self.purse.can_pay(server_round, i)]
        if len(nodes) < self.config.min_nodes:
            if len(connected) >= self.config.min_nodes:
                self.purse.end(connected)
            log(WARNING, "Round skipped: %d of %d nodes", len(nodes), self.config.min_nodes)
            return errands
        rng = generator(self.config.seed, "round", server_round)
        # Who rests is drawn and left out, so that the others' order is the same.
        awake = set(self.post.waiting.awake(server_round, nodes))
        order = [i for i in rng.permutation(len(nodes)) if nodes[i] in awake]
        drawn = order[: self.merging.count_sampled(len(nodes))]
        sampled = [nodes[i] for i in drawn]
        capacities = [self.purse.affordable_share(server_round, i) for i in sampled]
        places = np.argsort(np.argsort(drawn)).tolist()
        subnets = method.deal(Dealing(widths, capacities, places, server_round, rng))
        slices = {subnet: extract(params, subnet) for subnet in dict.fromkeys(subnets)}
        weights = self.roster.weights()
        for i, node_id in enumerate(sampled):
            subnet = subnets[i % len(subnets)]
            if self.purse.pays_for(server_round, node_id, shapes_of(slices[subnet])):
                n_examples = self.roster.prepared[node_id].n_examples
                errands.of_node[node_id] = Errand(
                    subnet, slices[subnet], capacities[i], n_examples, weights[node_id]
                )
        return errands

    def _messages(self, errands: Errands) -> Iterable[Message]:
        """One after the other, so that they need not all be in memory."""
        for number, node_id in enumerate(errands.of_node):
            message = errands.message(number, node_id, self.foundation.task(node_id))
            self.post.enter(errands.server_round, "down", message)
            yield message

    def take(self, replies: Iterable[Message]) -> tuple[Params | None, float | None]:
        """The classifier after a round (float32 arrays), and the mean loss of its replies; None for
        both if nothing came.

        Replies that are fit are merged; the others are logged, counted, and change nothing.
        """
        if isinstance(self.method, ClosedForm):
            return None, None
        errands, counts, how = self.errands, self.post.counts, local_training(self.config)
        merger = self.merging.merger(errands.params, [e.subnet for e in errands.of_node.values()])
        losses: dict[int, float] = {}
        for reply in replies:
            node_id = reply.metadata.src_node_id
            counts.answered += 1
            try:
                if node_id not in errands.of_node or node_id in losses:
                    raise RejectedError("it was not asked, or has answered before")
                errand = errands.of_node[node_id]
                n_bytes = self.post.enter(errands.server_round, "up", reply)
                require_size(reply, n_bytes, self.purse.reply_bytes(shapes_of(errand.sent)))
                trained = errands.read(node_id, reply)
                merger.add(errand.subnet, trained.slice, errand.weight)
            except RejectedError as reason:
                self.post.reject(node_id, "Reply", reason)
                if isinstance(reason, UnpreparedError):
                    self.roster.prepared.pop(node_id, None)
                continue
            losses[node_id] = trained.loss
            counts.compute_s += trained.seconds
            counts.multiply_adds += how.count_seen(errand.n_examples) * multiply_adds(errand.sent)
        for node_id in self.merging.leave_out_dissenters(merger, list(losses)):
            counts.rejected += 1
            del losses[node_id]
        if not losses:
            return None, None
        params = self.method.step(errands.params, merger.merged())
        loss = math.fsum(losses.values()) / len(losses)  # whatever order the replies came in
        return self.foundation.whole(params), loss

    # --- between rounds ----------------------------------------------------------------------

    def save(self) -> State:
        """What is remembered between rounds, beside what nodes say when they prepare."""
        saved = [part.save() for part in self._parts()]
        arrays = {name: array for state in saved for name, array in state.arrays.items()}
        values = {key: value for state in saved for key, value in state.values.items()}
        return State(arrays, values)

    def restore(self, state: State) -> None:
        """Go on from what `save` gave, before any node is prepared."""
        self.post.allowance.resume(self.ledger.bytes_of_node)
        for part in self._parts():
            part.restore(state)

    def _parts(self) -> Sequence[Waiting | Roster | Foundation | Purse | Merging | Method]:
        """Those that remember something between rounds."""
        if isinstance(self.method, ClosedForm):
            return self.post.waiting, self.roster
        parts = self.post.waiting, self.roster, self.foundation, self.purse, self.merging
        return *parts, self.method

    # --- Flower's own loop -------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """`ask`, for Flower's own loop."""
        return self.ask(server_round, from_record(arrays), grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """`take`, for Flower's own loop."""
        params, loss = self.take(replies)
        if params is None or loss is None:
            return None, None
        return to_record(params), MetricRecord({protocol.LOSS: loss})

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Nothing: the server evaluates, so that the classifier is never sent whole."""
        return []

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        return None

    def summary(self) -> None:
        what = type(self.method).__name__
        log(INFO, "\t%s on %d nodes", what, len(self.roster.prepared))
