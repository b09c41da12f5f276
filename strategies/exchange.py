"""Messages to nodes, and what came back: replies, and which nodes were not heard of.

For a node that is away, Flower's SuperLink answers itself. That has crossed no link, and is no
reply of the node's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

UNAVAILABLE = (
    ErrorCode.NODE_UNAVAILABLE,
    ErrorCode.MESSAGE_UNAVAILABLE,
    ErrorCode.REPLY_MESSAGE_UNAVAILABLE,
)


@dataclass(frozen=True)
class Heard:
    """replies: of the nodes themselves. away: ids of nodes that have left, or that were not heard
    of for a minute. silent: of the others that did not answer in time.
    """

    replies: list[Message]
    away: list[int]
    silent: list[int]


def exchange(grid: Grid, messages: Sequence[Message], timeout_s: float) -> Heard:
    """Send messages, one a node, and wait for the replies."""
    replies, away_messages = [], set()
    for reply in grid.send_and_receive(messages, timeout=timeout_s):
        code = reply.error.code if reply.has_error() else None
        if code not in UNAVAILABLE:
            replies.append(reply)
        elif code == ErrorCode.NODE_UNAVAILABLE:
            away_messages.add(reply.metadata.reply_to_message_id)
    answered = {reply.metadata.src_node_id for reply in replies}
    away: list[int] = []
    silent: list[int] = []
    for message in messages:
        node_id = message.metadata.dst_node_id
        if node_id not in answered:
            is_away = message.metadata.message_id in away_messages
            (away if is_away else silent).append(node_id)
    return Heard(replies, away, silent)
