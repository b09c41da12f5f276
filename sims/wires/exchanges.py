"""What crossed the wires, divided into messages and replies, with what the ledger says of them."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fed_ist.errors import InputError
from fed_ist.runs.reading import open_run
from fed_ist.runs.tables import Row
from fed_ist.traffic.packets import (
    NOTHING,
    LinkBytes,
    bytes_of_heartbeats,
    bytes_of_message,
    bytes_of_waiting,
    round_trips,
)
from sims.wires.namespaces import Counters, Wires, read_counters
from sims.wires.supernode import SuperNode

SAMPLE_S = 0.05
SETTLE_S = 0.1  # the last acknowledgements come after "sent"


@dataclass(frozen=True)
class Exchange:
    """A message to a node and its reply, with bytes from the ledger and bytes that were counted.

    payload, message: from the ledger. link: the ledger's estimate, or what it would be without TLS.
    counted: without what polls are estimated to take; a run's first exchange includes its start.
    waited_s: how long the node polled before it. compute_s: between receiving and replying.
    n_round_trips: of both messages.
    """

    round: int
    node: int
    payload: LinkBytes
    message: LinkBytes
    link: LinkBytes
    counted: LinkBytes
    waited_s: float
    compute_s: float
    n_round_trips: int


@dataclass
class Watch:
    """The counters of all wires, sampled again and again.

    pid: a process in the server's namespace. samples: (`time.monotonic`, counters of each node).
    """

    pid: int
    wires: Wires
    samples: list[tuple[float, list[Counters]]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def go_on(self) -> None:
        """Take samples until `ended` is set."""
        while not self.ended.wait(SAMPLE_S):
            self.samples.append((time.monotonic(), read_counters(self.pid, self.wires)))

    def at(self, moment_s: float, node: int) -> Counters:
        """What had crossed a node's wire at a moment, by the last sample before it."""
        (_, counters) = next(s for s in reversed(self.samples) if s[0] <= moment_s)
        return counters[node]


@contextmanager
def watching(pid: int, wires: Wires) -> Iterator[Watch]:
    """A watch on all wires that samples during the block."""
    watch = Watch(pid, wires)
    watch.samples.append((time.monotonic(), read_counters(pid, wires)))
    thread = threading.Thread(target=watch.go_on, daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        watch.ended.set()
        thread.join()


def read_exchanges(
    run: Path, nodes: Sequence[SuperNode], watch: Watch, begun_s: float, *, tls: bool
) -> list[Exchange]:
    """The exchanges of a run by round and node, with figures of the ledger and of the counters."""
    lines = open_run(run).ledger
    found = []
    for node, supernode in enumerate(nodes):
        own = [line for line in lines if line["node"] == supernode.node_id]
        pairs = zip(own[::2], own[1::2], strict=True)
        last_s = begun_s
        for (down, up), (poll_s, received_s, reply_s, sent_s) in zip(
            pairs, exchanges_since(supernode, begun_s), strict=True
        ):
            assert (down["direction"], up["direction"]) == ("down", "up")
            crossed = watch.at(sent_s + SETTLE_S, node).since(watch.at(last_s, node))
            waiting = bytes_of_waiting(poll_s - last_s, tls=tls)
            waiting += bytes_of_heartbeats(sent_s + SETTLE_S - poll_s, tls=tls)
            link, n_round_trips = NOTHING, 0
            for line in (down, up):
                way, n_objects = str(line["direction"]), _number(line, "n_objects")
                link += bytes_of_message(way, _number(line, "message_bytes"), n_objects, tls=tls)
                n_round_trips += round_trips(way, n_objects, tls=tls)
            found.append(
                Exchange(
                    round=_number(down, "round"),
                    node=node,
                    payload=_both(down, up, "payload_bytes"),
                    message=_both(down, up, "message_bytes"),
                    link=link,
                    counted=LinkBytes(
                        crossed.bytes_down - waiting.down, crossed.bytes_up - waiting.up
                    ),
                    waited_s=poll_s - last_s,
                    compute_s=reply_s - received_s,
                    n_round_trips=n_round_trips,
                )
            )
            last_s = sent_s + SETTLE_S
    return sorted(found, key=lambda exchange: (exchange.round, exchange.node))


def _number(line: Row, column: str) -> int:
    value = line[column]
    assert isinstance(value, int)
    return value


def _both(down: Row, up: Row, column: str) -> LinkBytes:
    return LinkBytes(_number(down, column), _number(up, column))


def exchanges_since(node: SuperNode, begun_s: float) -> list[tuple[float, float, float, float]]:
    """Four times for each message: polled, received, reply ready, reply sent (`time.monotonic`).

    Raises `InputError` where the node's log shows that a message was not received or sent.
    """
    events = [event for event in node.events if event.at_s >= begun_s]
    wanted = ["poll", "received", "reply", "sent"] * (len(events) // 4)
    if [event.what for event in events] != wanted:
        raise InputError(
            f"The SuperNode {node.node_id} failed to receive or send a message. The end of its "
            "log:\n" + "\n".join(node.said[-5:])
        )
    times = [event.at_s for event in events]
    return list(zip(times[::4], times[1::4], times[2::4], times[3::4], strict=True))
