"""Messages to nodes, and what comes back: replies, and which nodes were not heard of.

For a node that is away, and for a message that has expired, Flower's SuperLink answers itself. That
has crossed no link, and is no reply of the node's.
"""

import math
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

LEAST_POLL_S, MOST_POLL_S = 0.02, 3.0  # the latter is Flower's own
POLLS = 20  # the pause between two is one part in so many of the time so far
AT_ONCE = 32  # messages that are pushed or pulled in one go, lest all be in memory together
PATIENCE_S = 60.0
LAST_POLL_S = 0.1  # before messages expire; a simulation's SuperLink fails when asked for such
UNAVAILABLE = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE)


@dataclass(frozen=True)
class Missing:
    """away: ids of nodes that have left, or that were not heard of for a minute. silent: of the
    others that did not answer in time.
    """

    away: list[int]
    silent: list[int]


def exchange(
    grid: Grid, messages: Iterable[Message], timeout_s: float
) -> Generator[Message, None, Missing]:
    """Send messages, one a node, and yield the nodes' replies as they come.

    On a link that loses much, heartbeats fail for a minute while a node is at work. So one that
    seems to be away is waited for as long again as until then, though for `PATIENCE_S` and within
    `timeout_s` at most; and if it is heard of meanwhile, like any other.
    """
    begun_s = time.monotonic()
    asked, waiting, left_s = _push(grid, messages)
    until_s = min(begun_s + timeout_s, time.monotonic() + left_s) - LAST_POLL_S
    answered: set[int] = set()
    away: dict[str, float] = {}  # until when nodes that seem to be away are waited for
    while waiting:
        connected = set(grid.get_node_ids())
        # Asked about a node that is away, the SuperLink would drop the message and the reply to it.
        for reply in _pull(grid, [i for i in waiting if asked[i] in connected]):
            message_id = reply.metadata.reply_to_message_id
            waiting.pop(message_id, None)
            code = reply.error.code if reply.has_error() else None
            if code == ErrorCode.NODE_UNAVAILABLE:  # it has left in this very moment
                away[message_id] = 0.0
            elif code not in UNAVAILABLE:
                answered.add(reply.metadata.src_node_id)
                yield reply
        now_s = time.monotonic()
        for message_id in list(waiting):
            if asked[message_id] in connected:
                away.pop(message_id, None)
            elif now_s >= away.setdefault(message_id, now_s + min(now_s - begun_s, PATIENCE_S)):
                waiting.pop(message_id)
        if not waiting or now_s >= until_s:
            break
        pause_s = min(MOST_POLL_S, max(LEAST_POLL_S, (now_s - begun_s) / POLLS))
        time.sleep(min(pause_s, until_s - now_s))
    missing = {i: node_id for i, node_id in asked.items() if node_id not in answered}
    return Missing(
        away=[node_id for i, node_id in missing.items() if i in away],
        silent=[node_id for i, node_id in missing.items() if i not in away],
    )


def _push(grid: Grid, messages: Iterable[Message]) -> tuple[dict[str, int], dict[str, None], float]:
    """(nodes by the ids of their messages; the ids of those that the SuperLink has taken; seconds
    until the first of them expires).
    """
    asked: dict[str, int] = {}
    taken: dict[str, None] = {}  # in the order in which they were sent
    expires_s = math.inf
    left = iter(messages)
    while part := list(islice(left, AT_ONCE)):
        ids = set(grid.push_messages(part))
        for message in part:
            metadata = message.metadata
            asked[metadata.message_id] = metadata.dst_node_id
            expires_s = min(expires_s, metadata.created_at + metadata.ttl)
            if metadata.message_id in ids:
                taken[metadata.message_id] = None
    return asked, taken, expires_s - time.time()


def _pull(grid: Grid, ids: Sequence[str]) -> Iterable[Message]:
    for first in range(0, len(ids), AT_ONCE):
        yield from grid.pull_messages(ids[first : first + AT_ONCE])
