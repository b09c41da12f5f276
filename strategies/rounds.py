"""The course of a run: what it starts from, round after round, and why it ends."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from logging import INFO, WARNING

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common import log
from flwr.serverapp import Grid

from fed_ist import protocol
from fed_ist.checkpoint import Checkpoint
from fed_ist.config.run_config import RunConfig
from fed_ist.heads import Params, init_params
from fed_ist.rng import generator
from strategies.nodes import NodeStrategy
from strategies.wire import from_record, to_record


class AllowanceSpent(Exception):  # noqa: N818 - it ends a run as it should end
    """Too few nodes may receive and send another slice."""


def draw_classifier(config: RunConfig, embed_dim: int, num_classes: int) -> Params:
    """What a run starts from, drawn from its seed."""
    return init_params(
        embed_dim,
        config.hidden_dim,
        num_classes,
        generator(config.seed, "init"),
        config.hidden_layers,
        config.norm,
    )


@dataclass
class RoundStrategy(NodeStrategy):
    """A Flower strategy with a loop of its own, which can go on where a run was cut."""

    ended_early: str = ""  # why, if it did

    @property
    def anchor_used(self) -> str:
        """What the nodes' statistics gave the classifier, if a method has them."""
        return "none"

    @property
    def num_rounds(self) -> int:
        """How many rounds are to be run."""
        return self.config.num_rounds

    def initial(self, params: Params, grid: Grid) -> Params:
        """What the run starts from, once the nodes are prepared: `params` unless a method knows
        better.
        """
        return params

    def run(
        self,
        grid: Grid,
        evaluate_fn: Callable[[int, Params], None],
        resumed: Checkpoint | None = None,
    ) -> None:
        """All rounds, or those after the checkpoint's. The nodes have been required.

        evaluate_fn: called after each round, and with round 0 and what the run starts from.
        Ends earlier where `max-bytes-per-node` leaves too few nodes another slice.
        """
        try:
            if resumed is None:
                drawn = draw_classifier(self.config, self.embed_dim, len(self.class_names))
                params = self.initial(drawn, grid)
                evaluate_fn(0, params)
            else:
                params = resumed.params
            done = 0 if resumed is None else resumed.round
            for server_round in range(done + 1, self.num_rounds + 1):
                log(INFO, "[ROUND %d/%d]", server_round, self.num_rounds)
                params = self._one_round(server_round, params, grid)
                evaluate_fn(server_round, params)
        except AllowanceSpent as reason:
            self.ended_early = str(reason)
            log(WARNING, "The run ends here: %s", reason)

    def _one_round(self, server_round: int, params: Params, grid: Grid) -> Params:
        """The classifier after a round; Flower's own loop cannot begin but with the first."""
        messages = self.ask(server_round, params, grid)
        replies = self.hear(grid, messages, self.config.round_timeout_s)
        merged, loss = self.take(server_round, replies)
        if merged is None:
            return params
        log(INFO, "Round %d: %s", server_round, {protocol.LOSS: loss})
        return merged

    def ask(self, server_round: int, params: Params, grid: Grid) -> Iterable[Message]:
        """What a round sends, one message a node."""
        return []

    def take(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[Params | None, float | None]:
        """What a round's replies make of the classifier, and their mean loss; None if nothing."""
        return None, None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """`ask`, for Flower's own loop."""
        return self.ask(server_round, from_record(arrays), grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """`take`, for Flower's own loop."""
        params, loss = self.take(server_round, replies)
        if params is None or loss is None:
            return None, None
        return to_record(params), MetricRecord({protocol.LOSS: loss})
