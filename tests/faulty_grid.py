"""The in-process Grid, with faults put where a network and a node out of order would put them."""

from collections.abc import Callable, Iterable
from typing import Any
from zlib import crc32

import numpy as np
from flwr.app import Array, Error, Message, Metadata
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.proto.node_pb2 import NodeInfo

from clients.app import app as client_app
from fed_ist.classifier.layout import param_shapes
from fed_ist.config.run_config import RunConfig
from fed_ist.traffic import protocol
from fed_ist.traffic.codecs import VERSION, decode
from sims.local_grid import LocalGrid

Fault = Callable[[Message, Message], Message | None]  # a reply and what it replies to -> a reply


class FaultyGrid(LocalGrid):
    """Records what is sent and received; `faults[node_id]` changes the reply of a node, or swallows
    it by returning None (at once, as if the time were up), where the message is of the type that
    `faulty_type` names.
    """

    def __init__(
        self, config: RunConfig, node_ids: list[int], node_config: dict[str, Any] | None = None
    ) -> None:
        super().__init__(client_app, config, node_ids)
        if node_config is not None:
            for context in self.contexts.values():
                context.node_config = node_config
        self.faults: dict[int, Fault] = {}
        self.faulty_type = "train"
        self.absent: dict[int, int] = {}  # how often nodes that answer then seem to be away
        self.known: dict[int, NodeInfo] = {}  # what a SuperLink knows of nodes
        self.sent: list[Message] = []
        self.received: list[Message] = []

    def get_node_ids(self) -> Iterable[int]:
        """Without those in `absent`, as often as it says, once they have been asked something."""
        asked = {message.metadata.dst_node_id for message in self._asked.values()}
        gone = {i for i, times in self.absent.items() if times and i in asked}
        self.absent.update({i: self.absent[i] - 1 for i in gone})
        return [i for i in super().get_node_ids() if i not in gone]

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [self.known.get(i, NodeInfo(node_id=i)) for i in self.get_node_ids()]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        messages = list(messages)
        self.sent += messages
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        asked = {i: self._asked[i] for i in message_ids if i in self._asked}
        for honest in super().pull_messages(asked):
            reply: Message | None = honest
            message = asked[honest.metadata.reply_to_message_id]
            node_id = message.metadata.dst_node_id
            if node_id in self.faults and message.metadata.message_type == self.faulty_type:
                reply = self.faults[node_id](honest, message)
            if reply is None:
                yield in_place_of(message, ErrorCode.MESSAGE_UNAVAILABLE)
            else:
                # By this the SuperLink has found it, whatever else is wrong with it.
                reply.metadata.__dict__["_reply_to_message_id"] = message.metadata.message_id
                self.received.append(reply)
                yield reply


def replace_array(
    name: str, array: Callable[[np.ndarray], np.ndarray], norm: str = "none"
) -> Fault:
    """Of a trained slice in fp32: any number at all, since no checksum tells who made it."""

    def fault(reply: Message, asked: Message) -> Message:
        record = reply.content.config_records[protocol.REPLY]
        widths = asked.content.config_records[protocol.TASK][protocol.WIDTHS]
        arrays = decode(record[protocol.SLICE], "fp32", param_shapes(widths, norm))
        arrays[name] = array(arrays[name])
        body = b"".join(arrays[key].tobytes() for key in sorted(arrays))
        record[protocol.SLICE] = bytes([VERSION, 0]) + crc32(body).to_bytes(4, "little") + body
        return reply

    return fault


def replace_plain_array(name: str, array: Callable[[np.ndarray], np.ndarray]) -> Fault:
    """Of those that no codec is made for."""

    def fault(reply: Message, asked: Message) -> Message:
        record = reply.content.array_records[protocol.ARRAYS]
        record[name] = Array(array(record[name].numpy()))
        return reply

    return fault


def replace_bytes(name: str, change: Callable[[bytes], Any]) -> Fault:
    def fault(reply: Message, asked: Message) -> Message:
        record = reply.content.config_records[protocol.REPLY]
        record[name] = change(record[name])
        return reply

    return fault


def replace_metric(name: str, value: int | float) -> Fault:
    def fault(reply: Message, asked: Message) -> Message:
        reply.content.config_records[protocol.REPLY][name] = value
        return reply

    return fault


def an_error(reply: Message, asked: Message) -> Message:
    return Message(Error(0, "out of memory"), reply_to=asked)


def silence(reply: Message, asked: Message) -> None:
    return None


def away(reply: Message, asked: Message) -> Message:
    """What the SuperLink says in the place of a node that it has not heard of for a minute."""
    return in_place_of(asked, ErrorCode.NODE_UNAVAILABLE)


def in_place_of(asked: Message, code: int) -> Message:
    """What Flower answers itself, of a node that is away or a message that has expired."""
    metadata = Metadata(
        run_id=1,
        message_id="",
        src_node_id=SUPERLINK_NODE_ID,
        dst_node_id=SUPERLINK_NODE_ID,
        reply_to_message_id=asked.metadata.message_id,
        group_id=asked.metadata.group_id,
        created_at=asked.metadata.created_at,
        ttl=asked.metadata.ttl,
        message_type=asked.metadata.message_type,
    )
    return make_message(metadata=metadata, error=Error(code, "Error: unavailable"))
