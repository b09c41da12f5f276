"""A Flower Grid within one process: it hands real messages to the real ClientApp.

Faults are put between the two, where a network and a node out of order would put them.
"""

from collections.abc import Callable, Iterable
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid

from clients.app import app as client_app
from fed_ist.config import RunConfig

Fault = Callable[[Message], Message | None]


class LocalGrid(Grid):
    """Nodes by id; `faults[node_id]` changes a train reply, or swallows it by returning None."""

    def __init__(
        self, config: RunConfig, node_ids: list[int], node_config: dict[str, Any] | None = None
    ):
        self.contexts = {
            node_id: Context(
                run_id=1,
                node_id=node_id,
                node_config=node_config or {"partition-id": i, "num-partitions": len(node_ids)},
                state=RecordDict(),
                run_config=config.to_mapping(),
            )
            for i, node_id in enumerate(node_ids)
        }
        self.faults: dict[int, Fault] = {}
        self.sent: list[Message] = []
        self.received: list[Message] = []

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        replies = []
        for message in messages:
            self.sent.append(message)
            node_id = message.metadata.dst_node_id
            reply: Message | None = client_app(message, self.contexts[node_id])
            if node_id in self.faults and message.metadata.message_type == "train":
                assert reply is not None
                reply = self.faults[node_id](reply)
            if reply is not None:
                replies.append(reply)
        self.received += replies
        return replies

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError
