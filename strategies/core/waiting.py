"""How long nodes are waited for, who rests, and what may be answered still: plain bookkeeping."""

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from logging import INFO, WARNING
from operator import itemgetter

from flwr.app import MessageType
from flwr.common import log

from fed_ist.config.run_config import RunConfig
from fed_ist.runs.checkpoint import State
from fed_ist.traffic.patience import JITTER_S, Patience
from fed_ist.traffic.rests import Rests
from strategies.core.exchange import Asked, Missing, Progress

SETS_PACE = 2.0  # times as long as all others, with which a node is told of
RESTS = "rests"  # key of a saved state: of nodes by name


class Names(dict[int, str]):
    """What nodes are called in logs and in the ledger, by Flower's ids; without a name, the id."""

    def __missing__(self, node_id: int) -> str:
        return str(node_id)


@dataclass
class Waiting:
    """Decides when a question has been answered by enough nodes, and which nodes are asked at all.

    A node that is silent rests for some rounds. A SuperNode takes one message after the other, so a
    node that is at work on an earlier message goes on with it, and is asked nothing else until it
    has answered.

    names: what nodes are called. unanswered: messages of before that nodes may still answer, by
    Flower's message ids. heard_s: when each node was last heard of (`time.monotonic`).
    """

    config: RunConfig
    names: Names
    rests: Rests = field(default_factory=Rests)
    unanswered: dict[str, Asked] = field(default_factory=dict)
    heard_s: dict[int, float] = field(default_factory=dict)
    _patience: Patience = field(default_factory=lambda: Patience(MessageType.TRAIN))

    def save(self) -> State:
        """Which nodes rest."""
        return State(values={RESTS: self.rests.save()})

    def restore(self, state: State) -> None:
        """Go on from what `save` gave."""
        self.rests.restore(state.values[RESTS])

    def until_s(self, kind: str, server_round: int, progress: Progress, n_lacking: int) -> float:
        """Seconds after a question was asked at which no more answers to it are waited for.

        kind: Flower's message type. n_lacking: what `count_lacking` gives.
        """
        if n_lacking > 0:
            return math.inf
        if not progress.waiting:
            return 0.0
        n_rounds_left = self.config.num_rounds - server_round
        least_s = self.config.round_deadline_s if kind == MessageType.TRAIN else 0.0
        return self._patience.until_s(
            kind, progress.answered_s, progress.waiting, n_rounds_left, least_s
        )

    def count_lacking(self, progress: Progress, n_had: int, share: float) -> int:
        """How many more nodes have to answer until there are enough; 0 or less if there are.

        n_had: nodes that count as if they had answered. share: of the nodes that can answer.
        """
        n_there = n_had + progress.n_earlier + len(progress.answered_s)
        expected = [i for i in progress.waiting if not self.rests.was_silent(self.names[i])]
        n_possible = n_there + len(expected)
        return max(self.config.min_nodes, math.ceil(share * n_possible)) - n_there

    def note(self, kind: str, server_round: int, missing: Missing, is_enough: bool) -> None:
        """Note how a question has ended, and log which nodes did not answer it.

        is_enough: whether enough nodes have answered.
        """
        answered_s = missing.progress.answered_s
        lost_s = missing.waited_s - max(answered_s.values(), default=0.0) if is_enough else 0.0
        self.unanswered |= missing.unanswered
        self._patience.note(kind, answered_s, lost_s)
        now_s = time.monotonic()
        for node_id in answered_s:
            self.rests.note_alive(self.names[node_id])
            self.heard_s[node_id] = now_s
        self._tell_of_pace(answered_s)
        for node_id in missing.away:
            log(WARNING, "Node %s is away: it has not answered", self.names[node_id])
        at_work = {a.node_id for a in missing.unanswered.values() if a.kind == MessageType.QUERY}
        for node_id in missing.silent:
            seconds = round(missing.waited_s, 1)
            if node_id not in at_work:
                self._note_silent(node_id, server_round, seconds)
            elif node_id in missing.progress.waiting:
                name, what = self.names[node_id], "it takes part once it is"
                log(WARNING, "Node %s is not prepared after %g s: %s", name, seconds, what)

    def _tell_of_pace(self, answered_s: Mapping[int, float]) -> None:
        """Log a node that alone took much longer than all others."""
        in_order = sorted(answered_s.items(), key=itemgetter(1))
        *_, (_, second_s), (slowest, slowest_s) = [(0, math.inf), (0, math.inf), *in_order]
        if slowest_s > SETS_PACE * second_s + JITTER_S:
            told = self.names[slowest], slowest_s, second_s
            log(INFO, "Node %s alone took %.0f s, the others %.0f s at most", *told)

    def _note_silent(self, node_id: int, server_round: int, seconds: float) -> None:
        name = self.names[node_id]
        self._patience.note_silent(node_id)
        again = self.rests.note_silent(name, server_round)
        what = f"it is asked again in round {again}, or once it is heard of"
        log(WARNING, "Node %s has not answered within %g s: %s", name, seconds, what)

    def drop_closed(self, connected: Collection[int], server_round: int) -> None:
        """Forget messages that Flower takes no answer to any more."""
        for message_id, asked in list(self.unanswered.items()):
            if asked.is_open and asked.node_id in connected:
                continue
            del self.unanswered[message_id]
            if asked.kind == MessageType.QUERY and asked.node_id in connected:
                self._note_silent(asked.node_id, server_round, self.config.prepare_timeout_s)

    def forget(self, node_ids: Collection[int]) -> None:
        """Forget what nodes were asked: they have been away in between."""
        kept = {i: a for i, a in self.unanswered.items() if a.node_id not in node_ids}
        self.unanswered = kept

    def note_late(self, asked: Asked, before_s: Mapping[int, float]) -> None:
        """Note an answer that came when nobody waited for it: its work is lost, its node is there.

        before_s: `heard_s` as it was before late answers were looked for.
        """
        name, now_s = self.names[asked.node_id], time.monotonic()
        seconds = now_s - max(asked.asked_s, before_s.get(asked.node_id, 0.0))
        self.heard_s[asked.node_id] = now_s
        self.rests.note_alive(name)
        self._patience.note_late(asked.kind, asked.node_id, seconds)
        log(INFO, "Node %s has answered too late, after some %.0f s", name, seconds)

    def awake(self, server_round: int, node_ids: Sequence[int]) -> list[int]:
        """The nodes that neither rest in a round nor are at work on what they were asked before;
        all of them where fewer than `min-nodes` are left.
        """
        at_work = {asked.node_id for asked in self.unanswered.values()}
        found = list(self._asked(server_round, node_ids, at_work))
        return found if len(found) >= self.config.min_nodes else list(node_ids)

    def _asked(
        self, server_round: int, node_ids: Sequence[int], at_work: Collection[int]
    ) -> Iterator[int]:
        for node_id in node_ids:
            name = self.names[node_id]
            if self.rests.was_silent(name):
                if not self.rests.rests(name, server_round):
                    yield node_id
            elif node_id not in at_work:
                yield node_id
