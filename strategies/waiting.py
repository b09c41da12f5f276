"""How the strategies wait: until enough have answered, and for nobody who stays silent."""

import math
import time
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING
from operator import itemgetter

from flwr.app import Message, MessageType
from flwr.common import log
from flwr.serverapp import Grid
from flwr.superlink.grid import InMemoryGrid

from fed_ist.patience import JITTER_S, Patience
from fed_ist.rests import Rests
from strategies.counting import CountingStrategy
from strategies.exchange import OF_SUPERLINK, Asked, Missing, Progress, exchange, pull

SETS_PACE = 2.0  # times as long as all others, with which a node is told of


@dataclass
class WaitingStrategy(CountingStrategy):
    """A Flower strategy that ends a round without those who are silent, and lets them rest.

    A node that is asked to prepare, and takes long, goes on with it meanwhile: it is asked nothing
    else until it has answered.
    """

    rests: Rests = field(default_factory=Rests)
    _patience: Patience = field(default_factory=Patience)
    _open: dict[str, Asked] = field(default_factory=dict)  # what may be answered still

    def hear(
        self,
        grid: Grid,
        messages: Iterable[Message],
        timeout_s: float,
        n_had: int = 0,
        earlier: Mapping[str, Asked] | None = None,
    ) -> Generator[Message, None, Missing]:
        """Send messages, one a node, and yield the replies; who does not answer is logged.

        It ends once `enough-share` of the nodes, and `min-nodes`, have answered and a grace time is
        over. n_had: nodes that count as if they had, and are not asked. earlier: messages of before
        to which replies are taken too, though they are not waited for once there are enough.
        """
        kind, group = "", ""

        def noted() -> Iterator[Message]:
            nonlocal kind, group
            for message in messages:
                kind, group = message.metadata.message_type, message.metadata.group_id
                yield message

        def until(progress: Progress) -> float:
            n_lacking = self._count_lacking(grid, progress, n_had)
            if n_lacking > 0 or not progress.waiting:
                return math.inf if n_lacking > 0 else 0.0
            others, named = [self._name(i) for i in progress.waiting], self._named(progress)
            if kind != MessageType.TRAIN:
                return self._patience.until_s(kind, named, others)
            n_to_come = self.config.num_rounds - int(group)
            deadline_s = self.config.round_deadline_s
            return self._patience.until_s(kind, named, others, n_to_come, deadline_s)

        missing = yield from exchange(grid, noted(), timeout_s, until, earlier)
        self._open = {i: asked for i, asked in self._open.items() if i not in (earlier or {})}
        still_open = {i: asked for i, asked in missing.unanswered.items() if asked.is_open}
        self._open |= still_open
        answered_s = self._named(missing.progress)
        is_enough = self._count_lacking(grid, missing.progress, n_had) <= 0
        lost_s = missing.waited_s - max(answered_s.values(), default=0.0) if is_enough else 0.0
        self._patience.note(kind, answered_s, lost_s)
        for name in answered_s:
            self.rests.note_alive(name)
        *_, second, slowest = [("", 0.0), ("", 0.0), *sorted(answered_s.items(), key=itemgetter(1))]
        if slowest[1] > SETS_PACE * second[1] + JITTER_S:
            told = (*slowest, second[1])
            log(INFO, "Node %s alone took %.0f s, the others %.0f s at most", *told)
        if missing.n_foreign:
            self.counts.rejected += missing.n_foreign
            log(WARNING, "%d replies rejected: of other nodes than they say", missing.n_foreign)
        for node_id in missing.away:
            log(WARNING, "Node %s is away: it has not answered", self._name(node_id))
        at_work = {a.node_id for a in still_open.values() if a.kind == MessageType.QUERY}
        for node_id in missing.silent:
            name, seconds = self._name(node_id), round(missing.waited_s, 1)
            if node_id not in at_work:
                self._patience.note_silent(name)
                again = self.rests.note_silent(name, int(group or 0))
                what = f"it is asked again in round {again}, or once it is heard of"
                log(WARNING, "Node %s has not answered within %g s: %s", name, seconds, what)
            elif node_id in missing.progress.waiting:
                what = "it takes part once it is"
                log(WARNING, "Node %s is not prepared after %g s: %s", name, seconds, what)
        return missing

    def hear_late(self, grid: Grid, connected: Collection[int], server_round: int) -> None:
        """Notice which nodes have answered after all: their work is lost, but they are there."""
        self._open = {
            i: asked
            for i, asked in self._open.items()
            if asked.is_open and asked.node_id in connected
        }
        ids = [i for i, asked in self._open.items() if asked.kind != MessageType.QUERY]
        for reply in pull(grid, ids):
            asked = self._open.pop(reply.metadata.reply_to_message_id, None)
            if asked is None or (reply.has_error() and reply.error.code in OF_SUPERLINK):
                continue
            self._enter(server_round, "up", reply)
            name, seconds = self._name(asked.node_id), time.monotonic() - asked.asked_s
            self.rests.note_alive(name)
            self._patience.note_late(asked.kind, name, seconds)
            log(INFO, "Node %s has answered too late, after some %.0f s", name, seconds)

    def awake(self, server_round: int, node_ids: Sequence[int]) -> list[int]:
        """The nodes that do not rest in a round; all, where fewer than `min-nodes` are left."""
        found = [i for i in node_ids if not self.rests.rests(self._name(i), server_round)]
        return found if len(found) >= self.config.min_nodes else list(node_ids)

    def _count_lacking(self, grid: Grid, progress: Progress, n_had: int) -> int:
        """How many more have to answer until there are enough."""
        n_there = n_had + progress.n_earlier + len(progress.answered_s)
        expected = [i for i in progress.waiting if not self.rests.was_silent(self._name(i))]
        n_possible = n_there + len(expected)
        # A simulation's nodes take turns on this machine: none of them is late.
        share = 1.0 if isinstance(grid, InMemoryGrid) else self.config.enough_share
        return max(self.config.min_nodes, math.ceil(share * n_possible)) - n_there

    def _named(self, progress: Progress) -> dict[str, float]:
        return {self._name(i): seconds for i, seconds in progress.answered_s.items()}
