"""A Flower Grid within one process: it hands real messages to a real ClientApp.

Experiments with hundreds of runs would otherwise spend their time on starting Ray. Strategies,
messages and bytes are the same as in a simulation or a deployment.
"""

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp.typing import ClientAppCallable
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from fed_ist.config.run_config import RunConfig


class LocalGrid(Grid):
    """A grid of simulated nodes, whose numbers 0, 1, … are their places in `node_ids`.

    Each has a context of its own. The nodes work one after the other, when they are asked for
    replies. Flower's Grid explains the methods.
    """

    def __init__(self, app: ClientAppCallable, config: RunConfig, node_ids: Sequence[int]) -> None:
        self.app = app
        self.contexts = {
            node_id: Context(
                run_id=1,
                node_id=node_id,
                node_config={"partition-id": i, "num-partitions": len(node_ids)},
                state=RecordDict(),
                run_config=dict(config.to_mapping()),
            )
            for i, node_id in enumerate(node_ids)
        }
        self._numbers = count()
        self._asked: dict[str, Message] = {}
        # Flower sets these in the process of a ServerApp; without them no message can be made.
        for name in ("_run_id", "_node_id", "_task_id"):
            if getattr(TaskIdentity, name) is None:
                setattr(TaskIdentity, name, 1)

    def get_node_ids(self) -> Iterable[int]:
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            # A reply names the message that it answers.
            message.metadata.__dict__["_message_id"] = message_id = str(next(self._numbers))
            self._asked[message_id] = message
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The nodes work when they are asked for their replies, one after the other."""
        for message_id in message_ids:
            if message := self._asked.pop(message_id, None):
                yield self.app(message, self.contexts[message.metadata.dst_node_id])

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        return list(self.pull_messages(self.push_messages(messages)))

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError
