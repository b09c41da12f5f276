"""The in-process Grid, with faults put where a network and a node out of order would put them."""

from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Message

from clients.app import app as client_app
from fed_ist.config import RunConfig
from sims.local_grid import LocalGrid

Fault = Callable[[Message], Message | None]


class FaultyGrid(LocalGrid):
    """Records what is sent and received; `faults[node_id]` changes the reply of a node, or swallows
    it by returning None, where the message is of the type that `faulty_type` names.
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
        self.sent: list[Message] = []
        self.received: list[Message] = []

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        replies = []
        for message in messages:
            self.sent.append(message)
            node_id = message.metadata.dst_node_id
            reply: Message | None = self.app(message, self.contexts[node_id])
            if node_id in self.faults and message.metadata.message_type == self.faulty_type:
                assert reply is not None
                reply = self.faults[node_id](reply)
            if reply is not None:
                replies.append(reply)
        self.received += replies
        return replies
