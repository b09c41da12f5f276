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

    A SuperNode takes one message after the other. So a node that is at work on one that it was sent
    before goes on with it, and is asked nothing else until it has answered.
    """

    rests: Rests = field(default_factory=Rests)
    _patience: Patience = field(default_factory=lambda: Patience(MessageType.TRAIN))
    _open: dict[str, Asked] = field(default_factory=dict)  # what may be answered still
    _heard_s: dict[int, float] = field(default_factory=dict)  # when nodes were last (monotonic)

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
            n_rounds_left = self.config.num_rounds - int(group)
            least_s = self.config.round_deadline_s if kind == MessageType.TRAIN else 0.0
            return self._patience.until_s(
                kind, progress.answered_s, progress.waiting, n_rounds_left, least_s
            )

        missing = yield from exchange(grid, noted(), timeout_s, until, earlier)
        self._open = {i: asked for i, asked in self._open.items() if i not in (earlier or {})}
        self._open |= missing.unanswered
        answered_s = missing.progress.answered_s
        is_enough = self._count_lacking(grid, missing.progress, n_had) <= 0
        lost_s = missing.waited_s - max(answered_s.values(), default=0.0) if is_enough else 0.0
        self._patience.note(kind, answered_s, lost_s)
        now_s = time.monotonic()
        for node_id in answered_s:
            self.rests.note_alive(self._name(node_id))
            self._heard_s[node_id] = now_s
        in_order = sorted(answered_s.items(), key=itemgetter(1))
        *_, (_, second_s), (slowest, slowest_s) = [(0, math.inf), (0, math.inf), *in_order]
        if slowest_s > SETS_PACE * second_s + JITTER_S:
            told = self._name(slowest), slowest_s, second_s
            log(INFO, "Node %s alone took %.0f s, the others %.0f s at most", *told)
        if missing.n_foreign:
            self.counts.rejected += missing.n_foreign
            log(WARNING, "%d replies rejected: of other nodes than they say", missing.n_foreign)
        for node_id in missing.away:
            log(WARNING, "Node %s is away: it has not answered", self._name(node_id))
        at_work = {a.node_id for a in missing.unanswered.values() if a.kind == MessageType.QUERY}
        for node_id in missing.silent:
            seconds = round(missing.waited_s, 1)
            if node_id not in at_work:
                self._note_silent(node_id, int(group), seconds)
            elif node_id in missing.progress.waiting:
                name, what = self._name(node_id), "it takes part once it is"
                log(WARNING, "Node %s is not prepared after %g s: %s", name, seconds, what)
        return missing

    def hear_late(self, grid: Grid, connected: Collection[int], server_round: int) -> None:
        """Notice which nodes have answered after all: their work is lost, but they are there."""
        for message_id, asked in list(self._open.items()):
            if asked.is_open and asked.node_id in connected:
                continue
            del self._open[message_id]
            if asked.kind == MessageType.QUERY and asked.node_id in connected:
                self._note_silent(asked.node_id, server_round, self.config.prepare_timeout_s)
        ids = [i for i, asked in self._open.items() if asked.kind != MessageType.QUERY]
        heard_s = dict(self._heard_s)
        for reply in pull(grid, ids):
            found = self._open.pop(reply.metadata.reply_to_message_id, None)
            if found is None or (reply.has_error() and reply.error.code in OF_SUPERLINK):
                continue
            self._enter(server_round, "up", reply)
            name, now_s = self._name(found.node_id), time.monotonic()
            seconds = now_s - max(found.asked_s, heard_s.get(found.node_id, 0.0))
            self._heard_s[found.node_id] = now_s
            self.rests.note_alive(name)
            self._patience.note_late(found.kind, found.node_id, seconds)
            log(INFO, "Node %s has answered too late, after some %.0f s", name, seconds)

    def _note_silent(self, node_id: int, server_round: int, seconds: float) -> None:
        name = self._name(node_id)
        self._patience.note_silent(node_id)
        again = self.rests.note_silent(name, server_round)
        what = f"it is asked again in round {again}, or once it is heard of"
        log(WARNING, "Node %s has not answered within %g s: %s", name, seconds, what)

    def awake(self, server_round: int, node_ids: Sequence[int]) -> list[int]:
        """The nodes that neither rest in a round nor are at work on what they were asked before;
        all, where fewer than `min-nodes` are left.
        """
        at_work = {asked.node_id for asked in self._open.values()}

        def is_asked(node_id: int) -> bool:
            name = self._name(node_id)
            if self.rests.was_silent(name):
                return not self.rests.rests(name, server_round)
            return node_id not in at_work

        found = [i for i in node_ids if is_asked(i)]
        return found if len(found) >= self.config.min_nodes else list(node_ids)

    def _count_lacking(self, grid: Grid, progress: Progress, n_had: int) -> int:
        """How many more have to answer until there are enough."""
        n_there = n_had + progress.n_earlier + len(progress.answered_s)
        expected = [i for i in progress.waiting if not self.rests.was_silent(self._name(i))]
        n_possible = n_there + len(expected)
        # A simulation's nodes take turns on this machine: none of them is late.
        share = 1.0 if isinstance(grid, InMemoryGrid) else self.config.enough_share
        return max(self.config.min_nodes, math.ceil(share * n_possible)) - n_there
