"""What a message costs on a node's link: bytes of IP packets in both directions, estimated.

A node of Flower asks for everything over HTTP/1.1. To get a message it sends PullMessages, a
PullObject for each object that the message is made of, and ConfirmMessageReceived; to reply, it
sends PushMessages and a PushObject for each object. So a message down costs requests and
acknowledgements up, and a message up costs answers down. While it waits, a node asks every three
seconds whether there is a message, and sends a heartbeat about every twenty.

Counted is what a modem's quota counts: IP packets with their IPv4, TCP and TLS headers, without
those of Ethernet or the radio, and without what is sent again after a loss. The sizes below were
read from a capture of Flower 1.42.0 with httpx 0.28 and uvicorn 0.49 on Linux; `fed-ist bench wire`
repeats the measurement and says how far this estimate is from the interface counters.
"""

import math
from dataclasses import dataclass

MTU_BYTES = 1500
PACKET_BYTES = 52  # IPv4 20, TCP 20, its timestamps 12
SYN_BYTES = 60  # with the options of a first packet
TLS_RECORD_BYTES = 22  # TLS 1.3: a header of 5, a type of 1, a tag of 16
TLS_RECORD_PAYLOAD = 16_384
# Of a request: all headers but the path and the digits of the content's length; a node signs each
# (its public key and signature are half of it). Of a response: all but those digits.
REQUEST_BYTES = 820
RESPONSE_BYTES = 127
# Protobuf: what is beside an object, or beside a message's list of objects, by object and once.
PULL_REQUEST, PULLED_OBJECT = 89, 6
PUSHED_OBJECT, STORED = 129, 2
LISTED_DOWN, LIST_DOWN = 68.6, 134.0
LISTED_UP, LIST_UP = 68.6, 225.0
WANTED, WANTED_ONCE = 66.0, 112.0
NO_MESSAGE_REQUEST = 13
HEARTBEAT_REQUEST, HEARTBEAT_RESPONSE = 22, 2
RUN_REQUEST, RUN_RESPONSE, FAB_RESPONSE = 23, 491, 74
# A handshake of TLS 1.3 without resumption, its packets' headers included. The server's certificate
# is one on P-256 without intermediates; a public authority's chain adds two to four thousand bytes.
TLS_HANDSHAKE_UP = 517 + 80 + 3 * PACKET_BYTES
TLS_HANDSHAKE_DOWN = 836 + 510 + 3 * PACKET_BYTES
CLOSE_NOTIFY_BYTES = 24
# Objects are pulled and pushed two at a time, over as many connections, which are closed when idle
# for five seconds. Training takes longer, so both are opened for a reply; the second has to be
# opened again for the next message if that comes later. Measured were 1.5 (an idle machine) to 2.9
# (a busy one) for a message and its reply; 2.5 are counted. One is 2.5 kB with TLS.
PARALLEL = 2
REOPENED = 0.5
POLL_S = 3.006  # Flower waits 3 s between polls; the poll itself takes the rest
HEARTBEAT_S = 20.0  # 25 s times 0.7 to 0.9


@dataclass(frozen=True)
class LinkBytes:
    """Bytes of IP packets towards the node and from it."""

    down: int
    up: int

    def __add__(self, other: "LinkBytes") -> "LinkBytes":
        return LinkBytes(self.down + other.down, self.up + other.up)


NOTHING = LinkBytes(0, 0)


def bytes_of_message(
    direction: str, n_bytes: int, n_objects: int, *, tls: bool = True, mtu_bytes: int = MTU_BYTES
) -> LinkBytes:
    """What a message of so many serialised bytes in so many objects costs, both ways.

    direction: "down" to the node, "up" to the server.
    """
    how = _Http(tls, mtu_bytes - PACKET_BYTES)
    if direction == "down":
        listed = round(LIST_DOWN + LISTED_DOWN * n_objects)
        return (
            how.exchanges(1, "/v1/fleet/pull-messages", NO_MESSAGE_REQUEST, listed)
            + how.exchanges(
                n_objects,
                "/v1/fleet/pull-object",
                PULL_REQUEST * n_objects,
                n_bytes + PULLED_OBJECT * n_objects,
            )
            + how.exchanges(1, "/v1/fleet/confirm-message-received", PULL_REQUEST, 0)
            + how.connections(REOPENED if n_objects > 1 else 0)
        )
    listed = round(LIST_UP + LISTED_UP * n_objects)
    wanted = round(WANTED_ONCE + WANTED * n_objects)
    return (
        how.exchanges(1, "/v1/fleet/push-messages", listed, wanted)
        + how.exchanges(
            n_objects,
            "/v1/fleet/push-object",
            n_bytes + PUSHED_OBJECT * n_objects,
            STORED * n_objects,
        )
        + how.connections(min(PARALLEL, n_objects))
    )


def bytes_of_start(fab_bytes: int, *, tls: bool = True, mtu_bytes: int = MTU_BYTES) -> LinkBytes:
    """What a node fetches once in a run: its settings, and the app bundle (FAB)."""
    how = _Http(tls, mtu_bytes - PACKET_BYTES)
    return how.exchanges(1, "/v1/fleet/get-run", RUN_REQUEST, RUN_RESPONSE) + how.exchanges(
        1, "/v1/fleet/get-fab", PULL_REQUEST, fab_bytes + FAB_RESPONSE
    )


def bytes_of_waiting(seconds: float, *, tls: bool = True, mtu_bytes: int = MTU_BYTES) -> LinkBytes:
    """What polls and heartbeats of a waiting node cost in so many seconds, on average."""
    how = _Http(tls, mtu_bytes - PACKET_BYTES)
    poll = how.exchanges(1, "/v1/fleet/pull-messages", NO_MESSAGE_REQUEST, 0)
    beats = bytes_of_heartbeats(seconds, tls=tls, mtu_bytes=mtu_bytes)
    polls = seconds / POLL_S
    return beats + LinkBytes(round(poll.down * polls), round(poll.up * polls))


def bytes_of_heartbeats(
    seconds: float, *, tls: bool = True, mtu_bytes: int = MTU_BYTES
) -> LinkBytes:
    """What a node sends of itself in so many seconds also while it computes, on average."""
    how = _Http(tls, mtu_bytes - PACKET_BYTES)
    beat = how.exchanges(1, "/v1/fleet/send-node-heartbeat", HEARTBEAT_REQUEST, HEARTBEAT_RESPONSE)
    beats = seconds / HEARTBEAT_S
    return LinkBytes(round(beat.down * beats), round(beat.up * beats))


def round_trips(direction: str, n_objects: int, *, tls: bool = True) -> int:
    """How often a message has one side wait for the other: requests, and connections opened."""
    requests = 1 + math.ceil(n_objects / PARALLEL) + (direction == "down")
    opening = 0 if direction == "down" else 2 if tls else 1
    return requests + opening


@dataclass(frozen=True)
class _Http:
    """HTTP over TCP. segment_bytes: what one packet carries."""

    tls: bool
    segment_bytes: int

    def exchanges(self, n: int, path: str, request_bytes: int, response_bytes: int) -> LinkBytes:
        """So many requests to a path; their bodies' bytes are those of all of them together."""
        up, segments_up = self._stream(n, request_bytes)
        down, segments_down = self._stream(n, response_bytes)
        # Headers go in a packet of their own, as one write; empty bodies are not sent.
        headers_up = n * (REQUEST_BYTES + len(path) + len(str(request_bytes // n)))
        headers_down = n * (RESPONSE_BYTES + len(str(response_bytes // n)))
        records = n * TLS_RECORD_BYTES if self.tls else 0
        return LinkBytes(
            down + headers_down + records + PACKET_BYTES * (n + _acks(n, segments_up)),
            up + headers_up + records + PACKET_BYTES * (n + _acks(n, segments_down)),
        )

    def _stream(self, n: int, n_bytes: int) -> tuple[int, int]:
        """Bytes on the wire of so many bodies, and packets that carry them."""
        if n_bytes == 0:
            return 0, 0
        if self.tls:
            n_bytes += TLS_RECORD_BYTES * (n + n_bytes // TLS_RECORD_PAYLOAD)
        segments = n_bytes // self.segment_bytes + n
        return n_bytes + PACKET_BYTES * segments, segments

    def connections(self, n: float) -> LinkBytes:
        """Connections that are opened, on average, and later closed since they were idle."""
        down, up = SYN_BYTES + 2 * PACKET_BYTES, SYN_BYTES + 3 * PACKET_BYTES
        if self.tls:
            down += TLS_HANDSHAKE_DOWN + CLOSE_NOTIFY_BYTES - PACKET_BYTES
            up += TLS_HANDSHAKE_UP
        return LinkBytes(round(n * down), round(n * up))


def _acks(n: int, segments: int) -> int:
    """Packets that only acknowledge: one for every second packet (RFC 5681), one a message."""
    return max(n, segments // 2)
