"""An estimate of the bytes of IP packets that a message costs on a node's link, both ways.

A node of Flower asks for everything over HTTP/1.1. To get a message it sends PullMessages, a
PullObject for each object of the message, and ConfirmMessageReceived; to reply, it sends
PushMessages and a PushObject for each object. So a message down costs requests and acknowledgements
up, and a message up costs answers down. While it waits, a node asks every three seconds whether
there is a message, and sends a heartbeat about every twenty seconds.

What counts is what a modem's quota counts: IP packets with their IPv4, TCP and TLS headers, without
those of Ethernet or the radio, and without what is sent again after a loss. The requests of Flower
were measured: there is a `FlowerSizes` for each version. `fed-ist bench wire` repeats the
measurement and says how far this estimate is from the interface counters.
"""

import math
from dataclasses import dataclass

PACKET_BYTES = 52  # IPv4 20, TCP 20, its timestamps 12
SEGMENT_BYTES = 1500 - PACKET_BYTES  # what one packet of Ethernet carries
SYN_BYTES = 60  # with the options of a first packet
TLS_RECORD_BYTES = 22  # TLS 1.3: a header of 5, a type of 1, a tag of 16
TLS_RECORD_PAYLOAD = 16_384
# A handshake of TLS 1.3 without resumption, its packets' headers included. The server's certificate
# is one on P-256 without intermediates; a public authority's chain adds two to four thousand bytes.
TLS_HANDSHAKE_UP = 517 + 80 + 3 * PACKET_BYTES
TLS_HANDSHAKE_DOWN = 836 + 510 + 3 * PACKET_BYTES
CLOSE_NOTIFY_BYTES = 24


@dataclass(frozen=True)
class FlowerSizes:
    """The bytes of the HTTP requests and answers of one version of Flower, and how often they come.

    request_headers and response_headers leave out the path and the digits of the content's length.
    All other sizes are bytes of bodies, as Protobuf. "per" means for each object of a message,
    "once" means for each message. identifier_request is the size of every request that names what
    it asks for: an object, an app bundle, and the confirmation that a message came.
    """

    version: str
    request_headers: int  # a node signs each: its public key and signature are half of it
    response_headers: int
    pull_messages_request: int
    pulled_list_once: float  # the message without its objects, and the identifiers of these
    pulled_list_per: float
    identifier_request: int
    pulled_object_per: int  # without the object itself
    pushed_list_once: float
    pushed_list_per: float
    wanted_once: float  # the answer to a pushed list: which objects the server lacks
    wanted_per: float
    pushed_object_per: int  # without the object itself
    stored_per: int  # the answer to a pushed object
    heartbeat_request: int
    heartbeat_response: int
    run_request: int
    run_response: int
    app_bundle_once: int  # without the bundle (FAB) itself
    parallel_objects: int  # pulled or pushed at a time, each over a connection of its own
    reopened_connections: float  # for a message to a node, on average
    poll_s: float  # from one poll to the next
    heartbeat_s: float  # from one heartbeat to the next


# Bytes were read from a capture of Flower 1.42.0 with httpx 0.28 and uvicorn 0.49 on Linux. Flower
# waits 3 s between polls, and a poll itself takes 6 ms; heartbeats come every 25 s times 0.7 to
# 0.9. Connections were counted in the runs of `fed-ist bench wire`: they are closed when idle for
# five seconds. Training takes longer, so both are opened again for a reply; the second is opened
# again for the next message if that comes later. For a message and its reply, 1.5 (on an idle
# machine) to 2.9 (on a busy one) were measured, and 2.5 are counted. One takes 2.5 kB with TLS.
FLOWER_1_42 = FlowerSizes(
    version="1.42.0",
    request_headers=820,
    response_headers=127,
    pull_messages_request=13,
    pulled_list_once=134.0,
    pulled_list_per=68.6,
    identifier_request=89,
    pulled_object_per=6,
    pushed_list_once=225.0,
    pushed_list_per=68.6,
    wanted_once=112.0,
    wanted_per=66.0,
    pushed_object_per=129,
    stored_per=2,
    heartbeat_request=22,
    heartbeat_response=2,
    run_request=23,
    run_response=491,
    app_bundle_once=74,
    parallel_objects=2,
    reopened_connections=0.5,
    poll_s=3.006,
    heartbeat_s=20.0,
)
FLOWER = FLOWER_1_42  # the version whose messages are counted


@dataclass(frozen=True)
class LinkBytes:
    """The bytes of IP packets towards the node and from it."""

    down: int
    up: int

    def __add__(self, other: "LinkBytes") -> "LinkBytes":
        return LinkBytes(self.down + other.down, self.up + other.up)


NOTHING = LinkBytes(0, 0)


def bytes_of_message(
    direction: str, n_bytes: int, n_objects: int, *, tls: bool = True
) -> LinkBytes:
    """What a message costs on the link, both ways.

    direction: "down" to the node, "up" to the server. n_bytes: of the serialised message.
    n_objects: of which it consists. tls: whether the connection has TLS.
    """
    how = _Http(tls)
    if direction == "down":
        listed = round(FLOWER.pulled_list_once + FLOWER.pulled_list_per * n_objects)
        return (
            how.exchanges(1, "/v1/fleet/pull-messages", FLOWER.pull_messages_request, listed)
            + how.exchanges(
                n_objects,
                "/v1/fleet/pull-object",
                FLOWER.identifier_request * n_objects,
                n_bytes + FLOWER.pulled_object_per * n_objects,
            )
            + how.exchanges(1, "/v1/fleet/confirm-message-received", FLOWER.identifier_request, 0)
            + how.connections(FLOWER.reopened_connections if n_objects > 1 else 0)
        )
    listed = round(FLOWER.pushed_list_once + FLOWER.pushed_list_per * n_objects)
    wanted = round(FLOWER.wanted_once + FLOWER.wanted_per * n_objects)
    return (
        how.exchanges(1, "/v1/fleet/push-messages", listed, wanted)
        + how.exchanges(
            n_objects,
            "/v1/fleet/push-object",
            n_bytes + FLOWER.pushed_object_per * n_objects,
            FLOWER.stored_per * n_objects,
        )
        + how.connections(min(FLOWER.parallel_objects, n_objects))
    )


def bytes_of_start(fab_bytes: int, *, tls: bool = True) -> LinkBytes:
    """What it costs that a node fetches the settings of a run and its app bundle (FAB) once."""
    how = _Http(tls)
    return how.exchanges(
        1, "/v1/fleet/get-run", FLOWER.run_request, FLOWER.run_response
    ) + how.exchanges(
        1, "/v1/fleet/get-fab", FLOWER.identifier_request, fab_bytes + FLOWER.app_bundle_once
    )


def bytes_of_waiting(seconds: float, *, tls: bool = True) -> LinkBytes:
    """What the polls and heartbeats of a waiting node cost in these seconds, on average."""
    how = _Http(tls)
    poll = how.exchanges(1, "/v1/fleet/pull-messages", FLOWER.pull_messages_request, 0)
    beats = bytes_of_heartbeats(seconds, tls=tls)
    polls = seconds / FLOWER.poll_s
    return beats + LinkBytes(round(poll.down * polls), round(poll.up * polls))


def bytes_of_heartbeats(seconds: float, *, tls: bool = True) -> LinkBytes:
    """What the heartbeats of a node cost in these seconds, on average, also while it computes."""
    how = _Http(tls)
    beat = how.exchanges(
        1, "/v1/fleet/send-node-heartbeat", FLOWER.heartbeat_request, FLOWER.heartbeat_response
    )
    beats = seconds / FLOWER.heartbeat_s
    return LinkBytes(round(beat.down * beats), round(beat.up * beats))


def round_trips(direction: str, n_objects: int, *, tls: bool = True) -> int:
    """How often one side waits for the other during a message: for requests and new connections."""
    requests = 1 + math.ceil(n_objects / FLOWER.parallel_objects) + (direction == "down")
    opening = 0 if direction == "down" else 2 if tls else 1
    return requests + opening


@dataclass(frozen=True)
class _Http:
    """HTTP over TCP, with TLS or without."""

    tls: bool

    def exchanges(self, n: int, path: str, request_bytes: int, response_bytes: int) -> LinkBytes:
        """What n requests to a path and their answers cost.

        request_bytes, response_bytes: of the bodies of all of them together.
        """
        up, segments_up = self._stream(n, request_bytes)
        down, segments_down = self._stream(n, response_bytes)
        # Headers go in a packet of their own, as one write; empty bodies are not sent.
        headers_up = n * (FLOWER.request_headers + len(path) + len(str(request_bytes // n)))
        headers_down = n * (FLOWER.response_headers + len(str(response_bytes // n)))
        records = n * TLS_RECORD_BYTES if self.tls else 0
        return LinkBytes(
            down + headers_down + records + PACKET_BYTES * (n + _acks(n, segments_up)),
            up + headers_up + records + PACKET_BYTES * (n + _acks(n, segments_down)),
        )

    def _stream(self, n: int, n_bytes: int) -> tuple[int, int]:
        """(bytes on the wire, packets) of n bodies with `n_bytes` together."""
        if n_bytes == 0:
            return 0, 0
        if self.tls:
            n_bytes += TLS_RECORD_BYTES * (n + n_bytes // TLS_RECORD_PAYLOAD)
        segments = n_bytes // SEGMENT_BYTES + n
        return n_bytes + PACKET_BYTES * segments, segments

    def connections(self, n: float) -> LinkBytes:
        """What it costs to open n connections, on average, and to close them when they are idle."""
        down, up = SYN_BYTES + 2 * PACKET_BYTES, SYN_BYTES + 3 * PACKET_BYTES
        if self.tls:
            down += TLS_HANDSHAKE_DOWN + CLOSE_NOTIFY_BYTES - PACKET_BYTES
            up += TLS_HANDSHAKE_UP
        return LinkBytes(round(n * down), round(n * up))


def _acks(n: int, segments: int) -> int:
    """Packets that only acknowledge: one for every two packets (RFC 5681), at least n."""
    return max(n, segments // 2)
