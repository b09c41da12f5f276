"""Messages to nodes, and what came back: replies, and which nodes were not heard of.

For a node that is away, Flower's SuperLink answers itself. That has crossed no link, and is no
reply of the node's.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

POLL_S = 3.0  # as Flower's own
PATIENCE_S = 60.0
UNAVAILABLE = (ErrorCode.MESSAGE_UNAVAILABLE, ErrorCode.REPLY_MESSAGE_UNAVAILABLE)


@dataclass(frozen=True)
class Heard:
    """replies: of the nodes themselves. away: ids of nodes that have left, or that were not heard
    of for a minute. silent: of the others that did not answer in time.
    """

    replies: list[Message]
    away: list[int]
    silent: list[int]


def exchange(grid: Grid, messages: Sequence[Message], timeout_s: float) -> Heard:
    """Send messages, one a node, and wait for the replies.

    On a link that loses much, heartbeats fail for a minute while a node is at work. So one that
    seems to be away is waited for as long again, for `PATIENCE_S` and within `timeout_s` at most.
    """
    begun_s = time.monotonic()
    replies, away_ids = _part(grid.send_and_receive(messages, timeout=timeout_s))
    now_s = time.monotonic()
    until_s = min(now_s + min(now_s - begun_s, PATIENCE_S), begun_s + timeout_s)
    waiting = set(away_ids)
    while waiting and (left_s := until_s - time.monotonic()) > 0:
        time.sleep(min(POLL_S, left_s))
        late, _ = _part(grid.pull_messages(waiting))
        replies += late
        waiting -= {reply.metadata.reply_to_message_id for reply in late}
    answered = {reply.metadata.src_node_id for reply in replies}
    away: list[int] = []
    silent: list[int] = []
    for message in messages:
        node_id = message.metadata.dst_node_id
        if node_id not in answered:
            (away if message.metadata.message_id in away_ids else silent).append(node_id)
    return Heard(replies, away, silent)


def _part(found: Iterable[Message]) -> tuple[list[Message], set[str]]:
    """(nodes' own replies, ids of the messages to nodes that are away)."""
    replies, away_ids = [], set()
    for reply in found:
        code = reply.error.code if reply.has_error() else None
        if code == ErrorCode.NODE_UNAVAILABLE:
            away_ids.add(reply.metadata.reply_to_message_id)
        elif code not in UNAVAILABLE:
            replies.append(reply)
    return replies, away_ids
